"""``--discovery`` at a first start: hosts find each other in a directory of the v2 API."""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import structlog

from tests.authority import Authority, Pair
from tools.muster.config import settings as config
from tools.muster.config.flags import SERVER_FLAGS
from tools.muster.config.parse import ConfigError, resolve
from tools.muster.discovery import directory
from tools.muster.discovery.directory import Directory, DirectoryFailed
from tools.muster.discovery.service import Answer, Node, NotJson, Refused, Service, Unreachable
from tools.muster.host.identity import bootstrap, by_url

A, B, C = "a=http://127.0.0.1:1", "b=http://127.0.0.1:2", "c=http://127.0.0.1:3,c=http://127.0.0.1:4"
LOG = structlog.wrap_logger(structlog.testing.CapturingLogger())


@dataclass
class Store:
    """A directory in memory. ``coming``: what others do while somebody waits; ``lost``: answers that fail."""

    size: str | None = "3"
    base: str = "http://service"
    index: int = 10
    nodes: list[Node] = field(default_factory=list)
    coming: list[Callable[[], None]] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    slept: list[float] = field(default_factory=list)

    def add(self, name: str, value: str) -> Node:
        self.index += 1
        self.nodes.insert(0, Node(name, value, self.index))
        return self.nodes[0]

    def get(self, name: str = "") -> Answer:
        self._fail("get")
        if name == "_config/size":
            if self.size is None:
                raise Refused(100, "100: Key not found (/d) [3]")
            return Answer(self.size, 1, self.index, ())
        if name:
            node = next(n for n in self.nodes if n.name == name)
            return Answer(node.value, node.created, self.index, ())
        return Answer("", 1, self.index, (*self.nodes, Node("_config", "", 1)))

    def create(self, name: str, value: str) -> Answer:
        self._fail("create")
        if any(n.name == name for n in self.nodes):
            raise Refused(105, "105: Key already exists (/d/x) [4]")
        node = self.add(name, value)
        self._fail("created")
        return Answer(value, node.created, self.index, ())

    def wait(self, name: str, index: int) -> None:
        if not name and self.coming:
            self.coming.pop(0)()

    def _fail(self, what: str) -> None:
        if self.lost[:1] == [what]:
            self.lost.pop(0)
            raise Unreachable("connection refused")

    def directory(self, own: str = "aa") -> Directory:
        return Directory(self, own, LOG, self.slept.append)


def failure(store: Store) -> str:
    with pytest.raises(DirectoryFailed) as failed:
        store.directory().join(A)
    return str(failed.value)


def test_a_host_registers_itself_and_waits_for_the_others() -> None:
    store = Store()
    store.coming = [lambda: None, lambda: store.add("bb", B) and None, lambda: store.add("cc", C) and None]
    assert store.directory().join(A) == [
        ("a", "http://127.0.0.1:1"),
        ("b", "http://127.0.0.1:2"),
        ("c", "http://127.0.0.1:3"),
        ("c", "http://127.0.0.1:4"),
    ]
    assert store.slept == [1.0]  # nothing had come


@pytest.mark.parametrize("size", [None, "2", "x"])
def test_the_size_of_the_first_look_holds_while_hosts_wait(size: str | None) -> None:
    """A size with a TTL, or one that was changed, ended hosts that had registered."""
    store = Store()

    def comes() -> None:
        store.size = size
        store.add("bb", B)

    store.coming = [comes, lambda: store.add("cc", C) and None]
    assert [name for name, _ in store.directory().join(A)] == ["a", "b", "c", "c"]


def test_the_first_by_creation_are_the_cluster_and_the_next_finds_it_full() -> None:
    store = Store(size="2")
    store.add("bb", B)
    store.coming = [lambda: store.add("cc", C) and None]
    assert store.directory().join(A) == [("a", "http://127.0.0.1:1"), ("b", "http://127.0.0.1:2")]
    full = Store(size="1")
    full.add("bb", B)
    assert failure(full) == directory.FULL
    assert [n.name for n in full.nodes] == ["bb"], "nobody registers in a full cluster"


