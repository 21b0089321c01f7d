"""A lease whose keys' names take very much ends in several revisions, each an entry of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cluster import errors
from cluster.effects import records
from cluster.errors import EtcdError
from cluster.features.auth.principal import SAID
from cluster.features.lessor import EXPIRY_RETRY_MS, Lessor
from cluster.grain import GRAIN
from cluster.pacing.pace import MAX_ENTRY_BYTES
from cluster.pb import rpc_pb2 as pb
from cluster.raft import Role
from cluster.wire.messages import Method, Status, decode_answers
from node.replica.roles.made import hand_over
from node.storage import StateStore
from node.upkeep.expiry import Expiry
from tests.unit.node.replica.test_writes import Replica
from tests.unit.proxy.fakes import ManualLoop

LEASE, BYTES = 9, 2000
KEYS = [b"k%02d" % number + b"-" * 197 for number in range(35)]  # 205 bytes each in an entry: 7,175


class Shard(Replica):
    """The only shard's leader, whose log commits when told. Lease 9 is due."""

    def __init__(self, store: StateStore) -> None:
        super().__init__(store)
        self.now_ms = 0
        self.lessor = Lessor(1000)
        self.loop: Any = ManualLoop()
        self.read: list[Iterator[Any]] = []
        node: Any = SimpleNamespace(
            loop=self.loop,
            store=store,
            slicer=SimpleNamespace(start=self.read.append),
            wake=lambda: None,
            raft=SimpleNamespace(role=Role.LEADER),
            lessor=self.lessor,
            now_ms=lambda: self.now_ms,
            writes=self.writes,
        )
        self.expiry = Expiry(node)
        self.lead(1)
        self.lessor.promote(0)
        self.done = 1

    def lease(self, lease: int = LEASE, keys: list[bytes] = KEYS) -> None:
        self.write(Method.LEASE_GRANT, pb.LeaseGrantRequest(ID=lease, TTL=2))
        for key in keys:
            self.write(Method.PUT, pb.PutRequest(key=key, lease=lease))
        while self.raft.last > self.done:
            self.commit()
            self.writes.run()
        self.answers()
        self.now_ms = 10_000

    def write(self, method: int, request: Any, rid: int = 1) -> None:
        self.writes.submit(self.link, rid, method, request.SerializeToString())
        self.writes.run()

    def commit(self) -> list[bytes]:
        """Apply what is logged; the entries."""
        logged = []
        while self.done < self.raft.last:
            self.done += 1
            term, data = self.raft.entries[self.done]
            logged.append(data)
            self.expiry.changed(self.store.apply([(self.done, term, data)]))
            self.writes.applied(self.done, term)
        return logged

    def turns(self, heartbeats: int = 60) -> list[bytes]:
        """Heartbeats with a tick after each turn of the loop; the entries."""
        logged = []
        for _ in range(heartbeats):
            self.now_ms += 100
            self.expiry.look()
            self.writes.run()
            logged += self.commit()
            while self.read or self.loop._soon:
                for one in self.read or ():
                    for _ in one:
                        pass
                self.read.clear()
                self.loop.turn()
                self.writes.run()
                logged += self.commit()
        return logged

    def live(self) -> list[bytes]:
        return [key for key, _ in self.store.scan(b"\0", b"\0")]


@pytest.fixture
def shard(tmp_path: Path) -> Iterator[Shard]:
    store = StateStore.open(f"{tmp_path}/state")
    with GRAIN.finer(lease_end_bytes=BYTES):
        yield Shard(store)
    store.close()


def kinds(record: bytes) -> list[int]:
    return [kind for kind, _, _ in records.items(record)]


def test_a_due_lease_of_long_names_ends_in_several_revisions(shard: Shard) -> None:
    """All names went into one entry: with hundreds of MB its leader fell with each attempt to end it."""
    shard.lease()
    before = shard.store.revision
    items = b"".join(shard.turns())
    assert kinds(items) == [records.Item.TXN] * 3 + [records.Item.LEASE_REVOKE]
    assert max(end - pos for _, pos, end in records.items(items)) <= BYTES
    assert shard.store.revision == before + 4
    assert (shard.live(), list(shard.lessor)) == ([], [])


