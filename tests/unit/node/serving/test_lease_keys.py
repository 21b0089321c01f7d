"""LeaseTimeToLive lists very many keys in slices, all of one moment; a revoke has them read before."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cluster.effects import records
from cluster.errors import EtcdError
from cluster.grain import GRAIN
from cluster.pb import rpc_pb2 as pb
from cluster.raft import Role
from cluster.wire import messages
from cluster.wire.messages import HEAD, Method, Status
from node.links.fronts import FrontLink
from node.serving.leases import keys
from node.serving.leases.keys import answer_keys
from node.storage import StateStore
from node.storage.state.reader import Reader
from node.upkeep.expiry import Expiry

KEYS = 1000


class Replica:
    """A store in which lease 7 has keys, and a front."""

    def __init__(self, path: Path) -> None:
        self.store = StateStore.open(path)
        self.index = 0
        self.apply(records.lease_grant(7, 60))
        self.apply(b"".join(records.put(b"k%04d" % n, 0, 1, b"v", 7) for n in range(KEYS)))
        self.frames: list[bytes] = []
        self.link = FrontLink(b"front", self._frame, b"", 1)

    def _frame(self, parts: list[bytes]) -> bool:
        self.frames.append(parts[-1])
        return True

    def apply(self, record: bytes) -> None:
        self.index += 1
        self.store.apply([(self.index, 1, record)], want_events=False)

    def answer(self) -> tuple[int, pb.LeaseTimeToLiveResponse]:
        self.link.flush()
        ((_, status, body),) = messages.decode_answers(self.frames.pop())[1]
        assert status == Status.OK
        return HEAD.unpack_from(body)[0], pb.LeaseTimeToLiveResponse.FromString(body[HEAD.size :])


@pytest.fixture
def replica(tmp_path: Path) -> Iterator[Replica]:
    replica = Replica(tmp_path / "state")
    yield replica
    replica.store.close()


def test_the_keys_are_those_of_the_headers_revision_however_long_it_takes(
    replica: Replica, monkeypatch: pytest.MonkeyPatch,
) -> None:
    """20,000 of them held the loop for 0.16 s."""
    reads = [0]
    get = Reader.get

    def counted(self: Reader, key: bytes) -> bytes | None:
        reads[0] += 1
        return get(self, key)

    monkeypatch.setattr(Reader, "get", counted)
    replica.apply(records.delete(b"k0003"))
    revision = replica.store.revision
    work = answer_keys(
        replica.store, replica.link, 1, 1, pb.LeaseTimeToLiveResponse(ID=7, TTL=5, grantedTTL=60)
    )
    assert work is not None
    replica.apply(records.delete(b"k0000"))  # before its first step
    before = 0
    for step, _ in enumerate(work):
        assert reads[0] - before <= 32
        before = reads[0]
        replica.apply(records.delete(b"k%04d" % (900 - step)))
        replica.apply(records.put(b"l%04d" % step, 0, 1, b"v", 7))
    at, found = replica.answer()
    assert (at, found.ID, found.TTL, found.grantedTTL) == (revision, 7, 5, 60)
    assert found.keys == [b"k%04d" % n for n in range(KEYS) if n != 3]


def test_very_many_keys_come_in_pieces_so_that_the_front_waits_for_them(
    replica: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With 300,000, the front gave up after 7 s, each time."""
    monkeypatch.setattr(keys, "_PIECE", 320)
    work = answer_keys(replica.store, replica.link, 1, 1, pb.LeaseTimeToLiveResponse(ID=7, TTL=5))
    assert work is not None
    found: list[tuple[int, bytes]] = []
    for _ in chain(work, (None,)):
        if replica.link.pending:
            replica.link.flush()
            found += [(status, body) for _, status, body in messages.decode_answers(replica.frames.pop())[1]]
    statuses, bodies = zip(*found, strict=True)
    assert statuses == (Status.PARTIAL,) * 3 + (Status.OK,)
    answer = pb.LeaseTimeToLiveResponse.FromString(b"".join(bodies)[HEAD.size :])
    assert (answer.TTL, len(answer.keys)) == (5, KEYS)


def test_a_few_keys_are_listed_at_once(replica: Replica) -> None:
    replica.apply(records.lease_grant(8, 60))
    replica.apply(b"".join(records.put(b"m%04d" % n, 0, 1, b"v", 8) for n in range(GRAIN.lease_keys)))
    assert answer_keys(replica.store, replica.link, 1, 1, pb.LeaseTimeToLiveResponse(ID=8)) is None
    assert len(replica.answer()[1].keys) == GRAIN.lease_keys


class Revokes:
    """A node that takes in revokes."""

    def __init__(self, store: StateStore, role: Role = Role.LEADER) -> None:
        self.submitted: list[tuple[Any, ...]] = []
        self.work: list[Iterator[None]] = []
        node: Any = SimpleNamespace(
            store=store,
            raft=SimpleNamespace(role=role),
            slicer=SimpleNamespace(start=self.work.append),
            wake=lambda: None,
            role=SimpleNamespace(submit=lambda *request: self.submitted.append(request)),
        )
        self.expiry = Expiry(node)

    def revoke(self, link: FrontLink, lease: int) -> bytes:
        body = pb.LeaseRevokeRequest(ID=lease).SerializeToString()
        self.expiry.revoke(link, 1, 1000, body)
        return body


def test_the_keys_of_a_large_lease_are_read_in_slices_before_a_client_revokes_it(replica: Replica) -> None:
    replica.store.forget_versions()
    node = Revokes(replica.store)
    body = node.revoke(replica.link, 7)
    assert not node.submitted
    (work,) = node.work
    steps = sum(1 for _ in work)
    assert steps >= KEYS // 32
    assert node.submitted == [(replica.link, 1, Method.LEASE_REVOKE, 1000, body)]


def test_a_revoke_of_a_small_lease_or_elsewhere_does_not_wait(replica: Replica) -> None:
    for role, lease in ((Role.LEADER, 9), (Role.FOLLOWER, 7)):
        node = Revokes(replica.store, role)
        node.revoke(replica.link, lease)
        assert len(node.submitted) == 1
        assert not node.work


def test_a_malformed_revoke_is_refused(replica: Replica) -> None:
    with pytest.raises(EtcdError):
        Revokes(replica.store).expiry.revoke(replica.link, 1, 1000, b"\xff")
