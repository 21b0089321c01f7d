"""Leases on both sides (H7, I15): none ends early, each is gone with its keys once it is overdue, and what
clients are told of the time that is left is what is left.

A lease's time begins when the sequencer applies its grant, renews it, or begins to serve (which gives it an
election timeout more). Its time runs out ``TTL`` later. It is *overdue* ``ENDS_S`` after that: the sequencer
looks every half second, locks every shard and commits. With checkpoints a sequencer that begins to serve
gives a lease what the last one says is left, and there is one an interval after its time began. Where
something was wrong meanwhile the sequencer may
have to give a first attempt up; it decides again after ``EXPIRY_RETRY_MS``: then a lease is overdue
``ENDS_AFTER_TROUBLE_S`` after the last trouble, whichever is later. These are times of the simulation.
Without trouble means: every node is alive and runs, the network delivers in time, no disk is slow.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from typing import TYPE_CHECKING, Any

from cluster.features.lessor import EXPIRY_RETRY_MS, Lessor
from tests.sim.world.order_world import Violation

if TYPE_CHECKING:
    from tests.sim.checks.order_replay import Replay
    from tests.sim.clients.order_clients import Operation
    from tests.sim.world.order_sim import Simulation

ELECTION_S = 0.4
ENDS_S = 0.5 + 2 * ELECTION_S  # half a second is more than any heartbeat, at which leases are looked at
ENDS_AFTER_TROUBLE_S = EXPIRY_RETRY_MS / 1000 + 2 * ENDS_S
LOOK_S = 0.1
ROUNDING_S = 0.005  # clocks of processes count whole milliseconds
NOTED_S = 1.5  # a checkpoint counts whole seconds
SHORT_S = 10  # a run that is over waits for leases of a shorter time to live


class LeaseTimes:
    """When the time of each lease began last, as the sequencers have it, and whether any lease is overdue."""

    def __init__(self, simulation: Simulation) -> None:
        self._simulation = simulation
        self._began: dict[int, float] = {}
        self._promoted_at = 0.0
        self._left: dict[int, int] = {}  # what checkpoints said when a sequencer began to serve
        self._trouble_at = -math.inf  # the last time at which something was wrong
        simulation.at(LOOK_S, None, self._look)

    # -- as a sequencer's lessor does it

    def granted(self, lease: int) -> None:
        """A sequencer applied a grant."""
        self._began[lease] = self._simulation.now

    def renewed(self, lease: int) -> None:
        """A sequencer renewed a lease; somebody must have asked it to (I15)."""
        asked = self._simulation.clients.operations
        if not any(o.method == "LeaseKeepAlive" and lease == o.request.ID for o in reversed(asked)):
            raise Violation("I15 a lease lives on by keep-alives only", f"{lease}")
        self._began[lease] = self._simulation.now

    def promoted(self) -> None:
        """A sequencer began to serve: every lease has its full time, or what a checkpoint says (H7)."""
        replay = self._simulation.checker.replay
        self._promoted_at = self._simulation.now
        self._left = {lease: left for lease, left in replay.left.items() if left and lease in replay.live}
        if self._left:
            self._simulation.checker.kinds["a new sequencer counts by a checkpoint"] += len(self._left)

    def given(self, left_s: dict[int, float]) -> None:
        """What a sequencer that begins to serve gives each lease, as its clock counts, covers all that was
        promised of it (H7). Nobody has begun a later term."""
        simulation, replay = self._simulation, self._simulation.checker.replay
        for lease in left_s.keys() & replay.live.keys():
            granted_at = simulation.checker.committed_at[replay.granted[lease]]
            until = simulation.now + left_s[lease] / (1 + simulation.plan.drift) + ROUNDING_S
            for by, promised in simulation.clients.promises.get(lease, ()):
                if promised > until and (len(replay.lives[lease]) == 1 or by.asked_at >= granted_at):
                    raise Violation("H7 a new sequencer gives what was promised",
                                    f"{lease} until {until:.3f}, promised until {promised:.3f} by {by}")

    def runs_out(self, lease: int, replay: Replay) -> float:
        """When a lease's time is over at the latest, unless it is renewed or another sequencer comes."""
        began = self._began.get(lease)
        granted_at = self._simulation.checker.committed_at[replay.granted[lease]]
        if began is None or (len(replay.lives[lease]) > 1 and began < granted_at):
            began = granted_at  # whoever applied it was no sequencer any more
        slowest = 1 - self._simulation.plan.drift
        left = self._left.get(lease, replay.ttls[lease])
        return max(began + replay.ttls[lease] / slowest, self._promoted_at + ELECTION_S + left / slowest)

    # -- nobody outlives his time

    def trouble(self) -> None:
        """Something goes wrong now."""
        self._trouble_at = self._simulation.now

    def _look(self) -> None:
        simulation = self._simulation
        simulation.at(LOOK_S, None, self._look)
        nodes = simulation.nodes.values()
        if (
            simulation.blocked
            or simulation.late
            or any(not n.alive or n.paused or n.node.syncer.slow for n in nodes)
        ):  # type: ignore[attr-defined]
            self.trouble()
        now, replay = simulation.now, simulation.checker.replay
        for lease in replay.live:
            over = self.runs_out(lease, replay)
            if now > over + ENDS_S and now > self._trouble_at + ENDS_AFTER_TROUBLE_S:
                raise Violation(
                    "I15 a lease ends once its time is over",
                    f"{lease} of {replay.ttls[lease]} s was over at {over:.3f}, "
                    f"it is {now:.3f}, the last trouble was at {self._trouble_at:.3f}",
                )
            self._look_at_checkpoint(lease, over, now)

    def _look_at_checkpoint(self, lease: int, over: float, now: float) -> None:
        """Of a lease with longer to live than an interval there is a checkpoint after each of them."""
        replay, interval_s = self._simulation.checker.replay, self._simulation.plan.checkpoint_ms / 1000
        if not interval_s or self._simulation.calm or lease not in self._began:
            return
        committed_at = self._simulation.checker.committed_at
        told = replay.noted.get(lease, replay.granted[lease])
        since = max(self._began[lease], self._promoted_at, committed_at[told])
        late = now - interval_s - NOTED_S
        if over - since > interval_s + NOTED_S and late > since and late > self._trouble_at + ENDS_S:
            raise Violation(
                "H7 what is left of a long lease is noted",
                f"{lease} of {replay.ttls[lease]} s: nothing since {since:.3f}, it is {now:.3f}")

    def ending(self) -> bool:
        """Whether a lease is there that ends soon."""
        replay = self._simulation.checker.replay
        return any(replay.ttls[lease] < SHORT_S for lease in replay.live)

    # -- what clients are told

    def told(self, o: Operation) -> None:
        """An answer to LeaseGrant, LeaseKeepAlive or LeaseTimeToLive is there."""
        response, replay = o.response, self._simulation.checker.replay
        if o.method == "LeaseGrant":
            wanted, lives = max(o.request.TTL, 1), self._lives_for(o)
            if (o.request.ID, wanted) != (response.ID, response.TTL) or wanted not in lives:
                raise Violation("I15 a grant gives what was asked for", f"{o}: {lives}")
        elif o.method == "LeaseKeepAlive" and response.TTL > 0:
            if o.request.ID != response.ID or response.TTL not in self._lives_for(o):
                raise Violation("I15 a keep-alive gives the whole time", f"{o}: {self._lives_for(o)}")
        elif o.method == "LeaseTimeToLive" and response.TTL >= 0:
            lease = o.request.ID
            if len(replay.lives[lease]) > 1:  # nobody says of which of them it is
                granted = response.grantedTTL
                if lease != response.ID or granted not in self._lives_for(o) or granted < response.TTL:
                    raise Violation("I15 time to live is what is left", f"{o}: {self._lives_for(o)}")
                return
            most = (
                max(self.runs_out(lease, replay) - o.asked_at, 0) * (1 + self._simulation.plan.drift)
                + ROUNDING_S
            )
            least = o.alive_until - o.answered_at - ROUNDING_S
            if lease != response.ID or response.grantedTTL != replay.ttls[lease] or not (
                    max(math.floor(least), 0) <= response.TTL <= most):
                raise Violation(
                    "I15 time to live is what is left",
                    f"{o}: granted {replay.ttls[lease]}, left {least:.3f} to {most:.3f}",
                )


    def _lives_for(self, o: Operation) -> list[int]:
        """The times to live of each lease of this ID that was there between a question and its answer."""
        replay, committed_at = self._simulation.checker.replay, self._simulation.checker.committed_at
        return [
            life.ttl_s
            for life in replay.lives.get(o.request.ID, ())
            if life.ended is None or committed_at[life.ended] >= o.asked_at
        ]


