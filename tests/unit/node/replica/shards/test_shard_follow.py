"""A shard's replica follows its feed: what it took must be applied, and all of it before anybody looks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import pytest

from cluster import errors
from cluster.effects import records
from cluster.errors import ErrorKind, EtcdError
from cluster.features.auth.state import AuthState
from cluster.members.table import Table
from cluster.order.leading.bound import Bound
from cluster.order.leading.queued import Report
from cluster.order.leading.shard_batch import ShardBatch
from cluster.order.leading.shard_leader import ShardLeader, Start
from cluster.order.log import Attempt, Cut, Multi, encode_cut, encode_multi, entry
from cluster.order.prepare import Prepare, Touch
from cluster.pacing.late_feed import MOST_CHANGES
from cluster.pacing.pace import Pace
from cluster.pb import rpc_pb2 as pb
from cluster.placement.owned import Shown
from cluster.raft import Entry, EntryKind, Role
from cluster.settings import Common, NodeSettings, Peer
from cluster.wire.messages import HEAD, Method, Status
from node.links.fronts import FrontLink
from node.replica.applying import Applies
from node.replica.consequences import Consequences
from node.replica.roles.role import Kinds
from node.replica.server import Node
from node.replica.shards.shard_role import ShardRole
from node.storage import ApplyFailed, StateStore
from tests.unit.proxy.fakes import ManualLoop

SHARD = 1


@pytest.fixture
def store(tmp_path: Path) -> Iterator[StateStore]:
    found = StateStore.open(str(tmp_path / "state"))
    yield found
    found.close()


class Still:
    """A loop whose clock stands, so that every pause lasts."""

    def time(self) -> float:
        return 100.0

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> Any:
        return SimpleNamespace(cancel=lambda: None)


class Group:
    """Raft of a follower, whose log has one put an entry, from entry 2 on."""

    role = Role.FOLLOWER

    def __init__(self) -> None:
        self.readies: list[int] = []  # what the next ones announce
        self.announced_index = 10
        self.term = self.last_index = 1
        self.logged: dict[int, bytes] = {}  # what is there instead

    def log_entries(self, first: int, last: int) -> list[Entry]:
        return [Entry(i, 1, EntryKind.RECORD, self.logged.get(i) or self._put(i))
                for i in range(first, last + 1)]

    def _put(self, index: int) -> bytes:
        item = b"" if index == 1 else records.put(b"key %d" % index, 0, 1, b"v", 0)
        return entry(index - 1, item)

    def applied(self, index: int) -> None:
        pass

    def prove_committed(self, index: int, term: int) -> bool:
        return False

    def ready(self) -> int | None:
        return self.readies.pop(0) if self.readies else None


class Replica:
    """A node where nobody looks; all but its role is a stand-in."""

    def __init__(self, store: StateStore) -> None:
        loop: Any = ManualLoop()
        common = Common(7, 1, "h1", 2, 1, (Peer(1, "h1", "h1", 1),), "/run/1")
        self.settings = NodeSettings(common, SHARD, "/nowhere", "h1", 1)
        self.dropped: list[bytes] = []
        self.loop: Any = Still()
        self.machine = SimpleNamespace(
            loop=self.loop, perf_counter=lambda: 0.0, cpus_scarce=lambda: True)
        self.raft = Group()
        self.store, self.pace = store, Pace()
        self.applies = Applies(loop, lambda events: None, lambda: None)
        self.watches = SimpleNamespace(active=False)
        self.upkeep = SimpleNamespace(
            logged_bytes=lambda size, ordered: None, flushes=SimpleNamespace(hurried=False)
        )
        self.fronts = SimpleNamespace(drop=self.dropped.append)
        table = Table(common.peers)
        self.roster = SimpleNamespace(table=table, peer=table.peer, others=[])
        self.clock = SimpleNamespace(each_heartbeat=lambda call: None, each_second=lambda call: None)
        self.reads = SimpleNamespace(waiting=[])
        self.standing = SimpleNamespace(ready=True, say_state=lambda: None, leads=lambda: None)
        self.answered: dict[int, bytes] = {}  # of transactions
        self.past = SimpleNamespace(
            deliver=lambda link, rid, status, body, term: self.answered.update({rid: body}))
        self.dirty: set[Any] = set()
        self.stopping = False
        self.frames: dict[int, Any] = {}
        self.handlers: dict[int, Any] = {}
        self.applied_index = self.order_index = self.wanted_revision = self._requests_in_tick = 0
        self.hurried_until, self.last_index = 0.0, 1
        node: Any = self
        self.role = ShardRole(node, Kinds())
        self.uncounted = SimpleNamespace(taker=lambda requests: self.role)
        self.catch_up = self.role.catch_up

    def handle(self, ready: int) -> None:
        self.raft.announced_index = ready
        self.role.apply(ready)

    def after_apply(self, run: Any, applied: Any) -> None:
        pass

    def wake(self) -> None:
        pass

    def fed(self, order_index: int, entry_index: int, count: int | None = None) -> None:
        cut = Cut(entry_index, 1, entry_index - 1 if count is None else count)
        self.role.feed.queue.add((order_index, 1, encode_cut({SHARD: cut}), cut, 0))

    def log(self) -> None:
        """What it evaluates as its shard's leader becomes an entry, which others have, too."""
        leading = self.role.leading
        assert leading is not None
        leading.run()
        if leading.dirty:
            self.last_index += 1
            self.raft.logged[self.last_index] = leading.seal()
            leading.logged(self.last_index)

    @property
    def at(self) -> tuple[int, bool]:
        """Up to where it has applied the order, and whether more waits."""
        return self.order_index, self.role.feed.late.waits