def test_a_lease_that_fits_ends_in_one_revision_as_with_etcd(shard: Shard) -> None:
    shard.lease(keys=[b"%d" % number + b"-" * (BYTES // 10 - 6) for number in range(10)])
    before = shard.store.revision
    assert [kinds(entry) for entry in shard.turns()] == [[records.Item.LEASE_REVOKE]]
    assert shard.store.revision == before + 1


def test_names_longer_than_all_that_goes_at_once_go_one_by_one(shard: Shard) -> None:
    shard.lease(keys=[b"%d" % number + b"-" * BYTES for number in range(3)])
    before = shard.store.revision
    shard.turns()
    assert shard.store.revision == before + 3
    assert (shard.live(), list(shard.lessor)) == ([], [])


@pytest.mark.parametrize("keys", [40, 400])
def test_the_open_entry_holds_few_names_while_no_other_may_leave(
    shard: Shard, monkeypatch: pytest.MonkeyPatch, keys: int
) -> None:
    """Keys were counted, not their bytes, and all that ended while no entry might leave went into one."""
    monkeypatch.setattr("node.replica.writes.MAX_ENTRY_BYTES", BYTES)
    leases = range(LEASE, LEASE + 40)
    for lease in leases:
        some = [b"%03d/%03d" % (lease, number) + b"-" * 400 for number in range(keys // 40)]
        shard.lease(lease, some)
    shard.raft.takes_proposals = False
    shard.now_ms += EXPIRY_RETRY_MS
    assert not shard.turns(2 * EXPIRY_RETRY_MS // 100)
    shard.raft.takes_proposals = True
    entries = shard.turns()
    assert max(map(len, entries)) <= 2 * BYTES + 405
    assert (shard.live(), list(shard.lessor)) == ([], [])


def test_a_new_leader_goes_on_with_what_its_predecessor_has_left(
    shard: Shard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("node.replica.writes.MAX_ENTRY_BYTES", BYTES // 2)
    shard.lease()
    shard.expiry.look()
    shard.writes.run()
    shard.commit()
    assert shard.live() == KEYS[9:]
    shard.deposed(2)
    shard.lessor.demote()
    shard.lead(3)
    shard.done += 1
    shard.lessor.promote(shard.now_ms)
    shard.turns(10)
    assert (shard.live(), list(shard.lessor)) == (KEYS[9:], [(LEASE, 2, 0)])  # it has its time once more
    shard.turns()
    assert (shard.live(), list(shard.lessor)) == ([], [])


def test_very_many_long_names_end_whole_whatever_changes_meanwhile(shard: Shard) -> None:
    """Their keys are listed ahead, and the list follows each part."""
    names = [b"k%03d" % number for number in range(GRAIN.lease_keys + 90)]
    shard.lease(keys=names)
    shard.expiry.look()
    while shard.read:
        for _ in shard.read.pop():
            pass
        shard.write(Method.PUT, pb.PutRequest(key=b"k200+", lease=LEASE))
        shard.write(Method.PUT, pb.PutRequest(key=b"k300"))
        shard.commit()
    shard.turns()
    assert shard.live() == [b"k300"]
    assert list(shard.lessor) == []


def test_a_client_that_revokes_such_a_lease_is_answered_when_all_has_gone(shard: Shard) -> None:
    shard.lease()
    before = shard.store.revision
    shard.write(Method.LEASE_REVOKE, pb.LeaseRevokeRequest(ID=LEASE), rid=5)
    while shard.raft.last > shard.done:
        assert shard.answers() == {}
        shard.commit()
        shard.writes.run()
    assert shard.answers() == {5: Status.OK}
    assert shard.store.revision == before + 4
    assert (shard.live(), list(shard.lessor)) == ([], [])
    assert shard.writes._intake.bytes == 0
    shard.write(Method.LEASE_REVOKE, pb.LeaseRevokeRequest(ID=LEASE), rid=6)
    shard.commit()
    assert shard.answers() == {6: Status.ERROR}


def test_each_part_of_a_revoke_is_an_entry(shard: Shard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("node.replica.writes.MAX_ENTRY_BYTES", BYTES // 2)
    shard.lease()
    first = shard.done + 1
    shard.write(Method.LEASE_REVOKE, pb.LeaseRevokeRequest(ID=LEASE), rid=5)
    while shard.raft.last > shard.done:
        shard.commit()
        shard.writes.run()
    assert [kinds(shard.raft.entries[index][1]) for index in range(first, shard.done + 1)] == [
        [records.Item.TXN]
    ] * 3 + [[records.Item.LEASE_REVOKE]]
    assert shard.answers() == {5: Status.OK}


def test_a_part_that_a_lost_term_has_logged_leaves_the_rest_to_the_next_try(shard: Shard) -> None:
    """The front asks again wherever it is told that nothing was logged, as of a request that came late."""
    shard.lease()
    shard.raft.takes_proposals = False
    shard.write(Method.LEASE_REVOKE, pb.LeaseRevokeRequest(ID=LEASE), rid=5)
    shard.raft.takes_proposals = True
    shard.writes._evaluate(shard.writes.leader, 1 << 40)  # type: ignore[arg-type]
    shard.deposed(2)
    assert shard.answers() == {5: Status.NOT_LEADER}
    shard.lead(3)
    assert len(shard.live()) == len(KEYS)


def test_a_revoke_that_is_refused_behind_its_first_part_is_not_said_to_have_done_nothing(
    shard: Shard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Keys were gone, and the error was one of those that say that the write did not happen."""
    monkeypatch.setattr("node.replica.writes.MAX_ENTRY_BYTES", BYTES // 2)
    shard.lease()
    first = shard.raft.last + 1
    shard.writes._refusal = lambda method, body: errors.CORRUPT if shard.raft.last >= first else None
    shard.write(Method.LEASE_REVOKE, pb.LeaseRevokeRequest(ID=LEASE), rid=5)
    shard.write(Method.LEASE_REVOKE, pb.LeaseRevokeRequest(ID=LEASE), rid=6)
    shard.commit()
    shard.link.flush()
    said = {rid: EtcdError.decode(body).kind for frame in shard.sent
            for rid, _, body in decode_answers(frame)[1]}
    assert said == {5: errors.TIMEOUT, 6: errors.CORRUPT}
    assert shard.live() == KEYS[9:]
    assert not shard.writes._begun


class Orders:
    """The role of shard 0 where there may be several."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, int, bytes]] = []  # rid, method, body

    def submit(self, link: object, rid: int, method: int, timeout_ms: int, body: bytes) -> None:
        assert timeout_ms > 0
        self.asked.append((rid, method, body))


def test_a_revoke_of_which_a_part_is_logged_goes_on_over_all_shards_once_there_may_be_several(
    shard: Shard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A shard that was born between two parts kept its keys of the lease: only shard 0's own went."""
    monkeypatch.setattr("node.replica.writes.MAX_ENTRY_BYTES", BYTES // 2)
    shard.lease()
    body = pb.LeaseRevokeRequest(ID=LEASE).SerializeToString()
    for method in (Method.LEASE_REVOKE, Method.LEASE_REVOKE | SAID):
        shard.writes.submit(shard.link, method, method, body)
    shard.writes.submit(shard.link, 7, Method.PUT, pb.PutRequest(key=b"new").SerializeToString())
    leader = shard.writes.leader
    assert leader is not None
    shard.writes._evaluate(leader, 1 << 40)
    shard.writes._propose(leader)
    orders: Any = Orders()
    hand_over(shard.writes, orders)
    assert orders.asked == [(method, method, body) for method in (
        Method.LEASE_REVOKE, Method.LEASE_REVOKE | SAID)]
    shard.writes.run()
    while shard.raft.last > shard.done:
        shard.commit()
        shard.writes.run()
    assert shard.answers() == {7: Status.OK}
    assert len(shard.live()) == len(KEYS) - 9 + 1
    assert shard.writes._intake.bytes == 0


def test_a_due_lease_of_which_a_part_is_logged_is_found_due_again_once_there_may_be_several_shards(
    shard: Shard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("node.upkeep.expiry.KEYS", 5)
    shard.lease()
    shard.expiry.look()
    found: list[list[int]] = []
    shard.expiry.decide = found.append
    shard.turns()
    assert len(shard.live()) == len(KEYS) - 9
    assert found[-1] == [LEASE]


def test_a_revoke_whose_keys_are_read_goes_to_the_role_of_then(shard: Shard) -> None:
    shard.lease(keys=[b"k%03d" % number for number in range(GRAIN.lease_keys + 1)])
    roles: list[Any] = [Orders(), Orders()]
    node: Any = shard.expiry._node
    node.role = roles[0]
    body = pb.LeaseRevokeRequest(ID=LEASE).SerializeToString()
    shard.expiry.revoke(shard.link, 5, 1000, body)
    node.role = roles[1]
    for _ in shard.read.pop():
        pass
    assert [role.asked for role in roles] == [[], [(5, Method.LEASE_REVOKE, body)]]


def test_what_goes_at_once_is_more_than_an_entry_of_writes() -> None:
    """So a part of a lease closes its entry."""
    assert GRAIN.lease_end_bytes > MAX_ENTRY_BYTES