def watched_lessor(simulation: Simulation) -> type:
    """A ``Lessor`` that tells when a lease's time begins, and notes nothing at the end, for the rest."""

    class WatchedLessor(Lessor):
        def granted(self, lease: int, ttl_s: int, now_ms: int) -> None:
            super().granted(lease, ttl_s, now_ms)
            if self.primary:
                simulation.checker.leases.granted(lease)

        def promote(self, now_ms: int, *args: Any, **named: Any) -> None:
            super().promote(now_ms, *args, **named)
            simulation.checker.leases.promoted()
            nodes = [process.node for (_, shard), process in simulation.nodes.items() if shard == 0]
            term = next(node.raft.term for node in nodes if node.lessor is self)
            if all(node.raft.term <= term for node in nodes):
                simulation.checker.leases.given(
                    {lease: (entry.deadline_ms - now_ms) / 1000 for lease, entry in self._leases.items()})

        def renew(self, lease: int, now_ms: int) -> int | None:
            ttl = super().renew(lease, now_ms)
            if ttl:
                simulation.checker.leases.renewed(lease)
            return ttl

        def due_checkpoints(self, *args: Any, **named: Any) -> list[tuple[int, int]]:
            return [] if simulation.calm else super().due_checkpoints(*args, **named)

    return WatchedLessor


