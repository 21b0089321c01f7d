"""Rows on what happens when members die: one course of events on the cluster that all rows share, tried last.
Each row looks at what was seen meanwhile.
"""

from __future__ import annotations

import contextlib
import http.client
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tests.cluster.local_cluster import until
from tests.interop.rows.table import Checks
from tests.interop.rows.world import Ctl, Done, Got, Site, World
from tests.interop.v2.v2_hosts import serves

CLUSTER = Checks()  # of the world and of what was seen
row = CLUSTER.row
Seen = dict[str, Any]


def course(world: World) -> Seen:
    """The leader is killed under writes; a member stops; two of three are down; all of them are."""
    world.members[0].wipe()
    seen: Seen = {}
    try:
        _leader_dies(world, seen)
        _member_stops(world, seen)
        _majority_is_down(world, seen)
        _all_died(world, seen)
    except BaseException:
        with contextlib.suppress(AssertionError):  # for the rows after it
            _start(world, 0, 1, 2)
        raise
    return seen


def _start(world: World, *hosts: int) -> None:
    world.cluster.ok("start", *map(str, hosts), "--wait=60s")
    until(lambda: all(serves(site.server) for site in (*world.members, world.proxy)))


def _term(site: Site) -> int:
    return int(site.ask("GET", "/v2/keys/?quorum=true").headers["x-raft-term"])


def _written(site: Site, key: str, value: str) -> bool:
    """Whether a write was acknowledged; a connection may end, an answer may be an error."""
    with contextlib.suppress(OSError, http.client.HTTPException):
        return site.put(key, f"value={value}").status in (200, 201)
    return False


def _health(world: World, ctl: Ctl, *, code: int) -> Done:
    """What cluster-health says once it ends with this code."""
    found: list[Done] = []

    def looked() -> bool:
        found.append(ctl.bare("--timeout", "10s", "--total-timeout", "40s", "cluster-health"))
        return found[-1].code == code

    until(looked, look_s=0.5)
    return found[-1]


def _leader_dies(world: World, seen: Seen) -> None:
    leader = world.cluster.leader()
    left = [site for host, site in enumerate(world.members) if host != leader]
    seen["term before"] = _term(left[0])
    acknowledged: list[int] = []
    stop = threading.Event()

    def load() -> None:
        number = 0
        while not stop.is_set():
            site = (left[0], left[1], world.proxy)[number % 3]
            if _written(site, f"/load/{number}", str(number)):
                acknowledged.append(number)
            number += 1

    loading = threading.Thread(target=load)
    loading.start()
    try:
        until(lambda: len(acknowledged) > 20)
        seen["d written"] = _written(world.members[leader], "/d", "1")
        world.cluster.ok("kill", str(leader))
        at_death = len(acknowledged)
        until(lambda: len(acknowledged) > at_death + 20)
        seen["d on the others"] = [site.value("/d") for site in left]
        seen["put with one down"] = [_written(site, "/one-down", "1") for site in (*left, world.proxy)]
        ours = Ctl(world.tools[0].line, left[0], ours=True)
        seen["degraded"] = [
            _health(world, ours, code=5),
            _health(world, Ctl(world.tools[1].line, left[1], False), code=5),
        ]
    finally:
        stop.set()
        loading.join()
        _start(world, leader)
    back = world.members[leader]
    seen["missing"] = [n for n in acknowledged if back.value(f"/load/{n}") != str(n)]
    seen["healthy"] = [_health(world, tool, code=0) for tool in world.tools[:2]]


def _member_stops(world: World, seen: Seen) -> None:
    """A wait at a member that stops ends without an event; the client goes on at another one."""
    stopping, other = world.members[2], world.members[0]
    waiting = stopping.wait("/w?wait=true")
    index = other.server.index() + 1
    with ThreadPoolExecutor(1) as pool:
        body = pool.submit(waiting.body)
        world.cluster.ok("stop", "2")
        seen["empty"] = (waiting.response.status, body.result(60))
    waiting = other.wait(f"/w?wait=true&waitIndex={index}")
    until(lambda: _written(world.members[1], "/w", "later"))
    seen["event elsewhere"] = waiting.event()["node"]["value"]


def _majority_is_down(world: World, seen: Seen) -> None:
    """The third member is still down; one that is left follows it."""
    last = world.members[0]
    seen["before"] = [n for n in range(5) if _written(last, f"/kept/{n}", str(n))]
    last.settle()
    world.cluster.ok("kill", "1")
    with ThreadPoolExecutor(4) as pool:
        put = pool.submit(last.put, "/x", "value=1")
        quorum = pool.submit(last.ask, "GET", "/v2/keys/kept/0?quorum=true")
        etcdctl = Ctl(world.tools[1].line, last, ours=False)
        ours = Ctl(world.tools[0].line, last, ours=True)  # as articles type it: by its default limits
        wish = ("member", "add", "x", "http://127.0.0.1:9")
        patient = ("--no-sync", "--timeout", "50s", "--total-timeout", "55s")
        add = [pool.submit(etcdctl.bare, *patient, *wish), pool.submit(ours.bare, *wish)]
        seen["plain read"] = Got(*_parts(last.server.ask("GET", "/v2/keys/kept/0"))).node["value"]
        seen["refused"] = [put.result(), quorum.result()]
        seen["add"] = [job.result() for job in add]


def _all_died(world: World, seen: Seen) -> None:
    """The last one is killed, too; then all start again."""
    world.cluster.ok("kill", "0")
    _start(world, 0, 1, 2)
    seen["kept"] = [
        n for n in seen["before"] if all(site.value(f"/kept/{n}") == str(n) for site in world.members)
    ]
    seen["after all died"] = [tool.ok("get", "/kept/0") for tool in world.tools]
    seen["term after"] = _term(world.members[0])


def _parts(answer: Any) -> tuple[int, dict[str, str], str]:
    return answer.status, answer.headers, answer.body


@row("S0-005", "S1-088")
def a_minority(world: World, seen: Seen) -> None:
    assert seen["put with one down"] == [True] * 3
    for answer in seen["refused"]:
        assert answer.refusal[:2] == (500, 300)
    assert seen["plain read"] == "0"
    assert seen["before"] == seen["kept"] == list(range(5))


@row("S0-016")
def writes_resume(world: World, seen: Seen) -> None:
    assert seen["missing"] == []


@row("S0-047")
def acknowledged(world: World, seen: Seen) -> None:
    assert seen["d written"]
    assert seen["d on the others"] == ["1", "1"]


@row("S0-054")
def persists(world: World, seen: Seen) -> None:
    assert seen["after all died"] == ["0\n"] * 3


@row("S0-114")
def health(world: World, seen: Seen) -> None:
    for done in seen["healthy"]:
        assert done.out.count(" is healthy: got healthy result from http://") == 3
        assert done.out.endswith("cluster is healthy\n")
    for done in seen["degraded"]:
        assert " is unreachable: [" in done.out
        assert done.out.endswith("cluster is degraded\n")


@row("S1-026")
def term(world: World, seen: Seen) -> None:
    assert seen["term after"] > seen["term before"]


@row("S1-042")
def empty_answer(world: World, seen: Seen) -> None:
    assert seen["empty"] == (200, b"")
    assert seen["event elsewhere"] == "later"


@row("S3-074")
def no_change(world: World, seen: Seen) -> None:
    for done in seen["add"]:
        assert done.code == 1
        assert done.err != ""
