"""What becomes of the writes of a term that is lost."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from unittest.mock import MagicMock

import pytest

from cluster import errors
from cluster.errors import EtcdError
from cluster.evaluate.replica import Leader
from cluster.features.auth import state as users
from cluster.features.auth.principal import SAID, Kind, Principal
from cluster.features.lessor import Lessor
from cluster.order.leading.rights import KEYS_ELSEWHERE
from cluster.pacing.pace import Pace
from cluster.pb import rpc_pb2
from cluster.raft import ProposalDropped, Role
from cluster.wire.messages import ANSWER, Method, Status, decode_answers
from node.links.fronts import FrontLink
from node.replica.consequences import Consequences
from node.replica.writes import Writes
from node.storage import StateStore


class FakeRaft:
    """A leader's log without peers: the test says what is committed."""

    def __init__(self) -> None:
        self.term = 1
        self.leader_id = 1
        self.is_leader = True
        self.transferring = False
        self.takes_proposals = True
        self.entries: dict[int, tuple[int, bytes]] = {}
        self.last = 0

    def propose(self, data: bytes) -> int:
        if not self.takes_proposals:
            raise ProposalDropped
        self.last += 1
        self.entries[self.last] = (self.term, data)
        return self.last


class Replica:
    """One replica's write path over a real store."""

    def __init__(self, store: StateStore, full_requests: int = 1) -> None:
        self.raft = FakeRaft()
        self.store = store
        self.sent: list[bytes] = []
        self.link = FrontLink(b"front", self._take, b"", 1)
        self.auth: users.AuthState | None = None
        self.controls: list[tuple[int, int, bool]] = []  # that are applied: rid, status, physical
        self.writes = Writes(
            self.raft, store, lambda link: None,
            lambda: Leader(store, self.raft.term, max_txn_ops=128, lessor=Lessor(1000),
                           new_lease_id=lambda: 7, auth=self.auth),
            refusal=lambda method, body: None, control_applied=self._control_applied,
            pace=Pace(full_requests))

    def _take(self, parts: list[bytes]) -> bool:
        self.sent.append(parts[-1])
        return True

    def _control_applied(self, link: FrontLink, record: bytes, physical: bool) -> None:
        rid, status, _ = ANSWER.unpack_from(record)
        self.controls.append((rid, status, physical))

    def lead(self, term: int) -> None:
        """Elected; its own first entry is applied."""
        self.raft.term, self.raft.is_leader = term, True
        self.apply(self.raft.propose(b""))
        self.writes.lead()

    def deposed(self, term: int) -> None:
        self.raft.term, self.raft.is_leader, self.raft.leader_id = term, False, 2
        self.writes.resign()

    def put(self, rid: int) -> None:
        """One write, one entry."""
        request = rpc_pb2.PutRequest(key=b"k%d" % rid, value=b"v")
        self.writes.submit(self.link, rid, Method.PUT, request.SerializeToString())
        self.writes.run()

    def apply(self, index: int) -> None:
        term, data = self.raft.entries[index]
        self.store.apply([(index, term, data)], want_events=False)
        self.writes.applied(index, term)

    def answers(self) -> dict[int, int]:
        """Status by request, of what has been answered since the last call."""
        if self.link.pending:
            self.link.flush()
        found = {rid: status for frame in self.sent for rid, status, _ in decode_answers(frame)[1]}
        self.sent.clear()
        return found


@pytest.fixture
def replica(tmp_path: Path) -> Iterator[Replica]:
    store = StateStore.open(f"{tmp_path}/state")
    yield Replica(store)
    store.close()


def test_a_write_is_answered_when_its_entry_is_applied(replica: Replica) -> None:
    replica.lead(1)
    replica.put(1)
    assert replica.answers() == {}
    replica.apply(2)
    assert replica.answers() == {1: Status.OK}


