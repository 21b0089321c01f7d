"""A login reads the hash, compares, and reads again: which changes meanwhile make it compare anew."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from cluster import errors
from cluster.features.auth.reads import Login
from cluster.features.auth.tokens import Token, verify
from cluster.pb import rpc_pb2 as pb
from cluster.wire.messages import Method
from proxy.auth.shown import Principals, SimpleTokens
from proxy.services.table import register_all
from tests.unit.proxy.fakes import FakeCall, Net
from tests.unit.proxy.served import Methods

SECRET = b"s" * 32


class Front:
    """At which users or roles change between any two reads."""

    def __init__(self) -> None:
        self.net = Net(shards=1).started()
        self.net.context.principals = Principals(SimpleTokens(300.0))
        self.net.context.passwords = SimpleNamespace(check=self._check)  # type: ignore[assignment]
        self.revision = 10
        self.compared: list[bytes] = []

    def _check(self, call: object, password: str, known: bytes, then: Callable[[bool], None]) -> None:
        self.compared.append(known)
        then(True)

    def log_in(self, hashes: Callable[[int], bytes]) -> FakeCall:
        """``hashes``: that of the user, by the auth revision."""
        call, methods = FakeCall(), Methods()
        register_all(methods, self.net.context)
        asks: Any = methods.handlers["Authenticate"]
        asks(call, pb.AuthenticateRequest(name="a", password="b").SerializeToString())
        while not call.closed:
            self.net.run()
            taken = self.net.nodes[1].take()
            assert taken, "it waits for nothing"
            for asked in taken:
                if asked.method == Method.READ_INDEX:
                    self.net.nodes[1].index(asked, 1)
                    continue
                self.revision += 1
                login = Login(self.revision, False, SECRET, hashes(self.revision))
                self.net.nodes[1].ok(asked, tail=login.encode())
            self.net.run()
        return call


@pytest.fixture
def front() -> Front:
    return Front()


def token_of(call: FakeCall) -> Token | None:
    (reply,) = call.replies
    return verify(SECRET, pb.AuthenticateResponse.FromString(reply).token)


def test_changes_of_others_cost_a_login_nothing(front: Front) -> None:
    """Twenty changes a second of any user or role refused all logins, after ten comparisons each."""
    token = token_of(front.log_in(lambda revision: b"hash"))
    assert token is not None
    assert (token.user, token.revision) == ("a", 12)  # that of the second read: no older change voids it
    assert front.compared == [b"hash"]


def test_a_password_that_is_replaced_meanwhile_is_compared_again(front: Front) -> None:
    token = token_of(front.log_in(lambda revision: b"old" if revision == 11 else b"new"))
    assert token is not None
    assert token.revision == 13
    assert front.compared == [b"old", b"new"]


def test_one_that_is_replaced_all_the_time_ends_the_login(front: Front) -> None:
    call = front.log_in(lambda revision: b"%d" % revision)
    assert call.status == (errors.TIMEOUT.code, errors.TIMEOUT.text)
    assert len(front.compared) == 10