def keys_of(state: dict[bytes, Any], lease: int) -> set[bytes]:
    """The keys that hang on a lease in one state."""
    return {key for key, kv in state.items() if kv.lease == lease}


def check_keys(simulation: Simulation, replay: Replay, o: Operation, latest: int) -> None:
    """The keys of a LeaseTimeToLive are those that hung on the lease. One shard: at the header's revision.
    Several: each shard's at a moment of its own, between question and answer; shard 0's are read with the
    time that is left, the others' at the header's revision or later. ``latest``: what was committed when it
    was answered."""
    revision, shards, got = o.response.header.revision, simulation.plan.shards, list(o.response.keys)
    if simulation.plan.moves:
        _check_moving_keys(simulation, replay, o, latest)
        return
    shard_of = simulation.placement.shard_of
    for shard in range(shards):
        mine = {key for key in got if shard_of(key) == shard}
        moments = (revision,) if shards == 1 else range(revision if shard else o.low, latest + 1)
        if len(set(got)) != len(got) or not any(
            mine == {k for k in keys_of(replay.states[r], o.request.ID) if shard_of(k) == shard}
            for r in moments
        ):
            raise Violation("I15 the keys of a lease are those that hang on it",
                            f"{o}: shard {shard}, {keys_of(replay.states[revision], o.request.ID)}")


def _check_moving_keys(simulation: Simulation, replay: Replay, o: Operation, latest: int) -> None:
    """Key by key. One that has moved meanwhile may be missed, or come twice: no shard is asked at the moment
    of another."""
    got, moments = list(o.response.keys), range(o.low, latest + 1)
    switched = [s for s in simulation.checker.owners.switched if o.low <= s.revision <= latest]
    for key in {*got, *(key for at in moments for key in keys_of(replay.states[at], o.request.ID))}:
        if any(switch.has(key) for switch in switched):
            continue
        if got.count(key) > 1 or not any(
                (key in keys_of(replay.states[at], o.request.ID)) == (key in got) for at in moments):
            raise Violation("I15 the keys of a lease are those that hang on it", f"{o}: {key!r}")


def places_told(replay: Replay, operations: list[Operation]) -> list[tuple[float, int]]:
    """When answers told of a place of the order, and of which."""
    told = ((o.answered_at, _place(replay, o)) for o in operations if o.ok)
    return [(at, place) for at, place in told if place]


def check_list(
    simulation: Simulation, replay: Replay, o: Operation, places_told: list[tuple[float, int]]
) -> None:
    """LeaseLeases: the leases at one place of the order, at which the revision is the header's and which no
    answer that was there before the question is beyond."""
    got = [lease.ID for lease in o.response.leases]
    least = max((place for at, place in places_told if at <= o.asked_at), default=0)
    revision, committed_at = o.response.header.revision, simulation.checker.committed_at
    places = [
        i
        for i in range(bisect_left(replay.revision_at, revision), bisect_right(replay.revision_at, revision))
        if i >= least and committed_at.get(i, 0.0) <= o.answered_at
    ]
    if (
        len(set(got)) != len(got)
        or revision < o.low
        or not any(set(got) == live_at(replay, i) for i in places)
    ):
        raise Violation("I22 the leases are those that are there", f"{o}: at {places}, not before {least}, "
                        f"{[sorted(live_at(replay, i)) for i in places[-1:]]}")


def live_at(replay: Replay, index: int) -> set[int]:
    """The leases after an order record."""
    return {
        lease
        for lease, lives in replay.lives.items()
        if any(life.granted <= index and (life.ended is None or index < life.ended) for life in lives)
    }


def _place(replay: Replay, o: Operation) -> int:
    """The order record that an answer told of, as far as it is about one lease."""
    lease = o.response.ID if o.method == "LeaseGrant" else getattr(o.request, "ID", 0)
    if len(replay.lives.get(lease, ())) > 1:
        return 0  # of which of them it told is not known
    if o.method == "LeaseGrant":
        return replay.granted.get(o.response.ID, 0)
    gone = o.method == "LeaseRevoke" or (o.method == "LeaseKeepAlive" and o.response.TTL == 0) or (
        o.method == "LeaseTimeToLive" and o.response.TTL < 0)
    return replay.ended.get(o.request.ID, 0) if gone else 0
