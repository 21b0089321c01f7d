"""What must hold at every moment of a simulated cluster: the invariants of ``docs/design/invariants.md``, by
name.

:class:`Checker` is told after every step of every node. What is committed is folded as soon as any replica
knows it (``order_replay.Folder``: I3, I4, I5, I10, I15, I24 and the first half of I22), so a broken rule
ends the run at the step that broke it. What clients are told is looked at when they are told (I7, I13, I16,
I20), and once more at the end (``order_history.check_history``).

Variants of product classes ask the checker, too (``order_variants``).
"""

from __future__ import annotations

import re
import traceback
from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from cluster.order.leading.queued import Preparing
from cluster.order.leading.shard_leader import ShardLeader
from cluster.order.log import Attempt, Cut
from cluster.raft import EntryKind, IntegrityError, Role
from node.replica.shards.order_role import OrderRole
from node.replica.shards.shard_role import ShardRole
from tests.sim.checks.order_owners import Owners
from tests.sim.checks.order_parts import Parts
from tests.sim.checks.order_replay import Folder, Replay
from tests.sim.checks.order_rules import Once, UnderLocks
from tests.sim.checks.order_watching import Watching
from tests.sim.clients.order_leases import LeaseTimes
from tests.sim.disks.order_content import Content
from tests.sim.world.order_members import Configurations
from tests.sim.world.order_world import Violation

if TYPE_CHECKING:
    from tests.sim.clients.order_clients import Operation
    from tests.sim.world.order_host import NodeProcess
    from tests.sim.world.order_sim import Simulation

KEEP_AT_MOST = 20  # snapshot counts of order records that are kept for siblings (node.upkeep.log.truncation)
# what a serializable read waits for a replica that lacks what its front has shown (proxy.routing.reads)
BEHIND_S = 0.5


class Locks:
    """What one shard leader's term has locked."""

    def __init__(self, leading: ShardLeader[Any]) -> None:
        self.leading = leading
        self.granted: set[Attempt] = set()
        self.ended: set[Attempt] = set()