def test_the_writes_of_a_frame_are_taken_together_and_answered_in_order(replica: Replica) -> None:
    puts = [(rid, int(Method.PUT), 1000, rpc_pb2.PutRequest(key=b"k", value=b"%d" % rid).SerializeToString())
            for rid in (1, 2, 3)]
    replica.raft.is_leader = False
    assert not replica.writes.submit_all(replica.link, puts), "each is to be refused"
    assert not replica.writes.queued
    replica.lead(1)
    assert replica.writes.submit_all(replica.link, puts)
    replica.writes.run()
    replica.apply(2)
    assert list(replica.answers().items()) == [(1, Status.OK), (2, Status.OK), (3, Status.OK)]
    assert (replica.store.get(b"k") or b"").endswith(b"\x2a\x013"), "the last one's value"


def test_a_leader_that_leads_again_never_says_lost_of_a_write_that_it_has_logged_and_applied(
    replica: Replica,
) -> None:
    """I23: the front sends again what is said to be lost, so it would be done twice."""
    replica.lead(1)
    for rid in (1, 2, 3, 4, 5):
        replica.put(rid)  # at 2 to 6, and nobody else has them
    replica.deposed(2)
    replica.raft.entries[2], replica.raft.last = (2, b""), 2  # the next leader's first entry replaces them
    replica.apply(2)
    assert replica.answers() == dict.fromkeys((1, 2, 3, 4, 5), Status.NOT_LEADER)
    replica.lead(3)
    replica.put(6)  # at 4, where one of the lost ones stood
    replica.apply(4)
    assert replica.answers() == {6: Status.OK}
    replica.put(7)
    replica.apply(5)
    assert replica.answers() == {7: Status.OK}


def test_i23_writes_that_wait_for_a_revision_count_among_those_that_wait(
    replica: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replica.writes._intake, "most", 3)
    replica.lead(1)
    replica.put(1)  # logged at revision 2, not applied
    replica.put(9)  # and at 3
    read = rpc_pb2.RangeRequest(key=b"k1", revision=2)
    txn = rpc_pb2.TxnRequest(
        success=[
            rpc_pb2.RequestOp(request_range=read),
            rpc_pb2.RequestOp(request_put=rpc_pb2.PutRequest(key=b"x")),
        ]
    ).SerializeToString()
    for rid in (2, 3, 4):
        replica.writes.submit(replica.link, rid, Method.TXN, txn)
        replica.writes.run()
    assert replica.answers() == {}
    replica.writes.submit(replica.link, 5, Method.TXN, txn)
    assert replica.link.pending
    replica.link.flush()
    ((rid, status, body),) = decode_answers(replica.sent.pop())[1]
    assert (rid, status, EtcdError.decode(body).text) == (5, Status.ERROR, errors.TOO_MANY_REQUESTS.text)
    replica.link.overdue = 3  # the front has told the clients of those
    replica.apply(2)
    replica.writes.run()
    replica.apply(3)
    replica.apply(4)
    assert replica.answers() == {1: Status.OK, 9: Status.OK, 4: Status.OK}
    replica.put(6)
    replica.apply(5)
    assert replica.answers() == {6: Status.OK}, "there is room again"


def test_i23_writes_that_their_front_has_given_up_keep_no_other_one_out(replica: Replica) -> None:
    """Nothing is evaluated meanwhile: very many keys are being deleted, say, or the term's first entry has
    not been applied."""
    replica.writes._intake.most = 3
    for rid in (1, 2, 3, 4):
        replica.put(rid)
    assert replica.answers() == {4: Status.ERROR}
    replica.link.overdue = 2
    replica.writes.sweep()
    for rid in (5, 6, 7):
        replica.put(rid)
    assert replica.answers() == {7: Status.ERROR}
    replica.lead(1)
    replica.writes.run()
    replica.apply(2)
    assert replica.answers() == dict.fromkeys((3, 5, 6), Status.OK)
    assert replica.store.get(b"k2") is None, "its client was told that it took too long"


