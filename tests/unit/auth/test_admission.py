"""Who asks is settled by what is committed here, not by what happens to be applied."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import pytest

from cluster import errors
from cluster.errors import EtcdError
from cluster.features.auth.permissions import Ranges
from cluster.features.auth.principal import FRONT, NOBODY, SAID, Kind, Principal
from cluster.features.auth.reads import Show
from cluster.features.auth.state import (
    READ,
    AuthState,
    Meta,
    Permission,
    Role,
    User,
    meta_row,
    role_row,
    user_row,
)
from cluster.pb import rpc_pb2 as pb
from cluster.placement import Table
from cluster.placement.base import Base
from cluster.placement.changes import Moved, take_move, take_moved
from cluster.placement.table import Move
from cluster.wire import messages
from cluster.wire.messages import Method, Status
from node.kinds import WRITES
from node.links.fronts import FrontLink
from node.serving.auth import admission
from node.serving.auth.admission import Admission
from node.serving.reads import Reads
from node.serving.serve import Serve


class _Node:
    """Auth is committed here, and applied once somebody is about to look."""

    def __init__(self) -> None:
        self.guard = SimpleNamespace(state=AuthState())
        self.settings: Any = SimpleNamespace(growth="off")
        self.writes: Any = None
        self.store: Any = None
        self.confirmations: Any = None
        self.serve: Any = None
        self.reads: Any = None
        changes = SimpleNamespace(submit=lambda *given: self.changes.append(given[2:]))
        self.roster: Any = SimpleNamespace(changes=changes)
        self.changes: list[tuple[bytes, Principal]] = []
        self.taken: list[int] = []
        self.admission = Admission(self)  # type: ignore[arg-type]

    def catch_up(self) -> None:
        self.guard.state = SimpleNamespace(enabled=True)

    def take_requests(self, link: Any, requests: list[tuple[int, int, int, bytes]]) -> None:
        self.taken += [method for _, method, _, _ in requests]

    def ask(self, *methods: Method) -> None:
        link: Any = SimpleNamespace(watches=True, member_id=1)
        self.admission.requests(link, [(rid, method, 0, b"") for rid, method in enumerate(methods, 1)])


def test_a_read_without_a_name_is_judged_by_what_is_committed() -> None:
    node = _Node()
    node.ask(Method.PUT, Method.RANGE)
    assert node.taken == [Method.PUT | SAID, Method.RANGE | SAID]


def test_writes_alone_wait_for_nothing_to_be_applied() -> None:
    node = _Node()
    node.ask(Method.PUT)
    assert node.taken == [Method.PUT]  # the leader judges them with what it has logged


@pytest.mark.parametrize("method", [Method.MEMBERS, Method.TRANSFER_LEADER, Method.ADVICE])
@pytest.mark.parametrize("leads", [True, False])
def test_changes_of_members_and_moves_of_leaders_are_roots(method: Method, leads: bool) -> None:
    """Where this host leads, by what is logged; elsewhere by what is applied."""
    users, nobody = AuthState(), AuthState()
    users.take([
        user_row(User("root", b"", True, ("root",), 1)), user_row(User("alice", b"", True, (), 1)),
        meta_row(Meta(True, 5)),
    ])
    node = _Node()
    node.settings = SimpleNamespace(shard=0, common=SimpleNamespace(shard_count=1))
    node.writes = SimpleNamespace(leader=SimpleNamespace(auth=users) if leads else None)
    node.guard.state, node.store = nobody if leads else users, None
    link: Any = SimpleNamespace(watches=True)
    for who in (Principal(Kind.SIMPLE, "alice", 5), NOBODY, Principal(Kind.INVALID)):
        with pytest.raises(EtcdError):
            node.admission.take(link, 1, method | SAID, 0, who.encode() + b"request")
    assert (node.taken, node.changes) == ([], [])
    root = Principal(Kind.SIMPLE, "root", 5)
    assert node.admission.take(link, 1, method | SAID, 0, root.encode() + b"request")
    if method == Method.MEMBERS:  # who asks is judged once more when its turn comes
        assert node.changes == [(b"request", root)]
    else:
        assert node.taken == [method]


@pytest.mark.parametrize("method", [Method.LEASE_KEEPALIVE, Method.LEASE_KEEPALIVES, Method.LEASE_TTL])
def test_no_front_asks_about_leases_in_its_own_name(method: Method) -> None:
    """Else clients without rights would keep leases alive through a front that learns late of users."""
    node = _Node()
    asked: list[tuple[int, bytes]] = []
    node.confirmations = SimpleNamespace(ask=lambda link, rid, *question: asked.append(question))
    link: Any = SimpleNamespace(watches=True)
    alice = Principal(Kind.SIMPLE, "alice", 5)
    for who in (FRONT, alice):
        assert node.admission.take(link, 1, method | SAID, 0, who.encode() + b"request")
    assert asked == [(method | SAID, who.encode() + b"request") for who in (NOBODY, alice)]


def test_every_write_that_is_judged_is_judged_where_it_is_evaluated() -> None:
    judged_writes = admission.JUDGED & WRITES
    assert len(judged_writes) > 8
    assert judged_writes <= admission._AT_LEADER


class _Leased:
    """The keys of very many leases."""

    def __init__(self, keys: int) -> None:
        self.looked = 0
        self._keys = keys

    def leased_keys(self, but: Ranges) -> Iterator[bytes]:
        for _ in range(self._keys):
            self.looked += 1
            yield b""
        if but.behind(b"k") == b"k":
            yield b"k"


@pytest.mark.parametrize(
    ("method", "body"), [(Method.LEASE_LEASES, b""), (Method.AUTH_SHOW, bytes((Show.MAY_LIST,)))]
)
@pytest.mark.parametrize("keys", [0, 1_000])
def test_very_many_leases_are_judged_in_steps(method: Method, body: bytes, keys: int) -> None:
    """30,000 of them held the loop for 3 s, whichever user asked."""
    users = AuthState()
    users.take([user_row(User("alice", b"", True, ("r",), 1)), meta_row(Meta(True, 5))])
    node = _Node()
    node.settings = SimpleNamespace(shard=0)
    node.guard.state, leased = users, _Leased(keys)
    node.store = leased
    served: list[int] = []
    submitted: list[Any] = []
    node.serve = SimpleNamespace(reading=lambda inner: lambda *given: served.append(inner))
    node.reads = SimpleNamespace(submit=lambda *given: submitted.append(given[4]))
    alice = Principal(Kind.CERTIFICATE, "alice").encode()
    link: Any = SimpleNamespace(watches=True)
    assert node.admission.take(link, 1, method | SAID, 0, alice + body)
    (judged,) = submitted

    def steps() -> int:
        before = leased.looked
        work = judged(None, 1, 0, body)
        assert leased.looked - before <= 16
        return sum(1 for _ in work or ())

    with pytest.raises(EtcdError):
        steps()
    assert not served
    users.take([role_row(Role("r", (Permission(b"k", b"", READ),)))])
    assert steps() >= keys - 16
    assert served == [method]


class _Front(FrontLink):
    def __init__(self) -> None:
        super().__init__(b"f", lambda parts: True, b"", 1)
        self.answers: list[tuple[int, int, bytes]] = []

    def answer(self, rid: int, status: int, body: bytes) -> None:
        self.answers.append((rid, status, body))


def test_i20_a_read_without_a_name_that_waits_for_a_table_is_judged_when_it_is_served() -> None:
    """Users were enabled meanwhile: it showed what was written then."""
    first = Table.initial(Base(2, 1))
    move = Move(1, b"k", b"k\0", first.owners(b"k", b""), 1 - first.owner(b"k"))
    moved = take_moved(take_move(first, move, 5), Moved(1, True, 5, 0), 5)
    node, loop, served = _Node(), SimpleNamespace(time=lambda: 0.0), list[int]()
    node.settings = SimpleNamespace(shard=0)
    node.reads = Reads(loop, None, lambda link: None, lambda: 3)  # type: ignore[arg-type]
    ranges, part = MagicMock(whole=lambda link, rid, revision, request: served.append(rid)), MagicMock()
    node.serve = Serve(
        node, ranges=ranges, maintenance=part, v2=part, lease_list=part, defragment=part)  # type: ignore[arg-type]
    node.reads.placed(first)
    link = _Front()
    link.placed(moved.encode())
    body = messages.READ.pack(0, 0) + pb.RangeRequest(key=b"k").SerializeToString()
    node.serve.request(link, 1, Method.RANGE, 1000, body)
    assert not link.answers
    node.guard.state.take([meta_row(Meta(True, 5))])
    node.reads.placed(moved)
    assert not served
    ((rid, status, error),) = link.answers
    assert (rid, status, EtcdError.decode(error).kind) == (1, Status.ERROR, errors.USER_EMPTY)
