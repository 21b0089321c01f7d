"""Rows on what ends by its TTL. All of them run at once, each below a directory of its own, since they wait
for the most part. Nothing rests on how long the machine takes, but for a bound that has several tries.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Any

from tests.cluster.local_cluster import until
from tests.interop.rows.table import Checks
from tests.interop.rows.world import Ctl, Site, World, until_over

TIMED_KEYS = Checks()  # of a site and a directory of one's own
TIMED_COMMANDS = Checks()  # of a command line and a directory of one's own
key_row, command_row = TIMED_KEYS.row, TIMED_COMMANDS.row


def run(world: World) -> dict[str, BaseException | None]:
    """All of them, at every site and with every command line; how each check ended."""
    jobs: list[tuple[Callable[..., Any], Site | Ctl, str]] = []
    for checks, whom in ((TIMED_KEYS, world.sites), (TIMED_COMMANDS, world.tools)):
        for check in dict.fromkeys(checks.of.values()):
            for number, one in enumerate(whom):  # type: ignore[var-annotated, arg-type]
                jobs.append((check, one, f"/timed/{check.__name__}-{number}"))
    ended: dict[str, BaseException | None] = {check.__name__: None for check, _, _ in jobs}
    with ThreadPoolExecutor(len(jobs)) as pool:
        for (check, _, _), job in [(job, pool.submit(*job)) for job in jobs]:
            ended[check.__name__] = ended[check.__name__] or job.exception()
    return ended


def gone(site: Site, key: str) -> None:
    """Until it is not there any more."""
    until(lambda: site.get(key).status == 404)


@key_row("S0-001")
def health(site: Site, base: str) -> None:
    key = f"{base}/h"

    def kept() -> int:
        """Registered, and refreshed before it is over. The index after that."""
        site.put(key, "value=1&ttl=5")
        refreshed = site.put(key, "ttl=60&refresh=true&prevExist=true")
        return int(refreshed.node["modifiedIndex"]) if refreshed.status == 200 else 0

    index = until(kept)
    until_over(5.6)
    assert site.value(key) == "1"  # its first TTL is over
    site.put(key, "ttl=1&refresh=true&prevExist=true")
    event = site.wait(f"{key}?wait=true&waitIndex={index + 1}").event()
    assert (event["action"], event["node"]["key"]) == ("expire", key)
    assert event["prevNode"]["value"] == "1"
    gone(site, key)


@key_row("S1-031")
def shrinks(site: Site, base: str) -> None:
    site.put(f"{base}/k", "value=x&ttl=500")
    first = site.get(f"{base}/k").node["ttl"]
    until(lambda: site.get(f"{base}/k").node["ttl"] < first)


@key_row("S1-032")
def after_it(site: Site, base: str) -> None:
    key = f"{base}/k"
    site.put(f"{base}/other", "value=1")
    site.put(key, "value=x&ttl=1")
    gone(site, key)
    found = site.get(key)
    assert found.refusal == (404, 100, key)
    assert {"x-etcd-cluster-id", "x-etcd-index"} <= set(found.headers)
    assert not {"x-raft-index", "x-raft-term"} & set(found.headers)


@key_row("S1-047")
def directory(site: Site, base: str) -> None:
    site.put(f"{base}/dir", "dir=true")
    index = int(site.put(f"{base}/dir/x", "value=1").node["modifiedIndex"])
    site.put(f"{base}/dir", "dir=true&ttl=1&prevExist=true")
    event = site.wait(f"{base}/dir/x?wait=true&waitIndex={index + 1}").event()
    assert (event["action"], event["node"]["key"]) == ("expire", f"{base}/dir")
    assert event["node"]["dir"]
    gone(site, f"{base}/dir/x")


def told_late_s(site: Site, key: str) -> float:
    """How long after the end of a key a watcher is told of it. All clocks are this machine's."""
    made = site.put(key, "value=up&ttl=1").node
    event = site.wait(f"{key}?wait=true&waitIndex={made['modifiedIndex'] + 1}").event()
    assert event["action"] == "expire"
    return time.time() - datetime.fromisoformat(made["expiration"]).timestamp()


