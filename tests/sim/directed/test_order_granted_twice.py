"""A prepare is sent to a leader twice: that one is deposed and elected anew in between.

So a transaction is granted in two terms. Between them nothing was locked. What was evaluated ahead on the
first grant may not be logged under the term of the second (``Coordinator.granted``).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from cluster.evaluate.steps import Steps
from cluster.evaluate.txns import draft
from cluster.order.log import Attempt
from cluster.order.prepare import Grant, sent_at
from cluster.order.sequencing.coordinator import Coordinator
from cluster.order.sequencing.drafts import WideDraft
from cluster.wire.messages import Method
from node.replica.shards.order_role import OrderRole
from node.replica.shards.to_leaders import ToLeaders
from tests.sim.mutants.mutant import plan
from tests.sim.world.order_host import NodeProcess
from tests.sim.world.order_sim import Simulation
from tests.sim.world.order_world import Violation

MIX = {"wide": 12, "transfer": 12, "put": 10, "delete": 2}
KEPT = 2  # a seed that notices the mutant; seven of the first ten do
_LOOK_S, _LOOKS = 0.01, 60
_PATIENCE = 20_000  # steps of an evaluation
_ONE_OF = 3  # transactions


class Again:
    """Of one run: has some transactions' prepares come twice while they are evaluated."""

    def __init__(self, patch: pytest.MonkeyPatch, simulation: Simulation) -> None:
        self.twice = 0  # grants of another term that came while a transaction was evaluated
        self._simulation = simulation
        self._sent: dict[tuple[Attempt, int], tuple[OrderRole, Any, Any]] = {}
        self._waiting: set[int] = set()  # drafts
        answered, look, granted = ToLeaders._answered, Coordinator._look, Coordinator.granted
        steps, again = WideDraft.steps, self

        def sent(self: ToLeaders, link: Any, shard: int, attempt: Attempt) -> Any:
            take = answered(self, link, shard, attempt)
            again._sent[attempt, shard] = self._role, link, take
            return take

        def begun(self: Any, wide: Any, ahead: Any) -> None:
            look(self, wide, ahead)
            if wide.draft is not None and wide.attempt.number % _ONE_OF == 0 and not again._waiting:
                again._begin(wide)

        def and_waits(self: WideDraft) -> Steps[None]:
            yield from steps(self)
            for _ in range(_PATIENCE):
                if id(self) not in again._waiting:
                    break
                yield

        def counted(self: Any, attempt: Attempt, shard: int, grant: Grant) -> None:
            wide = self._running.get(attempt)
            if wide is not None and wide.draft is not None:
                again.twice += shard in wide.grants and wide.grants[shard].term != grant.term
            granted(self, attempt, shard, grant)

        patch.setattr(ToLeaders, "_answered", sent)
        patch.setattr(Coordinator, "_look", begun)
        patch.setattr(Coordinator, "granted", counted)
        patch.setattr(WideDraft, "steps", and_waits)

    def _begin(self, wide: Any) -> None:
        """Depose the leader of one of its shards."""
        shard, grant = next(iter(wide.grants.items()))
        for first in self._simulation._leaders(shard):
            if first.node.raft.term == grant.term and (wide.attempt, shard) in self._sent:
                self._waiting.add(id(wide.draft))
                voters = sorted(first.node.raft.configuration.voters)
                _transfer(first, next(v for v in voters if v != first.host))
                self._later(wide, wide.attempt, shard, first.host, grant.term, 1)
                return

    def _later(self, wide: Any, attempt: Attempt, shard: int, host: int, term: int, looks: int) -> None:
        """Have it elected again; then the prepare comes once more."""
        def look() -> None:
            if wide.attempt != attempt or looks > _LOOKS:
                self._waiting.clear()
                return
            for process in self._simulation._leaders(shard):
                if process.node.raft.term == term:
                    continue  # it does not know yet
                if process.host != host and looks % 3 == 0:
                    _transfer(process, host)
                elif process.host == host and _leads(process.node.role):
                    self._come_again(wide.prepares[shard], *self._sent[attempt, shard])
                    return
            self._later(wide, attempt, shard, host, term, looks + 1)

        self._simulation.at(_LOOK_S, None, look)

    def _come_again(self, prepare: bytes, role: OrderRole, link: Any, take: Any) -> None:
        def answered(status: int, body: bytes) -> None:
            take(status, body)
            self._waiting.clear()
            role.node.wake()

        link.request(Method.PREPARE, sent_at(prepare, role.raft.last_index), answered)
        role.node.wake()
        self._simulation.at(_LOOKS * _LOOK_S, None, self._waiting.clear)


def _leads(role: Any) -> bool:
    """Whether it serves, too."""
    return role.leading is not None


def _transfer(leader: NodeProcess, host: int) -> None:
    def begin() -> None:
        leader.node.raft.transfer_leadership(host)
        leader.node.wake()

    leader.happens(None, begin)


def run(seed: int, patch: pytest.MonkeyPatch) -> int:
    """How many transactions were granted again by another term while they were evaluated."""
    with patch.context() as own:
        own.setattr(draft, "LARGE_OPS", 0)
        simulation = Simulation(seed, plan(mix=MIX, fault_every_s=0.5, faults=("heal",)))
        again = Again(own, simulation)
        simulation.run()
    return again.twice


def run_all(seeds: Iterable[int], patch: pytest.MonkeyPatch) -> None:
    for seed in seeds:
        run(seed, patch)


def believes_any_grant(patch: pytest.MonkeyPatch) -> None:
    """C2: the grants that a transaction is logged under are those that it was evaluated on."""
    granted = Coordinator.granted

    def believing(self: Any, attempt: Attempt, shard: int, grant: Grant) -> None:
        wide = self._running.get(attempt)
        if wide is not None and wide.draft is not None and shard in wide.participants:
            self.leader_of(shard, grant.term)
            wide.grants[shard] = grant
        else:
            granted(self, attempt, shard, grant)

    patch.setattr(Coordinator, "granted", believing)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("seed", range(KEPT, KEPT + 2))
def test_what_is_granted_again_in_another_term_is_evaluated_again(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(seed, monkeypatch) > 0


@pytest.mark.timeout(120)
def test_else_what_changed_between_the_grants_would_be_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    believes_any_grant(monkeypatch)
    with pytest.raises(Violation, match="I22"):
        run_all(range(KEPT, KEPT + 6), monkeypatch)
