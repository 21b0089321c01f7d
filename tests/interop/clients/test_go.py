"""Go: the seeds' registration and discovery, and clientv3 3.5 and 3.6 in breadth."""

from __future__ import annotations

import contextlib
import itertools
import signal
import time
from pathlib import Path

import pytest

from tests.interop.conftest import GO_VERSIONS as VERSIONS
from tests.interop.hosts import APART, Hosts
from tests.interop.toolchain import Program, checked, skip_without
from tests.soaking import SOAK
from tests.tries import TooSlow, best_of_three, within

skip_without("go")
pytestmark = [pytest.mark.interop, pytest.mark.timeout(600)]

LIMIT_S = 60.0
TTL_S = 5.0
TICK_S = 1.5  # what a lease may take beyond its time: etcd looks twice a second, and then it must commit
KEPT_ALIVE_S = 60.0 if SOAK else 6.0
CHECKS = [
    "alarms", "compact", "election", "every-host-reads-what-was-written", "hash-kv", "lease", "lease-expires",
    "lease-keep-alive", "limits", "members", "mirror", "mutex", "mutex-of-a-dead-session", "namespace",
    "naming-endpoints", "put-get-delete", "ranges", "recipes", "snapshot", "status", "stm", "txn", "watch",
    "watch-filters", "watch-fragments", "watch-from-old-revision", "watch-many", "watch-progress",
]  # fmt: skip


@pytest.mark.longer
@best_of_three
def test_a_registration_is_found_and_goes_with_its_process(programs: dict[str, Path], hosts: Hosts) -> None:
    with (
        Program([programs["3.5"], "discover", "-endpoints", hosts.endpoints[1]]) as discover,
        Program([programs["3.5"], "register", "-endpoints", hosts.endpoints[0]]) as register,
    ):
        discover.wait_for("set data key : /node/111 val: heiheihei$", LIMIT_S)
        assert hosts.get("/node/111", host=2) == "heiheihei"
        register.wait_for("^续租成功$", LIMIT_S)
        discover.say("")
        discover.wait_for("^list 1: heiheihei$", LIMIT_S)
        until = time.monotonic() + KEPT_ALIVE_S
        while time.monotonic() < until:
            register.wait_for("^续租成功$", LIMIT_S, count=len(register.times("续租成功")) + 1)
        answers = register.times("^续租成功$")
        gaps = [later - earlier for earlier, later in itertools.pairwise(answers)]
        assert discover.times("del data key") == []

        killed = time.monotonic()
        register.signal(signal.SIGKILL)
        deleted = discover.wait_for("del data key: /node/111$", LIMIT_S)
        kept_s = deleted - register.times("^续租成功$")[-1]
        assert hosts.get("/node/111") is None
        discover.say("")
        discover.wait_for("^list 0: $", LIMIT_S)
        within(deleted - killed, TTL_S + TICK_S, "the end of the lease")
        if not all(0.9 < gap < 2.5 for gap in gaps):
            raise TooSlow(f"renewals came so many seconds apart: {gaps}")
        if kept_s <= TTL_S - 0.5:  # it may have told of a renewal later than it had it
            raise TooSlow(f"the lease ended {kept_s} s after a renewal was told")


@best_of_three
def test_a_revoked_registration_is_gone_at_once(programs: dict[str, Path], hosts: Hosts) -> None:
    with (
        Program([programs["3.6"], "discover", "-endpoints", hosts.endpoints[2]]) as discover,
        Program([programs["3.6"], "register", "-endpoints", hosts.endpoints[1]]) as register,
    ):
        discover.wait_for("set data key : /node/111 val: heiheihei$", LIMIT_S)
        register.wait_for("^续租成功$", LIMIT_S)
        register.signal(signal.SIGUSR1)
        closed = register.wait_for("^已经关闭续租功能$", LIMIT_S)
        register.finish(LIMIT_S)
        assert hosts.get("/node/111") is None
        deleted = discover.wait_for("del data key: /node/111$", LIMIT_S)
        within(deleted - closed, 3.2)  # by the revoke after 2 s, not by the end of the lease
        if deleted - closed <= 1.5:
            raise TooSlow("it told late that it keeps the lease no more")


def test_a_registration_started_before_the_discovery_is_listed(
    programs: dict[str, Path], hosts: Hosts
) -> None:
    line: list[str | Path] = [programs["3.5"], "register", "-endpoints", hosts.all]
    with (
        Program([*line, "-key", "/nodes/a", "-value", "10.0.0.1:80"]) as one,
        Program([*line, "-key", "/nodes/b", "-value", "10.0.0.2:80"]) as two,
    ):
        for register in (one, two):
            register.wait_for("^续租成功$", LIMIT_S)
        with Program(
            [programs["3.5"], "discover", "-endpoints", hosts.all, "-prefix", "/nodes/"]
        ) as discover:
            discover.wait_for("set data key : /nodes/a", LIMIT_S)
            discover.wait_for("set data key : /nodes/b", LIMIT_S)
            discover.say("")
            discover.wait_for("^list 2: 10.0.0.1:80 10.0.0.2:80$", LIMIT_S)


def test_every_check_is_run(programs: dict[str, Path]) -> None:
    for program in programs.values():
        assert checked([program, "checks", "-list"]).split() == CHECKS


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("check", CHECKS)
def test_clientv3(check: str, version: str, programs: dict[str, Path], hosts: Hosts) -> None:
    checked([programs[version], "checks", *APART, "-endpoints", hosts.all, check])


@pytest.mark.parametrize("version", VERSIONS)
def test_clientv3_goes_on_when_the_leader_is_killed(
    version: str, programs: dict[str, Path], hosts: Hosts
) -> None:
    leader = hosts.leader()
    with Program([programs[version], "failover", *APART, "-endpoints", hosts.all]) as program:
        program.wait_for("^running$", LIMIT_S)
        hosts.kill(leader)
        program.say("killed")
        program.finish(LIMIT_S)
        print(program.text())


@pytest.mark.longer
def test_clientv3_of_each_version_sees_nothing_of_a_rolling_restart(
    programs: dict[str, Path], hosts: Hosts
) -> None:
    with contextlib.ExitStack() as stack:
        clients = [
            stack.enter_context(Program([programs[version], "rolling", "-endpoints", hosts.all]))
            for version in VERSIONS
        ]

        def more() -> None:
            """Each has done more than it had when this was called."""
            counts = [len(client.times("^more$")) + 2 for client in clients]
            for client, count in zip(clients, counts, strict=True):
                client.wait_for("^more$", 60, count=count)

        for client in clients:
            client.wait_for("^running$", LIMIT_S)
        for host in range(3):
            hosts.restart(host, more)
            more()
        for client in clients:
            client.say("stop")
        for client in clients:
            client.finish(LIMIT_S)
            print(client.text())