def test_records_that_could_not_be_applied_end_the_node_whoever_asked(
    store: StateStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They have left the feed: the next ones would be applied without them (I6)."""
    replica: Any = Replica(store)
    replica.fed(1, 2)
    replica.role._follow()
    replica.fed(2, 3)
    replica.role._follow()
    assert replica.at == (1, True)

    def fails(*args: Any) -> None:
        raise ValueError("once")

    monkeypatch.setattr(store, "write", fails)
    link = FrontLink(b"front", lambda parts: True, b"", 1)
    with pytest.raises(ApplyFailed, match="order records 2 to 2"):
        Node.take_requests(replica, link, [(1, Method.RANGE, 1000, b"")])
    assert replica.dropped == []


def test_so_many_changes_as_a_turn_may_take_wait_for_nothing(store: StateStore) -> None:
    replica = Replica(store)
    replica.raft.announced_index = 9
    replica.role.placing.fold.take(encode_cut({SHARD: Cut(5, 1, 5000)}), SHARD)
    replica.role.feed.late.applied()
    replica.fed(1, 6, 4999 + MOST_CHANGES)
    replica.role._follow()
    assert replica.role.feed.late.waits
    replica.fed(2, 7, 5000 + MOST_CHANGES)
    assert not replica.role.feed.may_wait()


def test_catching_up_applies_what_a_second_ready_makes_known(store: StateStore) -> None:
    replica = Replica(store)
    replica.role.feed.late.applied()
    replica.raft.announced_index = 1
    replica.fed(1, 2)
    replica.fed(2, 3)
    replica.role._follow()
    assert replica.role.feed.late.waits
    replica.raft.readies = [2, 3]  # the first one's apply begins a pause
    replica.catch_up()
    assert replica.at == (2, False)


def test_a_leader_that_was_deposed_in_this_turn_of_the_loop_reports_nothing(store: StateStore) -> None:
    """Its successors may have committed others' entries at its places: their cut would bear its term (I3)."""
    replica: Any = Replica(store)
    said: list[int] = []
    replica.role.feed.link = SimpleNamespace(
        leader=1, member_id=1, request=lambda method, body: said.append(method))
    replica.role.leading = SimpleNamespace(term=1, report=lambda commit_index: Report(SHARD, 5, 1, 3, 0))
    replica.raft.commit_index = 5
    for term in (1, 2):
        replica.raft.term = term
        replica.role._report(force=True)
    assert said == [Method.REPORT]


def test_i23_a_state_that_is_installed_in_this_turn_leaves_the_fate_of_what_it_logged_unknown(
    store: StateStore,
) -> None:
    """The state has all of it in order. Called lost, it would be sent again, and happen twice."""
    replica, told = Replica(store), list[int]()
    link: Any = SimpleNamespace(answer=lambda rid, status, body: told.append(status))
    batch = ShardBatch(1, records.PENDING_REVISION, Bound(1))
    batch.take([((link, 1), b"k", records.Item.PUT_NEW, b"", b"")])
    role: Any = replica.role
    role.leading = SimpleNamespace(
        term=1, resign=lambda: ([], [(8, batch)]), take_puts=list, take_answers=list)
    role.feed.subscribe = lambda: None
    node: Any = MagicMock(role=role, raft=replica.raft, applied_index=9, order_index=9)
    node.writes.leader = None
    other: Any = replica
    other.applied_index, other.mark_dirty = 9, lambda link: None
    other.past = SimpleNamespace(shown=lambda: Shown(None))
    other.raft.term, other.raft.is_leader, other.raft.leader_id = 2, False, 2
    other.log = SimpleNamespace(term=lambda index: 1)
    Consequences(node).replaced()
    role.leader_changed()  # the tick in which Raft tells of it
    role.fates.decide(Cut(10, 2, 9), {10: 9})
    assert told == [Status.UNKNOWN]


@pytest.mark.parametrize("result", ["EQUAL", "NOT_EQUAL", "GREATER", "LESS"])
@pytest.mark.parametrize("plain", [True, False])
def test_what_waits_compares_revisions_that_were_all_told(
    store: StateStore, result: str, plain: bool
) -> None:
    """A lock ends and a put is in order, applied together: the put was still pending where its revision was
    compared, and that another host had shown it before."""
    replica = Replica(store)
    leading: ShardLeader[Any] = ShardLeader(
        store, SHARD, 1, Start(1, 0), max_txn_ops=128, pace=Pace(full_requests=1))
    replica.role.leading, attempt, link = leading, Attempt(1, 1), MagicMock()
    replica.fed(1, 1)
    replica.role._follow()
    leading.prepare((link, 1), Prepare(attempt, 0, 1, [Touch(b"k", b"", write=True)], sent_at=1))
    leading.submit((link, 2), Method.PUT, pb.PutRequest(key=b"j").SerializeToString())
    replica.log()
    asked = pb.TxnRequest(compare=[pb.Compare(key=b"j", target="MOD", result=result, mod_revision=3)])
    asked.compare.add(key=b"k", target="VERSION", version=0)
    if not plain:
        asked.compare.add(key=b"j", range_end=b"k", target="CREATE", result=result, create_revision=3)
    leading.submit((link, 3), Method.TXN, asked.SerializeToString())
    replica.log()
    assert leading.statistics()["locks"] == 2, "it waits for the lock"
    replica.role.feed.queue.add((2, 1, encode_multi(Multi(attempt, 1, {SHARD: 1}, [])), None, 0))
    replica.fed(3, 2, 1)
    replica.role._follow()
    assert (replica.order_index, store.revision) == (3, 3)
    replica.log()
    replica.fed(4, 3, 1)
    replica.role._follow()
    answer = pb.TxnResponse.FromString(replica.answered[3][HEAD.size :])
    assert answer.succeeded is (result == "EQUAL")


@pytest.mark.parametrize("locked", [True, False])
def test_i20_what_waited_is_refused_by_an_alarm_that_was_applied_meanwhile(
    store: StateStore, locked: bool
) -> None:
    """A put that came before the alarm, behind a lock or in the queue, was logged behind it."""
    replica = Replica(store)
    refused: list[ErrorKind | None] = [None]
    replica.upkeep.quota = SimpleNamespace(refusal=lambda method, body: refused[0])
    replica.guard = SimpleNamespace(state=AuthState())
    replica.raft.role = Role.LEADER
    role, attempt, link = replica.role, Attempt(1, 1), MagicMock()
    role.pace = Pace(full_requests=1)
    role.leader_changed()
    leading = role.leading
    assert leading is not None
    replica.fed(1, 1)
    role._follow()
    if locked:
        leading.prepare((link, 1), Prepare(attempt, 0, 1, [Touch(b"k", b"", write=True)], sent_at=1))
    role.submit(link, 2, Method.PUT, 5000, pb.PutRequest(key=b"k", value=b"v").SerializeToString())
    if locked:
        replica.log()
        assert leading.statistics()["locks"] == 2, "it waits for the lock"
    refused[0] = errors.CORRUPT
    if locked:
        role.feed.queue.add((2, 1, encode_multi(Multi(attempt, 1, {SHARD: 1}, [])), None, 0))
        role._follow()
    replica.log()
    assert replica.last_index == 2, "it is answered with an entry (I7)"
    replica.fed(3 if locked else 2, 2, 0)
    role._follow()
    assert replica.answered[2] == EtcdError(errors.CORRUPT).encode()
    assert store.revision == (2 if locked else 1), "nothing but the transaction takes one"