def test_what_has_begun_and_the_leaders_own_work_goes_on_whoever_waits(replica: Replica) -> None:
    """I15: a revoke may have ended a lease in part."""
    for method in (Method.LEASE_REVOKE, Method.LEASE_REVOKE | SAID):
        replica.writes.submit(replica.link, 1, method, b"")
    replica.writes.in_turn(lambda leader: 0)
    replica.link.overdue = 1
    replica.writes.sweep()
    assert replica.writes.queued == 3


@pytest.mark.parametrize(("role", "term", "leading", "resigns", "demotes"), [
    (Role.LEADER, 5, 5, False, False), (Role.LEADER, 5, None, False, False), (Role.LEADER, 6, 5, True, True),
    (Role.FOLLOWER, 6, 5, True, True), (Role.FOLLOWER, 6, None, True, False)])
def test_who_leads_no_longer_keeps_nothing_of_its_term(
    role: Role, term: int, leading: int | None, resigns: bool, demotes: bool,
) -> None:
    node = MagicMock()
    node.raft.role, node.raft.term = role, term
    node.writes.leader = None if leading is None else MagicMock(term=leading)
    Consequences(node).leader_changed()
    assert node.writes.resign.called is node.confirmations.resign.called is resigns
    assert node.store.forget_versions.called is resigns  # each apply would keep them up for nobody
    assert node.lessor.demote.called is demotes