class Checker:
    """Sees every step of every node, and remembers what was ever true."""

    def __init__(self, simulation: Simulation) -> None:
        self._simulation = simulation
        # shard -> index -> term, kind, data
        self.committed: dict[int, dict[int, tuple[int, int, bytes]]] = {}
        self.committed_at: dict[int, float] = {}  # order index -> when the first replica knew
        self.leaders: dict[tuple[int, int], int] = {}  # shard, term -> host
        self.states: dict[tuple[int, int], tuple[object, ...]] = {}  # shard, order index -> digest
        self.installed_at: dict[int, float] = {}  # host -> when one of its replicas last installed a state
        self.folds: dict[int, tuple[bytes, str]] = {}  # order index -> fold, of whom
        self.configurations = Configurations(simulation.shards, simulation.configuration)
        self.parts = Parts()
        self._folder = Folder(
            self.committed, simulation.shards, simulation.hosts, self.configurations, self.parts)
        # applied, not looked at yet: where and what
        self._new: list[tuple[tuple[int, int], int, int, int]] = []
        self._bases: list[tuple[tuple[int, int], int, int, dict[bytes, bytes]]] = []
        self._based: dict[tuple[int, int], int] = {}  # moves whose base was looked at
        self._seen: dict[tuple[int, int], int] = {}  # highest commit index
        self._led: dict[tuple[int, int], tuple[int, bool]] = {}
        self._applied: dict[tuple[int, int], int] = {}  # order index, in this life of the process
        # log's first index - 1, installs until then
        self._truncated: dict[tuple[int, int], tuple[int, int]] = {}
        # the last order record that any host has let go, by itself: now, and when the voters changed last
        self._gone = self._gone_before = 0
        self._locks: dict[tuple[int, int], Locks] = {}
        self._under_locks = UnderLocks()
        self._once = Once(simulation)
        self.leases = LeaseTimes(simulation)
        self.streamed = Watching(simulation).streamed
        self.kinds: Counter[str] = Counter()  # what clients were told, by kind
        self.counts = {
            "commits": 0,
            "leaders": 0,
            "applied": 0,
            "elections": 0,
            "returns": 0,
            "grants": 0,
            "read indexes": 0,
            "lone": 0,
        }

    @property
    def owners(self) -> Owners:
        """Whose keys are whose, by what is committed so far."""
        return self._folder.owners

    @property
    def replay(self) -> Replay:
        """What is committed so far, folded."""
        return self._folder.replay

    def started(self, process: NodeProcess) -> None:
        """It came back with what its disks kept."""
        where = process.host, process.shard
        for known in (
            self._seen,
            self._led,
            self._applied,
            self._truncated,
            self._locks,
            self._under_locks.seen,
        ):
            known.pop(where, None)  # type: ignore[attr-defined]
        commit, had_applied = process.node.raft.commit_index, process.log.had_applied
        self.counts["returns"] += had_applied > 0
        if commit < had_applied:
            raise Violation(
                "I25 a restart takes nothing back",
                f"{process.name} had applied {had_applied}, and knows {commit} to be committed",
            )

    # -- after each step of a node

    def stepped(self, process: NodeProcess) -> None:
        node: Any = process.node
        raft, log = node.raft, process.log
        # the fields themselves: this is done after each step, and properties take as long as all the rest
        now = (raft.log.commit, raft.term, raft._role, raft._membership.current, node.order_index,
               log.position.index, node.snapshots.installed)
        if self._new or process.looked != now:  # most steps change none of these
            process.looked = now
            self._moved(process, process.where)
        if log.kept.removed:
            self._files_went(process)
        if process.shard:
            if node.role.leading is not None:
                self._shard_leads(process, node.role.leading)
        elif (leader := node.writes.leader) is not None and process.served is not leader:
            process.served = leader
            self._sequencer_leads(process, leader)

    def _moved(self, process: NodeProcess, where: tuple[int, int]) -> None:
        node: Any = process.node
        raft = node.raft
        commit = raft.commit_index
        if commit > self._seen.get(where, 0):
            self._committed(process, commit)
        leading = raft.is_leader
        self.configurations.in_effect(process, raft.configuration)
        if self._led.get(where) != (raft.term, leading):
            self._led[where] = raft.term, leading
            if leading:
                self._elected(process)
        if self._new:
            self._positions()
        index = node.order_index
        if index < self._applied.get(where, 0):
            raise Violation("I18 only forward", f"{process.name} went from {self._applied[where]} to {index}")
        self._applied[where] = index
        first = process.log.position.index
        installs = node.snapshots.installed
        if self._truncated.get(where) != (first, installs):
            self._log_begins(process, first, installs)

    def dies(self, process: NodeProcess) -> None:
        """It ends in the midst of a step, perhaps, in which it alone has learnt of a commit and applied
        it."""
        if (commit := process.node.raft.commit_index) > self._seen.get((process.host, process.shard), 0):
            self._committed(process, commit)

    def _committed(self, process: NodeProcess, commit: int) -> None:
        where, shard = (process.host, process.shard), process.shard
        raft = process.node.raft
        known = self.committed.setdefault(shard, {})
        first = max(self._seen.get(where, 0), raft.log.position.index) + 1
        if first <= commit:
            for entry in raft.log_entries(first, commit):
                mine = entry.term, int(entry.kind), entry.data
                found = known.get(entry.index)
                if found is None:
                    found = known[entry.index] = mine
                    self.configurations.committed(shard, entry.kind, entry.data)
                    if shard == 0:
                        if entry.kind == EntryKind.CONFIG:
                            self._others_vote()
                        self.committed_at[entry.index] = self._simulation.now
                        self.counts["commits"] += 1
                    if raft.role is Role.LEADER and not self.owners.dropped(shard):
                        self._on_disks(process, entry.index, entry.term)
                if found != mine:
                    raise Violation(
                        "I1 one committed entry per index",
                        f"{process.name} has {mine} at {entry.index}, committed is {found}",
                    )
        self._seen[where] = commit
        if shard == 0:
            self._folder.advance()
            self._once.ordered(self.replay)

    def _on_disks(self, process: NodeProcess, index: int, term: int) -> None:
        logs = self._simulation.durable_logs
        raft = process.node.raft
        # a change may have been appended in the very step in which the entry was committed: before it
        for voters in (raft.configuration.voters, raft.committed_configuration.voters):
            have = [h for h in voters if any(log.holds(index, term) for log in logs(h, process.shard))]
            if 2 * len(have) > len(voters):
                break
        else:
            raise Violation(
                "I2 committed is on a quorum's disks", f"{process.name}: {index} of term {term} is on {have}"
            )

    def _elected(self, process: NodeProcess) -> None:
        self.counts["leaders"] += 1
        raft, shard = process.node.raft, process.shard
        if self.leaders.setdefault((shard, raft.term), process.host) != process.host:
            raise Violation("I1 one leader per term", f"shard {shard} term {raft.term}")
        hard = process.log.durable_hard
        if (hard.term, hard.vote) != (raft.term, process.host):
            raise Violation(
                "I2 a leader's own vote is synced", f"{process.name} leads {raft.term}, on disk {hard}"
            )
        known = self.committed.get(shard, {})
        top = max(known, default=0)
        while top > raft.log.position.index and known[top][0] >= raft.term:
            top -= 1  # of a later term: this leader was elected late, and is none any more
        if top > raft.log.position.index and (top > raft.last_index or raft.log.term(top) != known[top][0]):
            raise Violation(
                "I1 leader completeness", f"{process.name} leads {raft.term} without {top} of {known[top][0]}"
            )

    def _log_begins(self, process: NodeProcess, first: int, installs: int) -> None:
        where = process.host, process.shard
        before = self._truncated.get(where)
        self._truncated[where] = first, installs
        if before is not None and before[1] != installs:
            self.installed_at[process.host] = self._simulation.now
        durable = process.disk.flushed.position.shard_index
        if first > durable:
            raise Violation(
                "I17 the log begins where the durable state ends", f"{process.name}: {first} > {durable}"
            )
        feeds = process.node.role.feeds if isinstance(process.node.role, OrderRole) else None
        if feeds is not None and before is not None and before[1] == installs:
            states, snapshot_count = self._simulation.states, self._simulation.plan.snapshot_count
            within = process.node.applied_index - KEEP_AT_MOST * snapshot_count
            for shard, said in zip(feeds.floors.shards, feeds.floors.own(), strict=True):
                if (process.host, shard) not in states:
                    continue  # of a shard that is to be made there, or is dropped
                low = states[process.host, shard].flushed.position.order_index
                # a disk may hold more than its node had said when it died
                if said > low:
                    raise Violation(
                        "I17 what the host's other nodes have is durable", f"{process.name}: {said} > {low}"
                    )
                # one who needs what this log lacks since an install needs an install, too
                if max(within, before[0] - 1) < said < first:
                    raise Violation("I17 order records are kept for the host's other nodes",
                                    f"{process.name} has them above {first}, node {shard} needs {said + 1}")
            for shard in self.owners.others:
                voters = process.node.raft.configuration.voters
                # files need not hold what a majority has applied
                have = self._have(shard, max(before[0], self._most_have(shard, voters)), first, voters)
                if 2 * (len(have) + self._destroyed(voters)) <= len(voters):
                    raise Violation("I17 what is no order record any more is durable at a majority",
                                    f"{process.name} has them above {first}, which of shard {shard} only "
                                    f"{have} have applied, or keep")
            self._gone = max(self._gone, first)

    def _files_went(self, process: NodeProcess) -> None:
        gone, process.log.kept.removed = process.log.kept.removed, []
        voters = process.node.raft.configuration.voters
        for span in gone:
            if span.shard not in self.owners.others:
                continue  # of a dropped shard: hosts that know have removed its directories
            if process.log.kept.covers(span.shard, span.first - 1, span.last):
                continue  # a longer one has taken its place
            have = [h for h in voters if any(state.flushed.position.order_index >= span.last
                                             for state in self._simulation.durable_states(h, span.shard))]
            if 2 * len(have) <= len(voters):
                raise Violation("I17 files go once a majority has durably applied what they hold",
                                f"{process.name} has dropped {span[:3]}, which only {have} have applied")

    def _destroyed(self, voters: Iterable[int]) -> int:
        """How many of these were removed, and have no disk any more. A node that has not heard of it counted
        what they had; an operator may destroy a disk once the removal is answered."""
        *before, newest = (c.voters for c in self.configurations.history[0])
        removed = frozenset().union(*before) - newest
        return sum((h, 0) not in self._simulation.states and h not in self._simulation.kept
                   for h in voters if h in removed)

    def _most_have(self, shard: int, voters: Iterable[int]) -> int:
        """What most disks have applied of a shard."""
        states = self._simulation.durable_states
        applied = sorted((max((state.flushed.position.order_index for state in states(h, shard)), default=0)
                          for h in voters), reverse=True)
        return applied[len(applied) // 2]

    def _have(self, shard: int, after: int, last: int, voters: Iterable[int]) -> list[int]:
        """Hosts whose disks hold the order for a shard: applied up to ``last``, or in files, from what is
        applied or from ``after`` on."""
        logs, states = self._simulation.durable_logs, self._simulation.durable_states
        return [h for h in voters if any(
            log.kept.covers(shard, max(after, state.flushed.position.order_index), last)
            for log, state in zip(logs(h, 0), states(h, shard), strict=True))]

    def _others_vote(self) -> None:
        """Group 0 has committed another configuration. A majority has what was gone when the one before was
        committed. What has gone since then, by the one before, is there without a minority, too."""
        before, voters = (c.voters for c in self.configurations.history[0][-2:])
        if before == voters:
            return
        for shard in self.owners.others:
            before_that = self._gone_before, len(voters) // 2 + 1
            for gone, least in (before_that, (self._gone, (len(voters) + 1) // 2)):
                have = self._have(shard, 0, gone, voters)
                if len(have) < least:
                    raise Violation("I17 who votes after a change has what is no order record any more",
                                    f"{gone} are gone, which of shard {shard} only {have} of "
                                    f"{sorted(voters)} have applied")
        self._gone_before = self._gone

    # -- what is applied

    def applied(self, where: tuple[int, int], content: Content) -> None:
        """A replica applied up to an order index (I5, I6, I19)."""
        self.counts["applied"] += 1
        _, shard = where
        position = content.position
        digest = content.digest()
        known = self.states.setdefault((shard, position.order_index), digest)
        if known != digest:
            raise Violation("I19 replicas are equal at equal order index",
                            f"shard {shard} at {position.order_index}: {where} has {digest}, others {known}")
        fold = content.metas.get("fold")
        if fold is not None:
            other, who = self.folds.setdefault(position.order_index, (fold, str(where)))
            if other != fold:
                raise Violation(
                    "I19 all nodes have the same fold", f"{where} and {who} at {position.order_index}"
                )
        for switched, move, base in content.bases:
            if self._based.get(where, 0) < move.number:
                self._based[where] = move.number
                self._bases.append((where, move.number, switched, base))
        # node 0 applies in the step in which it hears of the commit: looked at once the step is over
        self._new.append((where, position.order_index, position.shard_index, position.revision))

    def _positions(self) -> None:
        new, self._new = self._new, []
        bases, self._bases = self._bases, []
        replay = self.replay
        for where, order_index, shard_index, revision in new:
            _, shard = where
            if order_index > replay.order_index:
                raise Violation(
                    "I6 only what is in order is applied",
                    f"{where} is at {order_index} of {replay.order_index}",
                )
            if replay.revision_at[order_index] != revision:
                raise Violation(
                    "I5 a fold of the order log alone",
                    f"{where} has revision {revision} at {order_index}, "
                    f"the replay {replay.revision_at[order_index]}",
                )
            cut = replay.cuts_at[order_index].get(shard)
            if shard and cut is not None and cut.index != shard_index:
                raise Violation(
                    "I6 what is applied is what the latest cut says",
                    f"{where} is at entry {shard_index}, the cut at {order_index} is {cut}",
                )

        for where, number, switched, base in bases:
            self.owners.check_base(str(where), number, switched, base, replay.states)

    # -- leaders of shards, and the sequencer

    def _shard_leads(self, process: NodeProcess, leading: ShardLeader[Any]) -> None:
        if leading.serving and process.served is not leading:
            process.served, at = leading, process.node.order_index
            cut = self.replay.cuts_at[at].get(process.shard, Cut())
            if cut.term < leading.term:
                raise Violation(
                    "I8 a leader serves once a cut of its term is applied",
                    f"{process.name} leads {leading.term}, the latest cut at {at} is {cut}",
                )
        self._under_locks.stepped(process, leading)
        locks = self._locks.get(process.where)
        if locks is None or locks.leading is not leading:
            locks = self._locks[process.where] = Locks(leading)
        if len(leading._table) or locks.granted:
            self._look_at_locks(process, locks)

    def _look_at_locks(self, process: NodeProcess, locks: Locks) -> None:
        replay = self.replay
        at = process.node.order_index
        prepares = [held for held in locks.leading._table if isinstance(held.payload, Preparing)]
        for place, held in enumerate(prepares):
            attempt = held.payload.prepare.attempt
            if attempt in locks.ended:
                raise Violation("H5 an ended attempt is never locked again", f"{process.name} has {attempt}")
            for other in prepares[:place]:
                if other.payload.prepare.attempt.term == attempt.term and other.footprint.conflicts(
                    held.footprint
                ):
                    raise Violation("I12 undecided attempts never overlap",
                                    f"{process.name}: {other.payload.prepare.attempt} and {attempt}")
        granted = {held.payload.prepare.attempt for held in prepares if held.payload.answer is not None}
        for attempt in granted - locks.granted:
            self.counts["grants"] += 1
            if replay.term_at[at] < attempt.term:
                raise Violation(
                    "H5 a shard grants after a record of the sequencer's term",
                    f"{process.name} grants {attempt} at {at}, a record of term {replay.term_at[at]}",
                )
        for attempt in locks.granted - granted:
            locks.ended.add(attempt)
            decided = replay.multis.get(attempt, at + 1) <= at or replay.term_at[at] > attempt.term
            if not decided and self._undecided(attempt):
                raise Violation("I11 a lock ends by its multi, a release or a later sequencer's record",
                                f"{process.name} let go of {attempt}, which is under way")
        locks.granted = granted

    def _undecided(self, attempt: Attempt) -> bool:
        for host in {h for h, _ in self._simulation.nodes}:
            process = self._simulation.nodes[host, 0]
            role = process.node.role
            coordinator = role.coordinator if isinstance(role, OrderRole) else None
            if process.alive and coordinator is not None and attempt in coordinator._running:
                return True
            if process.alive and coordinator is not None and attempt in coordinator._fates:
                return True  # its multi is on its way
        return False

    def _sequencer_leads(self, process: NodeProcess, leader: Any) -> None:
        known = self.committed.get(0, {}).get(process.node.applied_index)
        if known is None or known[0] != leader.term:
            raise Violation(
                "I8 the sequencer serves once a record of its term is applied",
                f"{process.name} leads {leader.term} at {process.node.applied_index}: {known and known[0]}",
            )

    # -- what clients are told

    def told(self, operation: Operation) -> None:
        """A request was answered."""
        revision = operation.response.header.revision
        if revision > self.replay.revision:
            raise Violation(
                "I7 answered after commit", f"{operation}: only {self.replay.revision} is committed"
            )
        self.leases.told(operation)
        if operation.method == "Compact":
            self._compacted(operation)
        waited_s = (self._simulation.now - operation.asked_at) * self._simulation.clock_rate(operation.front)
        if operation.method == "Range" and revision < operation.low_here and waited_s < BEHIND_S:
            raise Violation("I14 a front never goes back", f"{operation}: it had shown {operation.low_here}")

    def _compacted(self, operation: Operation) -> None:
        replay = self.replay
        index = next(
            (i for i, revision in replay.compactions if revision == operation.request.revision), None
        )
        if index is None:
            raise Violation("I22 an acknowledged compaction is in the order", str(operation))
        for (_, shard), process in sorted(self._simulation.nodes.items()):
            role = process.node.role
            leading = role.leading if isinstance(role, ShardRole) else None
            if not process.alive or leading is None or not leading.serving:
                continue
            # one whose shard has committed an entry of a later leader can commit nothing any more
            committed = self.committed.get(shard, {})
            newest = committed[max(committed)][0] if committed else 0
            if leading.term >= newest and self.owners.must_know(shard, index, process.node.order_index):
                raise Violation("I20 a control record is acknowledged once every leader has applied it",
                                f"{operation}: in {index}, {process.name} is at {process.node.order_index}")

    # -- at the end

    def failed(self, where: str, error: BaseException) -> None:
        """A process found a contradiction itself, or fell over."""
        text, cause = str(error), error
        while not (found := re.match(r"([CGHI]\d+)", str(cause))) and cause.__cause__ is not None:
            cause = cause.__cause__  # an apply that failed: what made it fail
        rule = (
            found[1] if found else "I1 or I2" if isinstance(cause, IntegrityError) else "a process fell over"
        )
        trace: Any = traceback.extract_tb(error.__traceback__)
        last = " < ".join(f"{f.name}:{f.lineno}" for f in reversed(trace[-4:]))
        raise Violation(
            f"{rule}, noticed by a process", f"{where}: {type(error).__name__}: {text} ({last})"
        ) from error