def test_who_comes_second_to_the_last_place_finds_it_full_as_well() -> None:
    store = Store(size="1")
    create = store.create

    def late(name: str, value: str) -> Answer:
        store.add("bb", B)
        return create(name, value)

    store.create = late  # type: ignore[method-assign]
    assert failure(store) == directory.FULL


@pytest.mark.parametrize("size", ["x", "", "0", "-1", "3.5", "+3", "³", "9" * 5000])
def test_a_size_that_is_none(size: str) -> None:
    assert failure(Store(size=size)) == directory.BAD_SIZE


def test_what_etcd_refuses_is_refused_in_its_words() -> None:
    assert failure(Store(size=None)) == "discovery: size key not found"
    again = Store()
    again.add("aa", A)
    assert failure(again) == "discovery: found duplicate id"
    for other, wanted in (
        ("a=http://127.0.0.1:2", "discovery: found duplicate name"),
        ("b=ftp://127.0.0.1:2", "discovery: invalid URL"),
        ("http://127.0.0.1:2", "discovery: invalid URL"),
        ("", "discovery: invalid URL"),
    ):
        store = Store(size="2")
        store.add("bb", other)
        assert failure(store) == wanted, other


def test_a_service_that_is_away_is_asked_again_and_less_and_less_often() -> None:
    store = Store(size="1", lost=["get"] * 9)
    assert store.directory().join(A) == [("a", "http://127.0.0.1:1")]
    assert store.slept == [2, 4, 8, 16, 32, 64, 128, 256, 256]


def test_a_registration_whose_answer_was_lost_counts() -> None:
    store = Store(size="1", lost=["created"])
    assert store.directory().join(A) == [("a", "http://127.0.0.1:1")]
    assert [n.value for n in store.nodes] == [A]


def test_another_hosts_registration_under_the_own_id_does_not() -> None:
    store = Store(size="2", lost=["create"])
    store.slept = Slept(lambda: store.add("aa", B) and None)
    assert failure(store) == directory.DUPLICATE_ID


class Slept(list[float]):
    """Something happens in a pause."""

    def __init__(self, meanwhile: Callable[[], None]) -> None:
        super().__init__()
        self._meanwhile = meanwhile

    def append(self, value: float) -> None:
        super().append(value)
        self._meanwhile()


def test_a_proxy_finds_the_cluster_without_an_entry_of_its_own() -> None:
    store = Store(size="2")
    store.add("aa", A)
    store.coming = [lambda: store.add("bb", B) and None]
    assert store.directory("").find() == [("a", "http://127.0.0.1:1"), ("b", "http://127.0.0.1:2")]
    store.add("cc", C)
    assert len(store.directory("").find()) == 2
    assert all(n.name in ("aa", "bb", "cc") for n in store.nodes)


# -- over HTTP