@key_row("S3-011", "S3-027")
def machines(site: Site, base: str) -> None:
    """An index that stays, states of machines that end; a subscriber is told of both, within a second."""
    index = int(site.put(f"{base}/meta/index", "value=1").node["modifiedIndex"])
    site.put(f"{base}/machines/m1", "value=up&ttl=1")
    seen = []
    while not seen or seen[-1][0] != "expire":
        event = site.wait(f"{base}?wait=true&recursive=true&waitIndex={index}").event()
        index = event["node"]["modifiedIndex"] + 1
        seen.append((event["action"], event["node"]["key"].removeprefix(base)))
    assert seen == [("set", "/meta/index"), ("set", "/machines/m1"), ("expire", "/machines/m1")]
    assert site.value(f"{base}/meta/index") == "1"
    assert any(told_late_s(site, f"{base}/machines/m{n}") < 1.0 for n in (2, 3, 4))


@key_row("S3-018")
def loose_heartbeats(site: Site, base: str) -> None:
    """A checker knows a directory only, and reports who is missing."""
    stop = threading.Event()

    def beat() -> None:
        while not stop.wait(1.0):
            site.put(f"{base}/alive/a", "value=1&ttl=30")

    site.put(f"{base}/alive/a", "value=1&ttl=30")
    site.put(f"{base}/alive/b", "value=1&ttl=1")
    beating = threading.Thread(target=beat)
    beating.start()
    try:
        until(lambda: {"a", "b"} - set(site.names(f"{base}/alive")) == {"b"})
    finally:
        stop.set()
        beating.join()


@key_row("S3-020")
def progress(site: Site, base: str) -> None:
    """A task's directory ends with the task; a manager sees its progress live."""
    task = f"{base}/task"
    index = int(site.put(task, "dir=true&ttl=60").node["modifiedIndex"])
    for percent in (10, 50):
        site.put(f"{task}/progress", f"value={percent}")
    site.put(task, "dir=true&ttl=1&prevExist=true")  # the last that it does
    seen = []
    while not seen or seen[-1] != "expire":
        event = site.wait(f"{task}?wait=true&recursive=true&waitIndex={index + 1}").event()
        index = event["node"]["modifiedIndex"]
        if event["action"] != "update":
            seen.append(event["node"].get("value", event["action"]))
    assert seen == ["10", "50", "expire"]


@command_row("S0-071")
def set_ttl(ctl: Ctl, base: str) -> None:
    assert ctl.ok("set", "--ttl", "1", f"{base}/t", "v") == "v\n"
    until(lambda: ctl.run("get", f"{base}/t").code == 4, look_s=1)


@command_row("S0-088")
def mk_ttl(ctl: Ctl, base: str) -> None:
    assert ctl.ok("mk", "--ttl", "1", f"{base}/t", "v") == "v\n"
    until(lambda: ctl.run("mk", f"{base}/t", "v").code == 0, look_s=1)


@command_row("S0-090")
def mkdir_ttl(ctl: Ctl, base: str) -> None:
    ctl.ok("mkdir", "--ttl", "1", f"{base}/d")
    gone(ctl.site, f"{base}/d")


@command_row("S0-093")
def setdir_ttl(ctl: Ctl, base: str) -> None:
    ctl.ok("setdir", "--ttl", "1", f"{base}/d")
    gone(ctl.site, f"{base}/d")


@command_row("S1-094")
def ttl_behind(ctl: Ctl, base: str) -> None:
    began = time.monotonic()
    assert ctl.ok("set", f"{base}/tempkey", "gone with wind", "--ttl", "5") == "gone with wind\n"
    found = ctl.run("get", f"{base}/tempkey")
    if time.monotonic() - began < 4:  # a machine that takes longer finds nothing
        assert found.out == "gone with wind\n"
    gone(ctl.site, f"{base}/tempkey")
    assert ctl.error("get", f"{base}/tempkey").startswith("Error:  100: Key not found")


@command_row("S1-102")
def update_ttl(ctl: Ctl, base: str) -> None:
    ctl.ok("set", f"{base}/message", "x")
    assert ctl.ok("update", "--ttl", "3", f"{base}/message", "I'am changed") == "I'am changed\n"
    gone(ctl.site, f"{base}/message")
