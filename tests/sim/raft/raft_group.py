"""A Raft group in one process: virtual time, a network, disks and clocks, and replicas that crash, restart
and pause. What befalls them, and what they are asked, is ``raft_sim``'s."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

from cluster.raft import (
    Config,
    Configuration,
    IntegrityError,
    LogContradiction,
    Message,
    Raft,
    Ready,
    Role,
    SnapshotPosition,
    decode_messages,
    encode_messages,
)
from cluster.raft.messages import Kind
from tests.raft_log import nothing_left
from tests.sim.raft.raft_checks import Checker, Violation
from tests.sim.raft.raft_disk import SimDisk


@dataclass(slots=True)
class SimNode:
    """One replica on its machine."""

    id: int
    disk: SimDisk
    state: SnapshotPosition  # what the state machine's disk holds
    raft: Raft
    up: bool = True
    life: int = 0  # counts restarts: events of an earlier life are void
    paused: bool = False
    inbox: list[Callable[[], None]] = field(default_factory=list)
    clock_rate: float = 1.0
    clock_base: float = 0.0
    clock_from: int = 0
    wake_at: int = -1
    had_applied: int = 0  # when it crashed, if its disk kept the note of it
    syncing: bool = False
    unsynced: list[Ready] = field(default_factory=list)
    slow_disk: bool = False
    # context -> committed somewhere when it was asked
    questions: dict[int, int] = field(default_factory=dict)

    def local(self, now: int) -> int:
        return int(self.clock_base + (now - self.clock_from) * self.clock_rate)


class Group:
    """The replicas of one run, on their machines. ``raft_class`` may lack a rule: the checker must then
    notice. ``size``: how many voters it begins with; 0: as its seed has it."""

    ELECTION_MS = 150
    HEARTBEAT_MS = 30

    def __init__(
        self, seed: int, raft_class: type[Raft] = Raft, duration_ms: int = 8_000, size: int = 0
    ) -> None:
        self.seed = seed
        self.random = Random(seed)
        self.raft_class = raft_class
        self.duration_ms = duration_ms
        self.now = 0
        self.events: list[tuple[int, int, Callable[[], None]]] = []
        self.event_count = 0
        self.checker = Checker()
        self.nodes: dict[int, SimNode] = {}
        self.blocked: set[tuple[int, int]] = set()
        self.contexts = 0
        self.done: dict[str, int] = {}
        self.habits = Random(-seed - 1)  # how drivers use what they may use, apart from what befalls them
        r = self.random
        self.loss = r.choice((0.0, 0.02, 0.1, 0.25))
        self.repeat = r.choice((0.0, 0.05, 0.2))
        self.late = r.choice((0.0, 0.02, 0.1))
        self.calm = False
        self.churn = r.random() < 0.5  # leaders are cut off again and again while they go on proposing
        drawn = r.choice((3, 5, 5)) if self.churn else r.choice((1, 2, 3, 3, 3, 4, 5))
        size = size or drawn
        self.next_id = size + 1
        first = Configuration(frozenset(range(1, size + 1)))
        self.settings = {
            "max_append_bytes": r.choice((20, 200, 1 << 20)),
            "max_inflight": r.choice((1, 4, 64)),
            "max_tail_bytes": r.choice((0, 3_000, 1 << 20)),
            "pre_vote": r.random() < 0.7,
            "check_quorum": r.random() < 0.7,
            "commit_rides_ms": self.habits.choice((0, 5, 50)),
        }
        for i in range(1, size + 1):
            self._add(i, first)

    # -- machinery -------------------------------------------------------------------------------------------

    def _add(self, id_: int, configuration: Configuration) -> SimNode:
        disk = SimDisk(configuration)
        node = SimNode(id_, disk, disk.position, self._raft(id_, disk, 0), clock_from=self.now)
        node.clock_rate = self.random.choice((1.0, 1.0, 0.8, 1.25))
        self.nodes[id_] = node
        self._schedule_wake(node)
        return node

    def _raft(self, id_: int, disk: SimDisk, local_ms: int) -> Raft:
        config = Config(id_, self.HEARTBEAT_MS, self.ELECTION_MS, **self.settings)  # type: ignore[arg-type]
        raft = self.raft_class(config, disk, self.random.random, local_ms)
        raft.patient = self.habits.random() < 0.7
        return raft

    def at(self, delay_ms: int, action: Callable[[], None]) -> None:
        self.event_count += 1
        heapq.heappush(self.events, (self.now + delay_ms, self.event_count, action))

    def _did(self, what: str) -> None:
        self.done[what] = self.done.get(what, 0) + 1

    def on(self, node: SimNode, action: Callable[[], None]) -> Callable[[], None]:
        """``action`` as something that happens at ``node``: void after a crash, late in a pause."""
        life = node.life

        def event() -> None:
            if node.up and node.life == life:
                if node.paused:
                    node.inbox.append(event)
                else:
                    action()
                    self._process(node)

        return event

    def _process(self, node: SimNode) -> None:
        """The driver's loop, and all checks."""
        raft = node.raft
        self.checker.stepped(node, self.nodes)
        life = node.life
        while node.up and node.life == life and (ready := raft.ready()) is not None:
            if ready.entries:
                self.checker.written(node, ready.entries)
            node.disk.write(ready)
            for message in ready.messages:
                self._post(node, message)
            node.unsynced.append(ready)
            if not ready.must_sync and len(node.unsynced) == 1 and not node.syncing:
                self._synced(node, ready.sequence)
            first, last = ready.committed
            if last > first:
                entries = raft.log_entries(first + 1, last)
                if [e.index for e in entries] != list(range(first + 1, last + 1)):
                    raise Violation("I1 committed entries in order", f"{node.id} {ready.committed}")
                node.disk.note = last, entries[-1].term
                self.checker.applied(node, last)
                raft.applied(last)
            for context, index in ready.reads:
                self.checker.answered(node, node.questions.pop(context), index)
            for context in ready.reads_failed:
                del node.questions[context]
            for peer, least in ready.snapshots_to:
                self._send_snapshot(node, peer, least)
            self.checker.stepped(node, self.nodes)
        if node.up and node.life == life and nothing_left(raft) is not None:
            raise Violation("a Ready that was thought empty", f"{node.id}")
        if node.up and node.unsynced and not node.syncing:
            self._start_sync(node)
        self._schedule_wake(node)

    def _schedule_wake(self, node: SimNode) -> None:
        wait = max(1, int((node.raft.next_deadline() - node.local(self.now)) / node.clock_rate) + 1)
        if self.now < node.wake_at <= self.now + wait:
            return
        node.wake_at = self.now + wait
        raft = node.raft
        self.at(wait, self.on(node, lambda: raft.tick(node.local(self.now))))

    # -- disk ------------------------------------------------------------------------------------------------

    def _start_sync(self, node: SimNode) -> None:
        node.syncing = True
        sequence = node.unsynced[-1].sequence
        delay = self.random.randint(50, 400) if node.slow_disk else self.random.randint(1, 5)
        self.at(delay, self.on(node, lambda: self._sync_finished(node, sequence)))

    def _sync_finished(self, node: SimNode, sequence: int) -> None:
        node.syncing = False
        if (not self._synced(node, sequence) and self.habits.random() < 0.5
                and nothing_left(node.raft) is not None):
            raise Violation("a sync that left nothing to do", f"{node.id}, sequence {sequence}")

    def _synced(self, node: SimNode, sequence: int) -> bool:
        node.disk.sync(sequence)
        while node.unsynced and node.unsynced[0].sequence <= sequence:
            for message in node.unsynced.pop(0).messages_after_sync:
                self._post(node, message)
        return node.raft.persisted(sequence)

    # -- network ---------------------------------------------------------------------------------------------

    def _delay(self) -> int:
        r = self.random
        return r.randint(200, 3_000) if not self.calm and r.random() < self.late else r.randint(1, 20)

    def _post(self, node: SimNode, message: Message) -> None:
        self.checker.leaves(node, message)
        r = self.random
        if not self.calm and r.random() < self.loss:
            return
        data = encode_messages((message,))
        if not self.calm and r.random() < 0.002:
            place = r.randrange(len(data))
            data = data[:place] + bytes((data[place] ^ 1 << r.randrange(8),)) + data[place + 1 :]
        for _ in range(2 if not self.calm and r.random() < self.repeat else 1):
            self.at(self._delay(), lambda: self._arrive(node.id, message.to, data))

    def _arrive(self, sender: int, to: int, data: bytes) -> None:
        node = self.nodes.get(to)
        if node is not None and (sender, to) not in self.blocked:
            self.on(node, lambda: self._step(node, data))()

    def _step(self, node: SimNode, data: bytes) -> None:
        try:
            messages = decode_messages(data)
        except IntegrityError:
            self._did("damaged message refused")
            return
        raft = node.raft
        if self.calm and not (self.settings["pre_vote"] or self.settings["check_quorum"]):
            messages = [message for message in messages if not self._is_refused(message)]
        due = [raft.step(message, node.local(self.now)) for message in messages]
        if not any(due) and self.habits.random() < 0.5:
            for answer in raft.take_answers():
                self._post(node, answer)
            if nothing_left(raft) is not None:
                raise Violation("a step that left nothing to do", f"{node.id} {messages}")

    def _is_refused(self, message: Message) -> bool:
        """H12: peers refuse a removed member. Without pre-vote and check-quorum nothing else keeps it from
        disturbing every leader (thesis 4.2.3)."""
        newest = max((node.raft for node in self.nodes.values()), key=lambda raft: raft.commit_index)
        members = newest.configuration.members() | newest.committed_configuration.members()
        return message.kind == Kind.VOTE and message.sender not in members

    def _send_snapshot(self, node: SimNode, peer: int, least: int) -> None:
        """``node`` sends its state to ``peer``."""
        position = node.raft.position_at(node.raft.applied_index)
        assert position.index >= least
        ok = self.calm or self.random.random() > 0.3
        target = self.nodes[peer]
        refused: list[SnapshotPosition] = []
        if ok and (node.id, peer) not in self.blocked:
            self.at(self._delay(), self.on(target, lambda: self._install(target, position, refused)))
        if self.calm or self.random.random() > 0.1:
            raft = node.raft
            self.at(60, self.on(node, lambda: raft.snapshot_sent(peer, ok and not refused)))
        else:  # the sender learns only much later
            raft = node.raft
            self.at(1_000, self.on(node, lambda: raft.snapshot_sent(peer, False)))

    def _install(self, node: SimNode, position: SnapshotPosition, refused: list[SnapshotPosition]) -> None:
        if position.index <= node.raft.applied_index:
            self._did("snapshot refused")
            refused.append(position)
            node.raft.say_committed()
            return
        self._did("snapshot installed")
        node.state = position
        if not self.calm and self.random.random() < 0.2:
            self._did("crash in an install")
            self.crash(node)
            return
        disk = node.disk
        if node.raft.snapshot_installed(position):
            disk.reset(position)
            self._did("log reset by a snapshot")
        elif self.random.random() < 0.5 and position.index > disk.position.index:
            # drop what the state covers, as a driver may; entries not handed out yet may be among it
            if position.index <= disk.last_index() and disk.term(position.index) == position.term:
                disk.sync_all()
                disk.compact(position)
            else:
                disk.reset(position)
            node.raft.compacted(position.index)
            self._did("log kept beyond a snapshot")

    # -- replicas that come and go --------------------------------------------------------------------------

    def crash(self, node: SimNode) -> None:
        node.up = False
        node.life += 1
        node.paused = False
        node.inbox.clear()
        node.syncing = False
        node.unsynced.clear()
        node.questions.clear()
        node.wake_at = -1
        pending = len(node.disk.pending)
        node.disk.crash(self.random.randint(0, pending))
        self._crash_note(node)

    def _crash_note(self, node: SimNode) -> None:
        """A killed process loses nothing of its note (I25). A power cut leaves an older one, or none, or one
        of an entry that this disk has lost."""
        raft, disk = node.raft, node.disk
        kept = self.habits.random() < 0.6
        node.had_applied = raft.applied_index if kept else 0
        if not kept:
            older = self.habits.randint(0, raft.applied_index)
            ahead = raft.commit_index, raft.log.term(raft.commit_index)
            disk.note = self.habits.choice(((0, 0), (older, max(raft.log.term(older), 0)), ahead))

    def restart(self, node: SimNode) -> None:
        disk, state = node.disk, node.state
        if disk.durable_last < state.index or (
            state.index > disk.position.index and disk.term(state.index) != state.term
        ):
            disk.reset(state)  # a crash between switching in a snapshot and beginning the log after it
        node.up = True
        node.raft = self._raft(node.id, disk, node.local(self.now))
        self.checker.restarted(node)
        self.checker.keeps_its_promises(node, self.nodes)
        node.raft.applied(state.index)
        self._process(node)
        self.checker.came_back(node, node.had_applied)

    def pause(self, node: SimNode, ms: int) -> None:
        node.paused = True
        life = node.life
        self.at(ms, lambda: self.resume(node) if node.life == life else None)

    def resume(self, node: SimNode) -> None:
        if not node.paused:
            return
        node.paused = False
        inbox, node.inbox = node.inbox, []
        self.random.shuffle(inbox)
        node.wake_at = -1
        if self.random.random() < 0.7:
            self.ask(node)  # H2: a question first, then the old post, before the clock is looked at
        for event in inbox:
            event()
        if node.up:
            self._process(node)

    def _leaders(self) -> list[SimNode]:
        return [n for n in self.nodes.values() if n.up and not n.paused and n.raft.role == Role.LEADER]

    def ask(self, node: SimNode) -> None:
        if node.raft.role != Role.LEADER:
            return
        self.contexts += 1
        node.questions[self.contexts] = self.checker.highest_commit
        node.raft.read_index(self.contexts)
        self._process(node)

    def _until(self, end: int, done: Callable[[], bool] | None = None) -> bool:
        while self.events and self.events[0][0] <= end:
            self.now, _, action = heapq.heappop(self.events)
            try:
                action()
            except Violation:
                raise
            except (LogContradiction, AssertionError) as error:
                self.checker.failed(next(iter(self.nodes.values())), error)
            if done is not None and done():
                return True
        self.now = end
        return False