@contextmanager
def serving(
    answers: dict[str, tuple[int, Any]], tls: Pair | None = None
) -> Iterator[tuple[str, list[str]]]:
    """A server with fixed answers by method and path; what it was asked."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            length = int(self.headers.get("Content-Length", "0"))
            line = f"{self.command} {self.path} {self.rfile.read(length).decode()}".strip()
            asked.append(" ".join((line, self.headers.get("Authorization", ""))).strip())
            status, body = answers.get(line, (404, "404 page not found"))
            text = (body if isinstance(body, str) else json.dumps(body)).encode()
            self.send_response(status)
            self.send_header("X-Etcd-Index", "7")
            if status // 100 == 3:
                self.send_header("Location", text.decode())
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        do_PUT = do_GET

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    if tls is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(tls.cert, tls.key)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http{'s' * (tls is not None)}://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        server.server_close()


NODE = {"action": "get", "node": {"key": "/d/t/x", "value": "3", "createdIndex": 5, "modifiedIndex": 5}}
DIRECTORY = {"action": "get", "node": {"key": "/d/t", "dir": True, "createdIndex": 4, "modifiedIndex": 4,
                                       "nodes": [{"key": "/d/t/ab", "value": A, "createdIndex": 6}]}}


def test_requests_are_those_of_etcd() -> None:
    answers = {
        "GET /v2/keys/d/t/_config/size": (200, NODE),
        "GET /v2/keys/d/t": (200, DIRECTORY),
        "PUT /v2/keys/d/t/ab?prevExist=false value=a%3Dhttp%3A%2F%2F127.0.0.1%3A1": (201, NODE),
        "GET /v2/keys/d/t?wait=true&recursive=true&waitIndex=8": (200, NODE),
    }
    with serving(answers) as (url, asked):
        service = Service(f"{url}/v2/keys/d/t/")
        assert service.base == url
        assert service.get("_config/size") == Answer("3", 5, 7, ())
        assert service.get().nodes == (Node("ab", A, 6),)
        assert service.create("ab", A).created == 5
        service.wait("", 8)
        service.wait("ab", 8)  # which is answered with an error: one looks again
        assert asked[:4] == list(answers)
        named = Service(url.replace("//", "//root:p%40w@") + "/v2/keys/d/t")
        named.get()
        assert asked[-1] == "GET /v2/keys/d/t Basic cm9vdDpwQHc="
        assert named.base == url


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_service_may_be_elsewhere(status: int) -> None:
    """A registration ended the start there with "bad discovery endpoint"."""
    read, write = "/t/_config/size", "/t/ab?prevExist=false"
    with serving({f"GET {read}": (200, NODE), f"PUT {write} value=x": (201, NODE)}) as (there, asked):
        moved = {f"GET {read}": (status, there + read), f"PUT {write} value=x": (status, there + write)}
        with serving(moved) as (here, _):
            service = Service(f"{here.replace('//', '//root:p%40w@')}/t")
            assert service.get("_config/size").value == "3"
            assert service.create("ab", "x").created == 5
    assert asked == [f"GET {read} Basic cm9vdDpwQHc=", f"PUT {write} value=x Basic cm9vdDpwQHc="]


def test_a_password_stays_at_its_host() -> None:
    """Any place to which the service pointed was told it."""
    read, write = "/t/_config/size", "/t/ab?prevExist=false"
    with serving({f"GET {read}": (200, NODE), f"PUT {write} value=x": (201, NODE)}) as (there, asked):
        other = there.replace("127.0.0.1", "localhost")
        moved = {f"GET {read}": (307, other + read), f"PUT {write} value=x": (307, other + write)}
        with serving(moved) as (here, first):
            service = Service(f"{here.replace('//', '//root:p%40w@')}/t")
            service.get("_config/size")
            service.create("ab", "x")
    assert asked == [f"GET {read}", f"PUT {write} value=x"]
    assert first == [f"{line} Basic cm9vdDpwQHc=" for line in asked]


def test_a_password_that_was_given_to_https_goes_nowhere_by_http(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = Authority(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
    read = "/t/_config/size"
    with (
        serving({f"GET {read}": (200, NODE)}) as (there, asked),
        serving({f"GET {read}": (307, there + read)}, authority.issue("s", "127.0.0.1")) as (here, _),
    ):
        Service(f"{here.replace('//', '//root:p%40w@')}/t").get("_config/size")
    assert asked == [f"GET {read}"]


def test_a_service_that_sends_around_in_circles_is_none() -> None:
    with serving({"PUT /t/ab?prevExist=false value=x": (307, "/t/ab?prevExist=false")}) as (url, asked):
        with pytest.raises(NotJson):
            Service(f"{url}/t").create("ab", "x")
        assert len(asked) <= 10


def test_a_proxy_of_http_is_asked_in_the_services_place() -> None:
    with serving({"GET http://service.invalid/t/_config/size": (200, NODE)}) as (url, asked):
        for proxy in (url, url.removeprefix("http://")):
            assert Service("http://service.invalid/t", proxy).get("_config/size").value == "3"
    assert len(asked) == 2


def test_a_service_by_https_is_believed_with_the_machines_authorities(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = Authority(tmp_path)
    pair = authority.issue("service", "127.0.0.1")
    with serving({"GET /t/_config/size": (200, NODE)}, pair) as (url, asked):
        with pytest.raises(Unreachable, match="certificate verify failed"):
            Service(f"{url}/t").get("_config/size")
        assert asked == []
        monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
        assert Service(f"{url}/t").get("_config/size").value == "3"


def test_a_common_name_is_no_name_of_a_service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever has a user's certificate of that name could pose as the service."""
    authority = Authority(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
    for pair, believed in (
        (authority.issue("user", common_name="localhost"), False),
        (authority.issue("service", "localhost"), True),
    ):
        with serving({"GET /t/_config/size": (200, NODE)}, pair) as (url, asked):
            service = Service(f"{url.replace('127.0.0.1', 'localhost')}/t")
            if believed:
                assert service.get("_config/size").value == "3"
            else:
                with pytest.raises(Unreachable, match="certificate verify failed"):
                    service.get("_config/size")
            assert bool(asked) == believed


def test_answers_that_are_none() -> None:
    error = {"errorCode": 100, "message": "Key not found", "cause": "/d", "index": 3}
    answers: dict[str, tuple[int, Any]] = {
        "GET /error": (404, error), "GET /text": (200, "<html>"), "GET /other": (200, {"health": "true"}),
        "GET /secret": (401, {"message": "Insufficient credentials"}),
        "GET /deep": (200, "[" * 100_000), "GET /list": (200, []), "GET /down": (503, "{}"),
    }  # fmt: skip
    with serving(answers) as (url, _):
        with pytest.raises(Refused, match=r"^100: Key not found \(/d\) \[3\]$"):
            Service(f"{url}/error").get()
        with pytest.raises(Refused, match=r"^0: Insufficient credentials \(\) \[0\]$"):
            Service(f"{url}/secret").get()
        for path in ("text", "other", "deep", "list", "nowhere"):
            with pytest.raises(NotJson):
                Service(f"{url}/{path}").get()
        with pytest.raises(Unreachable, match=r"returns server error \[503\]"):
            Service(f"{url}/down").get()
    with pytest.raises(Unreachable, match="connection refused"):
        Service(url).get()
    Service(url).wait("", 1)


# -- a host's start


def built(tmp_path: Path, url: str, *more: str, number: int = 0) -> config.ServerConfig:
    flags = (f"--name=h{number}", f"--data-dir={tmp_path / str(number)}", f"--discovery={url}",
             f"--initial-advertise-peer-urls=http://127.0.0.1:{23800 + number}", *more)  # fmt: skip
    return config.build(resolve(SERVER_FLAGS, flags, {}))


def test_hosts_of_one_url_have_the_same_ids_and_those_of_another_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    identities = []
    for url in ("http://one/t", "http://two/t"):
        store = Store(size="2", base=url)
        monkeypatch.setattr(by_url, "Service", lambda url, proxy, store=store: store)
        other = built(tmp_path, url, number=1)

        def comes(other: config.ServerConfig = other) -> None:
            by_url.with_cluster(other, LOG)

        store.coming = [comes]
        settings = by_url.with_cluster(built(tmp_path, url), LOG)
        assert settings.initial_cluster_text == "h0=http://127.0.0.1:23800,h1=http://127.0.0.1:23801"
        bootstrap.prepare_data_dir(settings.data_dir)
        identities.append(bootstrap.identity_of(settings))
        assert {n.name for n in store.nodes} == {f"{p.member_id:x}" for p in identities[-1].peers}
    assert identities[0].cluster_id != identities[1].cluster_id


def test_a_start_that_fails_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(size=None)
    monkeypatch.setattr(by_url, "Service", lambda url, proxy: store)
    with pytest.raises(ConfigError) as failed:
        by_url.with_cluster(built(tmp_path, "http://d/t"), LOG)
    assert str(failed.value) == "failed to join discovery cluster (discovery: size key not found)"
    with pytest.raises(ConfigError, match=r"^discovery URL should not be set when joining existing"):
        by_url.with_cluster(built(tmp_path, "http://d/t", "--initial-cluster-state=existing"), LOG)
    store.size = "2"
    store.add("bb", "b=http://127.0.0.1:23800")
    with pytest.raises(ConfigError, match=r"^discovery cluster b=http.*,h0=http.* has duplicate url$"):
        by_url.with_cluster(built(tmp_path, "http://d/t"), LOG)


def test_the_password_of_a_url_is_in_no_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store()
    monkeypatch.setattr(by_url, "Service", lambda url, proxy: store)
    settings = built(tmp_path, "http://root:secret@d:1/t")
    store.size = None
    with structlog.testing.capture_logs() as lines, pytest.raises(ConfigError) as failed:
        by_url.with_cluster(settings, structlog.get_logger())
    assert lines[0]["event"] == "discovery token http://d:1/t was used, but failed to bootstrap the cluster."
    assert "secret" not in f"{lines} {failed.value}"


@pytest.mark.parametrize(("fallback", "lines"), [("exit", 2), ("proxy", 0)])
def test_who_ends_at_a_full_cluster_is_told_to_take_a_new_token(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fallback: str, lines: int
) -> None:
    store = Store(size="1")
    store.add("bb", B)
    monkeypatch.setattr(by_url, "Service", lambda url, proxy: store)
    settings = built(tmp_path, "http://d/t", f"--discovery-fallback={fallback}")
    with structlog.testing.capture_logs() as logged, pytest.raises(by_url.ClusterFull):
        by_url.with_cluster(settings, structlog.get_logger())
    assert [line["event"] for line in logged if line["log_level"] == "warning"] == [
        "discovery token http://d/t was used, but failed to bootstrap the cluster.",
        "please generate a new discovery token and try to bootstrap again.",
    ][:lines]


@pytest.mark.parametrize(
    "more", ["--initial-cluster=h0=http://127.0.0.1:23800", "--discovery-srv=example.com"]
)
def test_one_way_to_a_cluster_is_enough(tmp_path: Path, more: str) -> None:
    with pytest.raises(ConfigError, match=r"^multiple discovery or bootstrap flags are set"):
        built(tmp_path, "http://d/t", more)


def test_an_empty_list_is_no_way_to_a_cluster(tmp_path: Path) -> None:
    for more in ("--name=h0", "--proxy=on"):
        assert built(tmp_path, "http://d/t", "--initial-cluster=", more).initial_cluster == ()


@pytest.mark.parametrize("url", ["d", "ftp://d/t", "http://", "http://d:x/t", "http:///t", "http://[::1/t"])
def test_a_url_that_is_none_is_refused(tmp_path: Path, url: str) -> None:
    with pytest.raises(ConfigError, match="is no URL of http or https"):
        built(tmp_path, url)


@pytest.mark.parametrize("url", ["ftp://root:secret@d/t", "http://root:secret@[d/t", "root:secret@d/t"])
def test_the_password_of_a_url_that_is_none_is_in_no_error(tmp_path: Path, url: str) -> None:
    with pytest.raises(ConfigError, match="d/t is no URL of http or https") as failed:
        built(tmp_path, url)
    assert "secret" not in str(failed.value)


def test_without_the_flag_nobody_is_asked(tmp_path: Path) -> None:
    settings = config.build(resolve(SERVER_FLAGS, (f"--data-dir={tmp_path}",), {}))
    assert by_url.with_cluster(settings, LOG) is settings
