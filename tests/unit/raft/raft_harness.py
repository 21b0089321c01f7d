"""Replicas side by side, messages carried by hand: what a test of one rule needs."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from cluster.raft import (
    Config,
    Configuration,
    Entry,
    Kind,
    Message,
    Raft,
    Ready,
    Role,
    decode_messages,
    encode_messages,
)
from tests.raft_log import MemoryLog, nothing_left


class Replica:
    """One Raft with its storage; syncs happen at once unless ``slow_disk``."""

    def __init__(self, id_: int, configuration: Configuration, random: float = 0.5, now_ms: int = 0,
                 raft_class: type[Raft] = Raft, **settings: object) -> None:
        self.id = id_
        self.settings = settings
        self.raft_class = raft_class
        self.storage = MemoryLog(configuration)
        self.random = random
        self.slow_disk = False
        self.applied: list[Entry] = []
        self.reads: list[tuple[int, int]] = []
        self.reads_failed: list[int] = []
        self.snapshots_to: list[tuple[int, int]] = []
        self.configurations: list[Configuration] = []
        self.unsynced: list[Ready] = []
        self.readies: list[Ready] = []
        self.start(now_ms)

    def start(self, now_ms: int, applied: int = 0) -> None:
        config = Config(self.id, **self.settings)  # type: ignore[arg-type]
        self.raft = self.raft_class(config, self.storage, lambda: self.random, now_ms)
        if applied:
            self.raft.applied(applied)
        self.unsynced = []

    def drain(self) -> list[Message]:
        """Carry out every Ready; the messages that leave."""
        out: list[Message] = []
        while (ready := self.raft.ready()) is not None:
            self.readies.append(ready)
            out += ready.messages
            self.storage.write(ready)
            self.unsynced.append(ready)
            if not self.slow_disk:
                out += self.sync()
            first, last = ready.committed
            self.applied += self.raft.log_entries(first + 1, last)
            self.raft.applied(last)
            self.reads += ready.reads
            self.reads_failed += ready.reads_failed
            self.snapshots_to += ready.snapshots_to
            if ready.configuration is not None:
                self.configurations.append(ready.configuration)
        assert nothing_left(self.raft) is None
        return out

    def sync(self) -> list[Message]:
        """Finish the sync of everything written."""
        out = []
        for ready in self.unsynced:
            out += ready.messages_after_sync
            self.raft.persisted(ready.sequence)
        self.unsynced = []
        return out

    def data(self) -> list[bytes]:
        """What was applied, without no-ops and configurations."""
        return [e.data for e in self.applied if e.kind == 1]


class Group:
    """Replicas and the messages between them, which go over the wire form."""

    def __init__(self, count: int = 3, learners: Iterable[int] = (), **settings: object) -> None:
        configuration = Configuration(frozenset(range(1, count + 1)), frozenset(learners))
        self.now = 0
        self.replicas = {
            i: Replica(i, configuration, random=i / 10, **settings) for i in sorted(configuration.members())
        }
        self.wire: list[Message] = []
        self.cut: set[int] = set()  # replicas that nothing reaches or leaves
        self.drop: Callable[[Message], bool] = lambda message: False

    def __getitem__(self, id_: int) -> Replica:
        return self.replicas[id_]

    def collect(self) -> None:
        for replica in self.replicas.values():
            self.wire += [m for m in replica.drain() if not self.drop(m) and not {m.sender, m.to} & self.cut]

    def settle(self) -> None:
        """Deliver until nobody has anything to say (the clock stands)."""
        for _ in range(1000):
            self.collect()
            if not self.wire:
                return
            batch, self.wire = self.wire, []
            for message in decode_messages(encode_messages(batch)):
                if message.to in self.replicas and message.to not in self.cut:
                    self.replicas[message.to].raft.step(message, self.now)
        raise AssertionError("the group does not come to rest")

    def pass_time(self, ms: int, step_ms: int = 10) -> None:
        """Let time pass for all, delivering everything."""
        end = self.now + ms
        while self.now < end:
            self.now += step_ms
            for replica in self.replicas.values():
                replica.raft.tick(self.now)
            self.settle()

    def campaign(self, id_: int) -> bool:
        """Let ``id_`` alone try to become leader; a first try may only teach it the others' term."""
        replica = self.replicas[id_]
        for _ in range(3):
            self.now += 2500  # everybody's leader is forgotten
            replica.raft.tick(self.now)
            self.settle()
            if replica.raft.role == Role.LEADER:
                return True
        return False

    def elect(self, id_: int) -> Replica:
        """Make ``id_`` the leader."""
        assert self.campaign(id_)
        return self.replicas[id_]

    def check_applied(self) -> None:
        """State machine safety (section 5.4.3): nobody applied another entry at an index."""
        known: dict[int, tuple[Entry, int]] = {}
        for replica in self.replicas.values():
            for entry in replica.applied:
                other, where = known.setdefault(entry.index, (entry, replica.id))
                assert entry == other, f"{replica.id} applied {entry}, {where} applied {other}"

    @property
    def leader(self) -> Replica:
        leaders = [r for r in self.replicas.values() if r.raft.role == Role.LEADER and r.id not in self.cut]
        assert len(leaders) == 1, leaders
        return leaders[0]


def kinds(messages: Iterable[Message]) -> list[Kind]:
    return [Kind(m.kind) for m in messages]
