"""A lease of very many keys ends with exactly those that hang on it then, whatever happens while they are
listed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest

from cluster.evaluate.replica import Leader
from cluster.features.lessor import Lessor
from cluster.grain import GRAIN
from cluster.pb import rpc_pb2 as pb
from cluster.raft import Role
from cluster.wire.messages import Method
from node.storage import StateStore
from node.storage.state import lease_lists
from node.storage.state.versions import Versions
from node.upkeep.expiry import Expiry

LEASE, OTHER = 7, 8
KEYS = [b"k%04d" % number for number in range(600)]


class Due(Lessor):
    """Its leases have ended whenever it is asked."""

    def is_expired(self, lease: int) -> bool:
        return True


class Shard:
    """The only shard's leader. What it logs is applied when told; ``leases``: which each key is to have."""

    def __init__(self, path: Path) -> None:
        self.store = StateStore.open(path)
        self.leader = Leader(self.store, 1, max_txn_ops=128, lessor=Lessor(1000), new_lease_id=lambda: 9)
        self.work: list[Iterator[None]] = []
        self.leases: dict[bytes, int] = {}
        node: Any = SimpleNamespace(
            loop=SimpleNamespace(call_soon=lambda call: None), lessor=Due(1000), now_ms=lambda: 0,
            raft=SimpleNamespace(role=Role.LEADER),
            role=SimpleNamespace(submit=lambda *asked: self._submit(*asked)),
            slicer=SimpleNamespace(start=self.work.append), store=self.store, wake=lambda: None,
            writes=SimpleNamespace(leader=self.leader, full=False, weigh=lambda size: None),
        )
        self.expiry = Expiry(node)
        for lease in (LEASE, OTHER):
            self.leader.execute(
                Method.LEASE_GRANT, pb.LeaseGrantRequest(ID=lease, TTL=100).SerializeToString())
        self.apply()

    def _submit(self, link: Any, rid: int, method: int, timeout_ms: int, body: bytes) -> None:
        self.leader.execute(method, body)

    def put(self, key: bytes, lease: int) -> None:
        self.leader.execute(
            Method.PUT, pb.PutRequest(key=key, value=b"v", lease=lease).SerializeToString())
        self.leases[key] = lease

    def delete(self, key: bytes, end: bytes = b"") -> None:
        self.leader.execute(
            Method.DELETE_RANGE, pb.DeleteRangeRequest(key=key, range_end=end).SerializeToString())
        for one in [one for one in self.leases if one == key or key <= one < end]:
            del self.leases[one]

    def change(self, random: Random) -> None:
        key = random.choice(KEYS)
        doing = random.choice(("with", "without", "other", "delete", "span", "apply", "apply"))
        if doing == "apply":
            self.apply()
        elif doing == "delete":
            self.delete(key)
        elif doing == "span":
            self.delete(key, key + b"\xff")
        else:
            self.put(key, {"with": LEASE, "without": 0, "other": OTHER}[doing])

    def apply(self) -> None:
        data, batch = self.leader.seal()
        index = self.store.position.shard_index + 1
        self.expiry.changed(self.store.apply([(index, 1, data)], want_events=False))
        self.leader.applied(batch)

    def live(self) -> list[bytes]:
        return [key for key, _ in self.store.scan(b"\0", b"\0")]


@pytest.fixture
def shard(tmp_path: Path) -> Iterator[Shard]:
    shard = Shard(tmp_path / "state")
    yield shard
    shard.store.close()


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("how", ["expiry", "revoke"])
def test_what_changes_while_the_keys_are_listed_is_seen(
    shard: Shard, monkeypatch: pytest.MonkeyPatch, how: str, seed: int
) -> None:
    monkeypatch.setattr(GRAIN, "lease_changes", 20)
    random = Random(seed)
    for key in random.sample(KEYS, 500):
        shard.put(key, LEASE)
    shard.apply()
    shard.store.cache.limit = 40
    if how == "expiry":
        shard.expiry.add([LEASE])
    else:
        link: Any = None
        shard.expiry.revoke(link, 1, 1000, pb.LeaseRevokeRequest(ID=LEASE).SerializeToString())
    (work,) = shard.work
    expected: dict[bytes, int] = {}
    steps = 0
    while shard.leader.view.lease_exists(LEASE):
        for _ in range(5):
            shard.change(random)
        expected = dict(shard.leases)
        next(work, None)
        steps += 1
    assert steps > 500 // 32
    assert (LEASE in shard.store.lease_lists) is (how == "revoke")  # its turn may come later
    shard.apply()
    assert LEASE not in shard.store.lease_lists
    assert shard.live() == sorted(key for key, lease in expected.items() if lease != LEASE)
    assert shard.store.lease_keys(LEASE) == []
    assert shard.store.lease_keys(OTHER) == sorted(key for key, lease in expected.items() if lease == OTHER)


