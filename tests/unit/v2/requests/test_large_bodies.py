"""Large bodies of JSON hold the loop of a front no longer than small ones (proxy.v2)."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from cluster import errors
from cluster.features.v2.requests import Answer
from cluster.wire.messages import HEAD
from proxy.gateway import go_json
from proxy.http.http2 import Limits
from proxy.http.http2_requests import HttpStream
from proxy.http.requests import HttpRequest
from proxy.v2.members import Members, peer_urls
from proxy.v2.users.auth import Auth
from proxy.v2.users.bodies import BadBody, role_of, user_of
from tests.garbage import no_garbage
from tests.unit.v2.requests.plain_host import HOST, Host, get, put

COMMON = SimpleNamespace(cluster_id=1, max_request_bytes=1 << 21)


class Asked(HttpRequest):
    """Keeps its answer."""

    said: tuple[int, bytes] = (0, b"")

    def respond(self, status: int, body: bytes, *_: Any, **__: Any) -> None:
        self.said = status, body


def asked(method: str, path: str, body: bytes) -> Asked:
    return Asked(method, path, "", {"content-type": "application/json"}, body, "")


def context() -> Any:
    router = SimpleNamespace(v2_news=None)
    return SimpleNamespace(
        router=router, common=COMMON, settings=SimpleNamespace(strict_reconfig_check=True),
        principals=SimpleNamespace(enabled=True), passwords=None)


def test_a_large_body_about_members_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proxy.v2.members.peer_urls", None)
    root: Any = SimpleNamespace(if_root=lambda request, then: then())
    members = Members(context(), root)
    for method, path in (("POST", "/v2/members"), ("PUT", "/v2/members/1")):
        request = asked(method, path, b'{"peerURLs":[' + b"1," * 10_000)
        members.serve(request)
        assert request.said[0] == 500
        assert errors.REQUEST_TOO_LARGE.text.encode() in request.said[1]


def test_a_large_body_about_users_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    auth = Auth(context(), None, None)  # type: ignore[arg-type]
    judged, found = list[str](), asked("PUT", "/v2/auth/users/a", b" " * 80_000)
    auth.users(found)
    assert found.said[0] == 401, "the client is judged first, as in etcd"
    monkeypatch.setattr(auth, "if_root", lambda request, then: (judged.append(request.path), then()))
    for serve, path in ((auth.users, "/v2/auth/users/a"), (auth.roles, "/v2/auth/roles/a")):
        request = asked("PUT", path, b'{"grant":[' + b"1," * 40_000)
        serve(request)
        assert request.said[0] == 500
        assert errors.REQUEST_TOO_LARGE.text.encode() in request.said[1]
    assert len(judged) == 2


def test_nothing_of_a_request_of_root_is_left_to_the_garbage_collector() -> None:
    """Its body may be of megabytes."""
    found: list[Any] = []
    router = SimpleNamespace(v2_news=None, read=lambda *asked: found.append(asked[-1]))
    made: Any = SimpleNamespace(
        router=router, common=COMMON, principals=SimpleNamespace(enabled=False), passwords=None)
    credentials: Any = SimpleNamespace(of=lambda request: None)
    feed: Any = SimpleNamespace(needed=lambda: 0, shown=lambda at: None)
    auth = Auth(made, credentials, feed)
    with no_garbage("proxy", "tests"):
        request = asked("POST", "/v2/members", b"x")
        auth.if_root(request, lambda to=request: to.respond(415, b""))  # type: ignore[misc]
        found.pop()(None, 0, bytes(HEAD.size) + Answer(7, b"", 200).encode())
        assert request.said[0] == 415
        del request


def test_broken_bodies_are_walked_for_an_error_that_is_told_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    walked: list[str] = []
    walk = go_json.mistake

    def counted(*asked: Any) -> str:
        walked.append("")
        return walk(*asked)

    monkeypatch.setattr(go_json, "mistake", counted)
    for read in (user_of, role_of):
        with pytest.raises(BadBody):
            read(b'{"grant":[1,')
    assert not walked, "nobody is told Go's error about it"
    with pytest.raises(go_json.Mistake, match="unexpected end"):
        peer_urls(b'{"peerURLs":[1,')
    assert len(walked) == 1


@pytest.mark.parametrize("chunked", [False, True])
def test_a_form_that_is_too_large_is_refused_in_words_of_version_2(chunked: bool) -> None:
    host = Host()
    host.connect(Limits(max_body_bytes=11 << 20))
    json = HOST + b"Content-Type: application/json\r\n"
    for sent, line, said in (
        (put("/big", b"value=" + b"a" * (12 << 20)), b"HTTP/1.1 400 ", b'"cause":"http: POST too large"'),
        (put("/big", b" " * (12 << 20), json), b"HTTP/1.1 201 ", b'"key":"/big","value":""'),
        (get("/big"), b"HTTP/1.1 200 ", b'"key":"/big","value":""'),
    ):
        if chunked and b"\r\n\r\n" in sent and sent[:3] == b"PUT":
            head, _, body = sent.partition(b"\r\n\r\n")
            head = head.rpartition(b"\r\n")[0] + b"\r\nTransfer-Encoding: chunked\r\n\r\n"
            sent = head + b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
        answer = host.send(*(sent[at : at + (1 << 18)] for at in range(0, len(sent), 1 << 18)))  # reads
        assert answer.startswith(line)
        assert said in answer


def test_of_a_body_over_http2_that_is_too_long_for_a_form_the_rest_is_dropped() -> None:
    taken: list[HttpRequest] = []
    block: Any = SimpleNamespace(
        method=b"PUT", path=b"/v2/keys/a", authority=b"", fields=[], field=lambda _: b"",
        route=SimpleNamespace(early=False, handler=taken.append))
    owner = SimpleNamespace(address="", secure=False, name=None)
    connection: Any = SimpleNamespace(
        buffered=0, limits=Limits(max_body_bytes=100, max_buffered_bytes=200), owner=owner,
        refuses=lambda size: False)
    stream = HttpStream.__new__(HttpStream)
    stream.connection, stream.headers, stream._body = connection, block, bytearray()
    stream._request = stream.take = None
    for number in range(10):
        stream.received(b"x" * 50, number == 9)
    assert [request.body for request in taken] == [b"x" * 100]
    assert connection.buffered == 0
