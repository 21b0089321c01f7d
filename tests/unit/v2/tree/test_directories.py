"""``/new`` makes a directory for hosts that find each other, and refuses what cannot be."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Iterable
from types import SimpleNamespace
from typing import cast

import pytest

from cluster.errors import TIMEOUT, TOO_MANY_REQUESTS, EtcdError
from cluster.features.v2.refusals import Code
from cluster.features.v2.requests import PROVE, Answer, Op, Who, Write
from cluster.features.v2.tree import KEYS
from cluster.features.v2.users import fingerprint
from cluster.wire.messages import Method, Status
from proxy.auth.passwords import Passwords
from proxy.http.requests import HttpRequest
from proxy.v2.directories import Directories, by_token
from proxy.v2.keys import Keys
from proxy.v2.users.credentials import Credentials
from tests.unit.proxy.fakes import Net, Request


class Asked(HttpRequest):
    """Keeps its answer."""

    def __init__(self, query: str, headers: dict[str, str], method: str = "GET") -> None:
        super().__init__(method, "/new", query, headers, b"", "peer")
        self.status = 0
        self.answer = b""

    def start(self, status: int, headers: Iterable[tuple[str, str]] = ()) -> None:
        self.started, self.status = True, status

    def write(self, data: bytes) -> None:
        self.answer += data

    def end(self) -> None:
        self.closed = True


class Front:
    """One with the service, at a node that answers as it is told."""

    def __init__(self) -> None:
        self.net = Net().started()
        keys = Keys(self.net.context)
        context = self.net.context
        self.directories = Directories(context, keys.credentials, keys.feed, lambda size: b"\xab" * size)
        self.feed = keys.feed

    def ask(self, query: str = "", answer: Callable[[Request], None] | None = None, *, secure: bool = False,
            method: str = "GET", host: str = "a.example:2379", password: str = "") -> Asked:  # fmt: skip
        headers = {"host": host} if host else {}
        if password:
            headers["authorization"] = "Basic " + b64encode(f"ann:{password}".encode()).decode()
        request = Asked(query, headers, method)
        request.secure = secure
        self.directories.new(request)
        self.net.run()
        for asked in self.net.nodes[1].take(Method.V2_WRITE):
            assert answer is not None, "nothing was to be written"
            answer(asked)
        self.net.run()
        return request

    def tells(self, code: int = 0) -> Callable[[Request], None]:
        return lambda asked: self.net.nodes[1].ok(asked, 7, Answer(9, b"{}", code).encode())


@pytest.mark.parametrize(("query", "size"), [
    ("", b"3"), ("size=", b"3"), ("size=1", b"1"), ("size=007", b"7"), ("a=b&size=1000", b"1000"),
    ("size=5&size=1", b"5"),
    pytest.param("a=%41&" * 1000 + "size=5", b"3", id="too many names to read"),
])  # fmt: skip
@pytest.mark.parametrize("secure", [False, True])
def test_a_directory_is_made_whose_url_is_answered(query: str, size: bytes, secure: bool) -> None:
    front = Front()
    written: list[Write] = []

    def answer(asked: Request) -> None:
        written.append(Write.decode(asked.body))
        front.tells()(asked)

    request = front.ask(query, answer, secure=secure)
    scheme = "https" if secure else "http"
    token = "ab" * 16
    assert request.status == 200
    assert request.answer == f"{scheme}://a.example:2379/{token}".encode()
    (write,) = written
    assert (write.op, write.value) == (Op.CREATE, size)
    assert write.path == KEYS + f"/_etcd/registry/{token}/_config/size".encode()
    assert front.feed.highest == 9, "who asks here next finds it"


@pytest.mark.parametrize("query", ["size=0", "size=-1", "size=x", "size=1001", "size=99999", "size=%C2%B2"])
def test_a_size_that_cannot_be_is_refused(query: str) -> None:
    assert Front().ask(query).status == 400


@pytest.mark.parametrize("host", ["", "a b", "a/b", "<x>", "a" * 300])
def test_a_request_that_does_not_say_whom_it_asks_is_refused(host: str) -> None:
    assert Front().ask(host=host).status == 400


def test_only_some_methods_make_one() -> None:
    assert Front().ask(method="DELETE").status == 405
    front = Front()
    assert front.ask(method="PUT", answer=front.tells()).status == 200


@pytest.mark.parametrize(("code", "status"), [(PROVE, 401), (int(Code.UNAUTHORIZED), 401), (105, 503)])
def test_who_may_not_write_makes_none(code: int, status: int) -> None:
    front = Front()
    request = front.ask(answer=front.tells(code))
    assert (request.status, request.answer) == (status, b"Unable to generate token\n")


@pytest.mark.parametrize(("password", "status", "asked"), [("right", 200, 2), ("wrong", 401, 1)])
def test_a_password_is_compared_before_a_directory_is_refused(password: str, status: int, asked: int) -> None:
    front = Front()

    def check(request: Asked, given: bytes, known: bytes, then: Callable[[bool], None]) -> None:
        assert known == b"hash"
        then(given == b"right")

    front.directories = Directories(
        front.net.context, Credentials(cast(Passwords, SimpleNamespace(check=check))), front.feed,
        lambda size: b"\xab" * size)  # fmt: skip
    written: list[Write] = []

    def judge(request: Request) -> None:
        written.append(Write.decode(request.body))
        proven = written[-1].who == Who(b"ann", fingerprint(b"hash"))
        answer = Answer(9, b"{}") if proven else Answer(9, b"hash", PROVE)
        front.net.nodes[1].ok(request, 7, answer.encode())

    request = front.ask(answer=judge, password=password)
    front.net.run()
    for again in front.net.nodes[1].take(Method.V2_WRITE):
        judge(again)
    front.net.run()
    assert (request.status, len(written)) == (status, asked)


def test_a_directory_is_refused_while_too_many_passwords_are_compared() -> None:
    front = Front()

    def check(request: Asked, given: bytes, known: bytes, then: Callable[[bool], None]) -> None:
        raise EtcdError(TOO_MANY_REQUESTS)

    front.directories = Directories(
        front.net.context, Credentials(cast(Passwords, SimpleNamespace(check=check))), front.feed,
        lambda size: b"\xab" * size)  # fmt: skip
    known = Answer(9, b"hash", PROVE).encode()
    request = front.ask(answer=lambda asked: front.net.nodes[1].ok(asked, 7, known), password="right")
    assert request.status == 503


def test_without_a_leader_that_answers_there_is_none() -> None:
    front = Front()
    node = front.net.nodes[1]

    def fails(asked: Request) -> None:
        node.answer(asked.rid, Status.ERROR, EtcdError(TIMEOUT).encode())

    assert front.ask(answer=fails).status == 503


def test_users_of_version_3_are_none_of_version_2s() -> None:
    front = Front()
    front.net.context.principals.enabled = True
    assert front.ask().status == 401


@pytest.mark.parametrize(("path", "at"), [
    ("/" + "ab" * 16, "/v2/keys/_etcd/registry/" + "ab" * 16),
    ("/" + "ab" * 20 + "/_config/size", "/v2/keys/_etcd/registry/" + "ab" * 20 + "/_config/size"),
    ("/" + "ab" * 16 + "x", None), ("/" + "AB" * 16, None), ("/x/" + "ab" * 16, None), ("/ab", None),
])  # fmt: skip
def test_a_token_stands_for_its_directory(path: str, at: str | None) -> None:
    asked: list[str] = []
    serve = by_token(lambda request: asked.append(request.path))(path)
    assert (serve is None) is (at is None)
    if serve is not None:
        request = Asked("", {})
        request.path = path
        serve(request)
        assert asked == [at]
