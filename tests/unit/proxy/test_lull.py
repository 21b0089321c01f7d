"""A front that nobody asks anything sweeps seldom, and as usual with the first thing that happens."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from cluster.pacing.lull import Lull
from cluster.wire.messages import Method, Status
from proxy.routing.routes import _HELD_S
from proxy.routing.sending import _LULL_SHARE, LULL_S, SWEEP_S
from tests.unit.proxy.fakes import FakeCall, Net


@pytest.fixture
def net() -> Net:
    return Net().started()


def lulled(net: Net) -> list[float]:
    """From now on sweeps are seldom; what is told of the next one."""
    told: list[float] = []
    net.router.stirred = told.append
    while not net.router.lull.lulled:
        net.router.lull.looked(net.router.calm)
    assert net.router.lull.looked(net.router.calm) == LULL_S
    return told


def read(net: Net) -> None:
    call = FakeCall()
    net.router.read(call, Method.HASH_KV, b"", 0, True, net.context.method("unary", "x", "y"))


def link_is_lost(net: Net) -> None:
    next(iter(net.router.routes[0].links.values())).close("for a test")


def node_leaves(net: Net) -> None:
    net.nodes[1].answer(0, Status.LEAVING, b"")
    net.run()


@pytest.mark.parametrize("happens", [read, link_is_lost, node_leaves])
def test_whatever_happens_brings_the_next_sweep_at_once(net: Net, happens: Callable[[Net], None]) -> None:
    told = lulled(net)
    happens(net)
    assert told == [SWEEP_S]
    assert not net.router.lull.lulled


def test_a_request_that_waits_keeps_sweeps_frequent(net: Net) -> None:
    assert net.router.calm
    read(net)
    assert not net.router.calm


def test_a_front_that_lacks_a_link_is_not_calm(net: Net) -> None:
    leader = net.router.routes[0].leader_link
    assert leader is not None
    leader.close("for a test")
    assert not net.router.calm


@pytest.mark.parametrize("election_ms", [100, 400, 1000, 5000])
def test_no_pause_looks_like_a_loop_that_was_held(net: Net, election_ms: int) -> None:
    """A front whose looks are further apart than that would excuse a silent node again and again."""
    election_s = election_ms / 1000
    lull = Lull(SWEEP_S, min(LULL_S, _LULL_SHARE * election_s))
    pauses = {lull.looked(calm=True) for _ in range(100)}
    assert max(pauses) <= 0.7 * max(election_s / 4, _HELD_S)
