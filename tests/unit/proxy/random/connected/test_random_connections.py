"""Whatever clients do to their connections, nothing of them stays, and each request over HTTP/1.1 has its
answer. A seed repeats by itself: ``-k 'left and 17'``. Three rules are taken out: runs notice each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from cluster.faults import faults
from proxy.http.http1 import Http1Connection
from proxy.http.memory import Memory
from proxy.v2.waiting.waits import Waits
from tests.sim.world.seeds import seeds
from tests.unit.proxy.random.connected import run as rules
from tests.unit.proxy.random.connected.run import Connected, broken

Patch = pytest.MonkeyPatch
_SEEDS = range(15)


@pytest.mark.longer
@pytest.mark.parametrize("seed", seeds(len(_SEEDS), 500))
def test_nothing_is_left_of_connections(seed: int, monkeypatch: Patch) -> None:
    run = Connected(seed, monkeypatch)
    run.go()
    assert not broken(run)


def holds_memory_after_its_end(patch: Patch) -> None:
    """Others would be refused for what a connection held that is gone."""
    count = Memory.count

    def keep(self: Memory, holder: Any, size: int) -> None:
        if size:
            count(self, holder, size)

    patch.setattr(Memory, "count", keep)


def waits_stay_after_their_clients(patch: Patch) -> None:
    patch.setattr(Waits, "_drop", lambda self, wait: None)


def forgets_what_stands_behind_an_answer(patch: Patch) -> None:
    """A client may send its next requests before it has an answer."""
    patch.setattr(Http1Connection, "_go_behind", lambda self: None)


@pytest.mark.parametrize(("mutant", "rule"), [
    (holds_memory_after_its_end, rules.connections_hold_nothing),
    (waits_stay_after_their_clients, rules.no_wait_of_version_2_stays),
    (forgets_what_stands_behind_an_answer, rules.each_request_of_http1_is_answered),
])
def test_a_run_notices(
    mutant: Callable[[Patch], None], rule: Callable[[Connected], Any], monkeypatch: Patch
) -> None:
    mutant(monkeypatch)
    assert any(_notices(seed, rule, monkeypatch) for seed in _SEEDS)


def _notices(seed: int, rule: Callable[[Connected], Any], monkeypatch: Patch) -> bool:
    run = Connected(seed, monkeypatch)
    try:
        run.go()
        found = broken(run)
    finally:
        faults.take()
    return any(one.startswith(rule.__name__) for one in found)
