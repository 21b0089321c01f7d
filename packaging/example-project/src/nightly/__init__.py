"""Jobs that run once a day, however many machines try."""

from __future__ import annotations

from collections.abc import Callable

import muster_client as m
from muster_client.sync import Client


def run_once(client: Client, job: str, day: str, work: Callable[[], None], ttl: int = 10) -> bool:
    """Run ``work`` unless it was done that day; whether it ran here. A machine that dies meanwhile frees the
    job after ``ttl`` seconds."""
    done = f"/nightly/{job}/{day}"
    with client.lock(f"/nightly/locks/{job}", ttl=ttl) as lock:
        if client.get(done) is not None:
            return False
        work()
        # fenced: nothing is written if the lock was lost meanwhile
        return bool(client.when(lock.held).then(m.put(done, "done")).commit())