def test_without_the_look_at_its_term_an_old_one_would_stand_in_the_way(
    replica: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    def by_index(self: Writes, index: int, term: int) -> None:
        entries = self._under_way.entries
        while entries and entries[0].index <= index:
            own = entries.popleft()
            if (own.index, own.term) == (index, term):
                self._done(own)
            else:
                for link, rid in own.owed:
                    self._not_leader(link, rid)

    monkeypatch.setattr(Writes, "applied", by_index)
    with pytest.raises(AssertionError, match="NOT_LEADER"):
        test_a_leader_that_leads_again_never_says_lost_of_a_write_that_it_has_logged_and_applied(replica)


def test_what_an_own_entry_of_the_lost_term_has_committed_is_done(replica: Replica) -> None:
    replica.lead(1)
    replica.put(1)
    replica.put(2)
    replica.deposed(2)
    replica.apply(2)
    assert replica.answers() == {1: Status.OK}
    replica.raft.entries[3] = (2, b"")
    replica.apply(3)
    assert replica.answers() == {2: Status.NOT_LEADER}


def entries_of(replica: Replica) -> list[int]:
    """Indexes logged since the leader's own first entry."""
    return [index for index in replica.raft.entries if index > 1]


def test_what_comes_while_an_entry_is_under_way_gathers_for_the_next_one(tmp_path: Path) -> None:
    """An entry costs every host its frames and syncs, however little it holds."""
    store = StateStore.open(f"{tmp_path}/state")
    replica = Replica(store, 256)
    replica.lead(1)
    for rid in (1, 2, 3, 4):
        replica.put(rid)
    assert entries_of(replica) == [2]  # the first one does not wait
    replica.apply(2)
    replica.writes.run()
    assert entries_of(replica) == [2, 3]
    replica.apply(3)
    assert replica.answers() == dict.fromkeys((1, 2, 3, 4), Status.OK)
    store.close()


def test_what_fills_an_entry_by_itself_does_not_wait(tmp_path: Path) -> None:
    store = StateStore.open(f"{tmp_path}/state")
    replica = Replica(store, 2)
    replica.lead(1)
    for rid in (1, 2, 3):
        replica.put(rid)
    assert entries_of(replica) == [2, 3]
    store.close()


def test_what_raft_has_no_room_for_waits_and_is_neither_dropped_nor_done_twice(replica: Replica) -> None:
    replica.lead(1)
    leader = replica.writes.leader
    assert leader is not None
    replica.put(1)
    replica.raft.takes_proposals = False  # too much is uncommitted
    leader.append(b"")  # staged by somebody else: a cut, say
    replica.put(2)
    assert (replica.writes.queued, replica.writes.ready, entries_of(replica)) == (1, False, [2])
    replica.apply(2)
    replica.writes.run()
    assert entries_of(replica) == [2]
    replica.raft.takes_proposals = True
    assert replica.writes.ready
    replica.writes.run()
    assert entries_of(replica) == [2, 3]
    replica.apply(3)
    assert replica.answers() == dict.fromkeys((1, 2), Status.OK)
    assert not replica.writes.ready


def test_rows_are_prepared_of_an_own_entry_of_plain_puts_and_of_no_other(replica: Replica) -> None:
    replica.lead(1)
    replica.put(1)
    replica.put(2)
    assert replica.writes.prepared(2, 1) is None  # not yet
    replica.writes.prepare()
    for index in (2, 3):
        found = replica.writes.prepared(index, 1)
        assert found is not None
        assert found.puts.keys == [b"k%d" % (index - 1)]
    assert replica.writes.prepared(2, 2) is None  # another leader's, where this one's was lost
    assert replica.writes.prepared(4, 1) is None
    replica.apply(2)
    assert replica.writes.prepared(2, 1) is None
    replica.writes.submit(
        replica.link, 3, Method.DELETE_RANGE, rpc_pb2.DeleteRangeRequest(key=b"k1").SerializeToString()
    )
    replica.writes.run()
    replica.writes.prepare()
    assert replica.writes.prepared(4, 1) is None


def test_what_is_queued_waits_for_the_next_entry_where_something_else_fills_this_one(
    replica: Replica,
) -> None:
    """D9: a record that holds several large transactions over many shards holds up everybody's cut for long
    enough."""
    replica.lead(1)
    replica.writes.weigh(4 << 20)
    replica.writes.stage((replica.link, 1), Status.OK, b"")
    replica.put(2)
    (_, first), (_, second) = replica.raft.entries[2], replica.raft.entries[3]
    assert not first
    assert b"k2" in second


def test_of_several_shards_the_sequencer_judges_puts_under_leases(replica: Replica) -> None:
    """P3: keys of the lease may hang in the others."""
    auth = users.AuthState()
    few = users.Role("few", (users.Permission(b"k", b"l", 2),))
    alice = users.User("alice", b"", True, ("few",), 1)
    auth.take([users.role_row(few), users.user_row(alice), users.meta_row(users.Meta(True, 5))])
    replica.auth, replica.writes.lease_keys = auth, KEYS_ELSEWHERE
    replica.lead(1)
    said = Principal(Kind.SIMPLE, "alice", 5).encode()
    for rid, (key, lease) in enumerate(((b"k", 77), (b"k", 0), (b"secret", 77)), 1):
        put = rpc_pb2.PutRequest(key=key, value=b"v", lease=lease).SerializeToString()
        replica.writes.submit(replica.link, rid, Method.PUT | SAID, said + put)
    replica.writes.run()
    assert replica.answers() == {1: Status.ELSEWHERE}
    replica.apply(replica.raft.last)
    assert replica.answers() == {2: Status.OK, 3: Status.ERROR}


def test_what_is_compacted_already_waits_with_physical_for_that_compaction(replica: Replica) -> None:
    """As etcd's: an automatic one may be under way, and defrag comes next."""
    replica.lead(1)
    replica.put(1)
    replica.apply(2)
    for rid, revision, physical in ((2, 2, False), (3, 2, True), (4, 2, False), (5, 9, True)):
        request = rpc_pb2.CompactionRequest(revision=revision, physical=physical)
        replica.writes.submit(replica.link, rid, Method.COMPACT, request.SerializeToString())
    replica.writes.run()
    replica.answers()
    replica.apply(3)
    assert replica.controls == [(2, Status.OK, False), (3, Status.ERROR, True)]
    assert replica.answers() == {4: Status.ERROR, 5: Status.ERROR}
