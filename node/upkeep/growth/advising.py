"""Drives the policy at the leader of shard 0: it looks each few seconds, says what it finds, and acts if it
may.

A mistake in the policy ends the policy alone, with a line in the log and a figure in /metrics. What it does
is evaluated as an operator's request is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import structlog

from cluster import errors
from cluster.errors import EtcdError
from cluster.features import births, moves
from cluster.growth.bounds import LOOK_S, Bounds
from cluster.growth.cutting import hottest
from cluster.growth.facts import Facts, Shard
from cluster.growth.foreseen import Came
from cluster.growth.limits import Past
from cluster.growth.policy import Advice, Policy
from cluster.growth.wishes import Kind, Wish, is_move
from cluster.pb import shards_pb2
from cluster.wire.messages import Method, Status
from node.links.fronts import FrontLink, say_not_leader
from node.machine import NodeMachine
from node.slicing.slicer import Slices
from node.upkeep.growth.gathering import Gathering, GatheringNode

if TYPE_CHECKING:
    from cluster.evaluate.replica import Leader
    from cluster.placement import Table
    from cluster.raft import Raft
    from cluster.settings import NodeSettings
    from node.storage import StateStore
    from node.upkeep.group.growing import Growing

log = structlog.get_logger("growth")

Handler = Callable[[FrontLink, int, int, bytes], None]
_AGAIN_S = 3600.0  # advice that stays is logged again


class Advising:
    """Of each node; those of other shards than 0 tell their load."""

    def __init__(self, node: GatheringNode, settings: NodeSettings, machine: NodeMachine, store: StateStore,
                 raft: Raft, growing: Growing) -> None:
        self._node = node
        self._mode = settings.growth
        self._shard = settings.shard
        self._store = store
        self._raft = raft
        self._now_ms = machine.now_ms
        self._limits = Bounds.parse(settings.growth_bounds)
        self._gathering = Gathering(node, settings, machine, store, raft, growing, self._limits)
        self._past = Past(self._gathering.table, machine.now_ms())
        self._policy: Policy | None = None
        self._term = 0  # of the leadership that the policy is of
        self._facts: Facts | None = None
        self._advice = Advice()
        self._next_ms = 0
        self._said: tuple[object, int] = (None, 0)
        self._begun: dict[Kind, int] = dict.fromkeys(Kind, 0)
        self._came: dict[Came, int] = dict.fromkeys(Came, 0)
        self.failed = False  # by a bug of its own

    @property
    def _on(self) -> bool:
        return self._mode != "off" and not self.failed

    def handlers(self) -> dict[int, Handler]:
        """Of requests, by method."""
        if self._shard:
            return {int(Method.LOADS): self._loads}
        return {int(Method.ADVICE): self._asked}

    # -- the clock

    def second(self) -> None:
        if self._mode == "off":
            return
        try:
            due = self._look()
        except Exception as error:  # whatever it is, the node goes on
            self._fail(error)
            return
        if due is not None and self._mode == "auto":
            self._act(*due)

    def placed(self, table: Table) -> None:
        """A table is applied here."""
        if self._on and not self._shard:
            try:
                self._gathering.table = table
                self._past.took(table, self._now_ms())
            except Exception as error:  # whatever it is, the node goes on
                self._fail(error)

    def told(self, member_id: int, data: bytes) -> None:
        """A host's node 0 reports it. ValueError: it makes no sense."""
        if self._on and not self._shard:
            try:
                self._gathering.told(member_id, data)
            except ValueError:
                raise
            except Exception as error:  # whatever it is, the node goes on
                self._fail(error)

    def _look(self) -> tuple[Policy, Advice, Facts] | None:
        """At the facts of now, if it is time."""
        sampling = self._node.admission.sampling
        if sampling is not None:
            sampling.second()
            if sampling.failed is not None and self._on:
                raise sampling.failed
        now_ms = self._now_ms()
        if self._shard or self.failed or now_ms < self._next_ms:
            return None
        self._next_ms = now_ms + int(LOOK_S * 1000)
        gathering = self._gathering
        gathering.tell()
        leader = self._node.writes.leader
        if leader is None or not self._raft.is_leader:
            self._policy, self._facts, self._advice = None, None, Advice()
            return None
        if self._policy is None or leader.term != self._term:
            self._policy, self._term = Policy(self._limits, self._past, now_ms), leader.term
        self._facts = facts = gathering.facts()
        if not facts.older:
            gathering.ask()
        before = self._policy.told.stopped
        self._advice = advice = self._policy.look(facts)
        self._count(self._policy)
        self._say(advice, now_ms)
        if self._policy.told.stopped and not before:
            log.warning("growth stops acting", why=self._policy.told.stopped)
        return self._policy, advice, facts

    def _count(self, policy: Policy) -> None:
        """What came since the last look, over all leaderships of this process."""
        for came, count in policy.told.came.items():
            self._came[came] += count
            log.info("growth compares an action's outcome with its forecast", last=policy.told.last)
        policy.told.came.clear()

    def _say(self, advice: Advice, now_ms: int) -> None:
        about = advice.wished.about if advice.given and advice.wished is not None else None
        if about == self._said[0] and (about is None or now_ms - self._said[1] < _AGAIN_S * 1000):
            return
        self._said = about, now_ms
        if advice.wished is None:
            log.info("growth has no advice any more")
        else:
            log.info("growth advises", advice=advice.wished.text, action=advice.wished.kind.value,
                     holds=list(advice.holds))

    def _fail(self, error: Exception) -> None:
        if not self.failed:
            self.failed = True
            self._policy, self._facts, self._advice = None, None, Advice()
            log.error("growth ended by a bug of muster; restart the host to start it again",
                      shard=self._shard, exc_info=error)

    # -- actions

    def _act(self, policy: Policy, advice: Advice, facts: Facts) -> None:
        leader = self._node.writes.leader
        if leader is None or not self._raft.takes_proposals:  # I23
            return
        if advice.cancels:
            self._give_up(leader, advice.cancels)
        if (wished := advice.due) is None:
            return
        try:
            request = _request(wished)
        except Exception as error:  # whatever it is, the node goes on
            self._fail(error)
            return
        try:
            leader.execute(Method.SHARD_CHANGE, request)
        except EtcdError as error:
            policy.refused(error.text, facts.now_ms)
            log.info("growth was refused", action=wished.kind.value, advice=wished.text, why=error.text)
            return
        self._node.wake()
        self._begun[wished.kind] += 1
        try:
            policy.began(wished, facts)
        except Exception as error:  # whatever it is, the node goes on
            self._fail(error)
        log.info("growth acts", action=wished.kind.value, advice=wished.text)

    def _give_up(self, leader: Leader, move: int) -> None:
        """A move of its own, which waits for a host without an end."""
        try:
            leader.execute(Method.SHARD_CHANGE, bytes((moves.CANCEL,)) + moves.cancel_body(move))
        except EtcdError as error:  # it has just ended, or the next look cancels it
            log.info("growth cannot cancel its move", move=move, why=error.text)
            return
        self._node.wake()
        log.warning("growth cancels its move, which does not end", move=move)

    # -- what is asked

    def _loads(self, link: FrontLink, rid: int, timeout_ms: int, body: bytes) -> None:
        """Whether the sample is wanted, u8. The leader of shard 0 asks."""
        if not self._raft.is_leader:
            say_not_leader(self._raft, link, rid)
        else:
            self._node.slicer.start(self._telling(link, rid, sampled=body[:1] == b"\1"))
        self._node.mark_dirty(link)

    def _telling(self, link: FrontLink, rid: int, *, sampled: bool) -> Slices:
        pieces: list[bytes] = []
        try:
            for piece in self._gathering.own(sampled=sampled).pieces():
                pieces.append(piece)
                yield
            link.answer(rid, Status.OK, b"".join(pieces))
        except Exception as error:  # whatever it is, the node goes on
            self._fail(error)
            link.answer(rid, Status.ERROR, EtcdError(errors.INTERNAL_FAULT).encode())
        self._node.mark_dirty(link)

    def _asked(self, link: FrontLink, rid: int, timeout_ms: int, body: bytes) -> None:
        if self._node.writes.leader is None:
            say_not_leader(self._raft, link, rid)
        else:
            try:
                answer = self._answer().SerializeToString()
            except Exception as error:  # whatever it is, the node goes on
                self._fail(error)
                answer = self._answer().SerializeToString()  # that it failed
            link.ok(rid, self._store.revision, self._raft.term, answer)
        self._node.mark_dirty(link)

    def _answer(self) -> shards_pb2.AdviceResponse:
        advice, facts, wished = self._advice, self._facts, self._advice.wished
        answer = shards_pb2.AdviceResponse(mode=self._mode, for_s=advice.for_s, holds=advice.holds)
        if self.failed:
            answer.stopped = "a bug of muster ended it: see the log of shard 0's leader"
        elif self._policy is not None:
            answer.last, answer.stopped = self._policy.told.last, self._policy.told.stopped
        if wished is not None:
            answer.action, answer.text, answer.shard = wished.kind.value, wished.text, wished.shard
            if is_move(wished):
                answer.target, answer.share = wished.target, wished.share
                answer.key, answer.range_end = wished.start, wished.end
        if facts is not None:
            for shard, told in sorted(facts.shards.items()):
                answer.shards.append(_shown(shard, told))
            for member, name in sorted(facts.members.items()):
                host = facts.hosts.get(member)
                shown = answer.hosts.add(member=member, name=name, tells=host is not None)
                if host is not None:
                    shown.cpus, shown.free_cpus, shown.free_disk = host
        return answer

    def figures(self) -> dict[str, Any]:
        """For /metrics. Actions and what came of them: since this process began."""
        try:
            return self._figures()
        except Exception as error:  # whatever it is, the node goes on
            self._fail(error)
            return self._figures()

    def _figures(self) -> dict[str, Any]:
        wished, policy = self._advice.wished, self._policy
        given = wished.kind.value if wished is not None and self._advice.given else ""
        return {
            "mode": self._mode, "leads": int(policy is not None), "advice": given,
            "held": len(self._advice.holds) if given else 0,
            "begun": {kind.value: count for kind, count in self._begun.items() if kind != Kind.SAY},
            "came": {came.value: count for came, count in self._came.items() if came != Came.WAITING},
            "stopped": int(policy is not None and bool(policy.told.stopped)), "failed": int(self.failed)}


def _shown(shard: int, told: Shard) -> shards_pb2.AdviceResponse.Shard:
    shown = shards_pb2.AdviceResponse.Shard(
        shard=shard, leader=told.leader, cpu=told.cpu, rate=told.rate, live_bytes=told.live_bytes)
    if told.sample:
        shown.hottest_key, shown.hottest_share = hottest(told.sample)
    return shown


def _request(wished: Wish) -> bytes:
    """Of SHARD_CHANGE."""
    if is_move(wished):
        body = moves.Wish(wished.start, wished.end, wished.target).encode()
        return bytes((moves.MOVE,)) + body
    if wished.kind == Kind.ADD:
        return bytes((births.ADD,))
    return bytes((births.RETIRE,)) + shards_pb2.RetireShardRequest(shard=wished.shard).SerializeToString()
