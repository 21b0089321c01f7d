"""A question to the sequencer is judged by the users that there are when it is answered. A new leader keeps
questions until it serves, and may have in its log, not applied yet, what enables users."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from cluster import errors
from cluster.errors import EtcdError
from cluster.features.auth.principal import SAID, Kind, Principal
from cluster.features.auth.state import READWRITE, Meta, Permission, Role, User, meta_row, role_row, user_row
from cluster.features.rows import Row, RowsOf
from cluster.pb import rpc_pb2 as pb
from cluster.wire.messages import HEAD, Method, Status
from node.serving.auth.guard import Guard
from tests.unit.node.serving.test_keepalives import Sequencer

ROOT = user_row(User("root", b"", True, ("root",), 1))
ALICE = user_row(User("alice", b"", True, ("role",), 1))
KEEP_ALIVE = pb.LeaseKeepAliveRequest(ID=1).SerializeToString()


def role(*permissions: Permission) -> Row:
    return role_row(Role("role", permissions))


class Judging:
    """A sequencer with users: lease 1 has the key "secret"."""

    def __init__(self, *rows: Row) -> None:
        held = [b"secret"]
        store: Any = SimpleNamespace(
            feature_rows=lambda feature: list(rows), lease_keys=lambda lease, limit=0, *, but=None: held)
        self.held = held
        self.guard = Guard(store, SimpleNamespace(links={}), lambda: 7)  # type: ignore[arg-type]
        self.sequencer = Sequencer(judged=self.guard.question)

    def take(self, *rows: Row) -> None:
        self.guard.applied({RowsOf.AUTH: list(rows)})

    def confirmed(self, method: int, body: bytes, *meanwhile: Row) -> tuple[int, bytes]:
        """How a question is answered: its round is confirmed once these rows are applied."""
        asked = self.sequencer
        asked.confirmations.ask(asked.link, 1, method, body)
        self.take(*meanwhile)
        asked.confirmations.run(True)
        asked.confirmations.confirmed(asked.rounds[-1], 5)
        ((_, status, answer),) = asked.answers()
        return status, answer


def refusal(answered: tuple[int, bytes]) -> errors.ErrorKind:
    status, answer = answered
    assert status == Status.ERROR
    return EtcdError.decode(answer).kind


@pytest.mark.parametrize(("method", "body"), [
    (Method.LEASE_TTL, pb.LeaseTimeToLiveRequest(ID=1, keys=True).SerializeToString()),
    (Method.LEASE_TTL, pb.LeaseTimeToLiveRequest(ID=1).SerializeToString()),
    (Method.LEASE_KEEPALIVE, KEEP_ALIVE),
    (Method.LEASE_KEEPALIVES, (1).to_bytes(8, "little")),
])
def test_who_named_nobody_gets_no_answer_once_users_are_enabled(method: Method, body: bytes) -> None:
    judging = Judging(ROOT)
    judging.sequencer.now_ms = 5_000
    assert refusal(judging.confirmed(method, body, meta_row(Meta(True, 5)))) is errors.USER_EMPTY
    assert judging.sequencer.lessor.time_to_live(1, 5_000) == (4, 10), "it is not renewed"


def test_another_shards_node_has_no_user() -> None:
    judging = Judging(ROOT, meta_row(Meta(True, 5)))
    judging.sequencer.link.watches = False
    assert judging.confirmed(Method.LEASE_KEEPALIVE, KEEP_ALIVE)[0] == Status.OK


@pytest.mark.parametrize("may", [True, False])
def test_a_keep_alive_that_waits_for_the_log_is_judged_when_it_is_answered(may: bool) -> None:
    """Its lease is due, and its client loses the right to the lease's keys meanwhile."""
    granted = role(Permission(b"secret", b"", READWRITE))
    judging = Judging(ROOT, ALICE, granted, meta_row(Meta(True, 5)))
    asked = judging.sequencer
    asked.now_ms = 10_000
    who = Principal(Kind.SIMPLE, "alice", 5).encode()
    asked.confirmations.ask(asked.link, 1, Method.LEASE_KEEPALIVE | SAID, who + KEEP_ALIVE)
    asked.confirmations.run(True)
    asked.confirmations.confirmed(asked.rounds[0], 5)
    assert asked.answers() == [], "the log decides"
    if not may:
        judging.take(role())
    asked.lessor.promote(10_000)  # as if the lease lived on: another sequencer has given it time
    asked.confirmations.decided([1])
    ((_, status, answer),) = asked.answers()
    if may:
        assert status == Status.OK
        assert pb.LeaseKeepAliveResponse.FromString(answer[HEAD.size :]).TTL == 10
    else:
        assert refusal((status, answer)) is errors.PERMISSION_DENIED
