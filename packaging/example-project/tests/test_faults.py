from __future__ import annotations

import time
from collections.abc import Callable

import muster_client as m
from muster_client.sync import Client
from nightly import run_once

from muster.testing import Cluster


def until_done(client: Client, day: str, limit_s: float = 60.0) -> None:
    """As a machine does that keeps on: an error tells that an attempt may not have been carried out."""
    deadline = time.monotonic() + limit_s
    while client.get(f"/nightly/report/{day}") is None:
        try:
            run_once(client, "report", day, lambda: None, ttl=5)
        except m.MusterError:
            assert time.monotonic() < deadline
            time.sleep(0.1)


def test_a_job_is_done_although_leaders_fail(muster_cluster: Callable[..., Cluster]) -> None:
    cluster = muster_cluster(hosts=3)
    with cluster.client(timeout=5) as client:
        until_done(client, "0")
        for fault in (cluster.kill, cluster.freeze, cluster.partition):
            leader = cluster.leader()
            fault(leader)
            until_done(client, f"after a {fault.__name__}")
            if fault == cluster.kill:
                cluster.restart(leader)
            cluster.thaw()
            cluster.heal()
        until_done(client, "1")