@pytest.mark.parametrize("how", ["expiry", "revoke"])
def test_no_key_is_read_in_the_turn_that_ends_a_lease(
    shard: Shard, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """A leader that read 150,000 keys in one turn was deposed, each time, and its lease never ended."""
    for key in KEYS:
        shard.put(key, LEASE)
    shard.apply()
    shard.store.forget_versions()
    shard.store.cache.limit = 40  # as 32,768 to 150,000
    reads = [0]
    live = Versions._live

    def counted(self: Versions, key: bytes, revision: int) -> bytes | None:
        reads[0] += 1
        return live(self, key, revision)

    monkeypatch.setattr(Versions, "_live", counted)
    if how == "expiry":
        shard.expiry.add([LEASE])
    else:
        link: Any = None
        shard.expiry.revoke(link, 1, 1000, pb.LeaseRevokeRequest(ID=LEASE).SerializeToString())
    for _ in shard.work[0]:
        assert reads[0] <= 32
        reads[0] = 0
    assert reads[0] <= 32
    assert not shard.leader.view.lease_exists(LEASE)
    shard.apply()
    assert shard.live() == []


def test_a_lease_that_has_ended_and_is_not_applied_is_not_listed_again(shard: Shard) -> None:
    """It is named again while its keys are being deleted."""
    for key in KEYS:
        shard.put(key, LEASE)
    shard.apply()
    shard.expiry.add([LEASE])
    for _ in shard.work.pop():
        pass
    shard.expiry.add([LEASE])
    assert not shard.work


@pytest.mark.parametrize("later", [False, True])
def test_keys_that_went_with_a_part_of_their_lease_are_not_read_again(
    shard: Shard, monkeypatch: pytest.MonkeyPatch, later: bool
) -> None:
    """Each cost a look at the disk in the turn of the next part. Those that came back are seen."""
    for key in KEYS:
        shard.put(key, LEASE)
    shard.apply()
    with GRAIN.finer(lease_end_bytes=10 * 400):
        for _ in shard.store.lease_lists.read(LEASE, 32):
            pass
        assert shard.leader.expire(LEASE).keys == 400
        if later:
            shard.put(KEYS[7], LEASE)
        shard.apply()
        shard.store.cache.forget_versions()  # keys above 512 bytes are never in it
        reads = [0]
        live = Versions._live

        def counted(self: Versions, key: bytes, revision: int) -> bytes | None:
            reads[0] += 1
            return live(self, key, revision)

        monkeypatch.setattr(Versions, "_live", counted)
        assert shard.leader.view.lease_keys(LEASE) == [KEYS[7]] * later + KEYS[400:]
    assert reads[0] == later


def test_a_key_that_came_back_behind_a_pause_stays_on_its_list(
    shard: Shard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What follows in steps meets a delete that another look has passed."""
    monkeypatch.setattr(GRAIN, "lease_changes", 1)
    for key in KEYS:
        shard.put(key, LEASE)
    shard.apply()
    lists = shard.store.lease_lists
    for _ in lists.read(LEASE, 32):
        pass
    for number in (1, 2, 3):
        shard.delete(KEYS[number])
    shard.apply()
    steps = lists.read(LEASE, 1)
    next(steps)
    shard.put(KEYS[2], LEASE)
    shard.apply()
    assert lists.keys(LEASE) == [KEYS[0], KEYS[2], *KEYS[4:]]
    for _ in steps:
        pass
    assert lists.keys(LEASE) == [KEYS[0], KEYS[2], *KEYS[4:]]


def test_leases_that_are_revoked_at_once_are_not_all_listed_together(
    shard: Shard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lists of all of them took memory without a bound. No list is driven out before its lease's turn."""
    link: Any = None
    leases = range(100, 130)
    for lease in leases:
        shard.leader.execute(
            Method.LEASE_GRANT, pb.LeaseGrantRequest(ID=lease, TTL=100).SerializeToString())
        for number in range(40):
            shard.put(b"l%d/%d" % (lease, number), lease)
    shard.apply()
    monkeypatch.setattr(GRAIN, "lease_keys", 20)
    monkeypatch.setattr(lease_lists, "MOST_BYTES", 4 * 40 * 80)
    shard.store.cache.forget_versions()
    shard.store.cache.limit = 40
    sent: list[bytes] = []
    monkeypatch.setattr(shard, "_submit", lambda link, rid, method, timeout_ms, body: sent.append(body))
    for lease in leases:
        shard.expiry.revoke(link, 1, 1000, pb.LeaseRevokeRequest(ID=lease).SerializeToString())
    while shard.work:
        assert len(shard.work) <= 8
        if next(work := shard.work.pop(0), True) is None:
            shard.work.append(work)
        for body in sent:  # the turn behind that
            assert pb.LeaseRevokeRequest.FromString(body).ID in shard.store.lease_lists
            shard.leader.execute(Method.LEASE_REVOKE, body)
        sent.clear()
        shard.apply()
    assert not any(shard.leader.view.lease_exists(lease) for lease in leases)
    assert not shard.live()
