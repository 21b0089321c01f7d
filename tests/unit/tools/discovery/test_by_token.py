"""``--discovery-token`` at a first start: hosts find each other by keys of version 3."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
import structlog

from cluster.pb import rpc_pb2 as pb
from tests.authority import Authority
from tests.cluster.local_cluster import until
from tests.ports import free_ports
from tools.client.channels import Config
from tools.muster.config import settings as config
from tools.muster.config.flags import SERVER_FLAGS
from tools.muster.config.parse import ConfigError, resolve
from tools.muster.discovery.directory import Directory, DirectoryFailed
from tools.muster.discovery.registry import Registry
from tools.muster.discovery.service import Refused, Unreachable
from tools.muster.host.identity import by_url

LOG = structlog.wrap_logger(structlog.testing.CapturingLogger())
AT = b"/_etcd/registry/t/"
PATIENT_MS = 30_000


class Store:
    """As much of etcd's API as is asked for, over real gRPC."""

    def __init__(self, credentials: grpc.ServerCredentials | None = None) -> None:
        self.rows: dict[bytes, tuple[bytes, int]] = {}  # value, create revision
        self.revision = 1
        self.password = ""  # of the user u; "": there are no users
        self._server = grpc.server(ThreadPoolExecutor(4), handlers=self._handlers())
        (self.port,) = free_ports(1)
        at = f"127.0.0.1:{self.port}"
        if credentials is not None:
            assert self._server.add_secure_port(at, credentials) == self.port
        else:
            assert self._server.add_insecure_port(at) == self.port
        self._server.start()

    def stop(self) -> None:
        self._server.stop(None).wait()

    def put(self, key: bytes, value: bytes) -> None:
        self.revision += 1
        self.rows[key] = value, self.rows[key][1] if key in self.rows else self.revision

    def _handlers(self) -> list[Any]:
        def method(request: Any, answer: Callable[[Any, grpc.ServicerContext], Any]) -> Any:
            return grpc.unary_unary_rpc_method_handler(
                answer, request.FromString, lambda m: m.SerializeToString())

        keys = {"Range": method(pb.RangeRequest, self._range), "Put": method(pb.PutRequest, self._put)}
        users = {"Authenticate": method(pb.AuthenticateRequest, self._authenticate)}
        return [
            grpc.method_handlers_generic_handler("etcdserverpb.KV", keys),
            grpc.method_handlers_generic_handler("etcdserverpb.Auth", users),
        ]

    def _judge(self, context: grpc.ServicerContext) -> None:
        if self.password and ("token", "good") not in [tuple(m) for m in context.invocation_metadata()]:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "etcdserver: user name is empty")

    def _range(self, request: Any, context: grpc.ServicerContext) -> Any:
        self._judge(context)
        end = request.range_end or request.key + b"\0"
        found = pb.RangeResponse()
        found.header.revision = self.revision
        for key, (value, revision) in sorted(self.rows.items()):
            if request.key <= key < end:
                found.kvs.add(key=key, value=value, create_revision=revision)
        return found

    def _put(self, request: Any, context: grpc.ServicerContext) -> Any:
        self._judge(context)
        self.put(request.key, request.value)
        return pb.PutResponse(header=pb.ResponseHeader(revision=self.revision))

    def _authenticate(self, request: Any, context: grpc.ServicerContext) -> Any:
        if not self.password:
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, "etcdserver: authentication is not enabled")
        if (request.name, request.password) != ("u", self.password):
            said = "etcdserver: authentication failed, invalid user ID or password"
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, said)
        return pb.AuthenticateResponse(token="good")


@pytest.fixture
def store() -> Iterator[Store]:
    made = Store()
    yield made
    made.stop()


def patient(*endpoints: str, **more: Any) -> Registry:
    return Registry(Config(endpoints, dial_timeout_ms=PATIENT_MS, **more), "t", PATIENT_MS)


def registry(store: Store, **more: Any) -> Registry:
    return patient(f"http://127.0.0.1:{store.port}", **more)


def directory(store: Store, own: str, sleep: Callable[[float], None] = lambda _: None) -> Directory:
    return Directory(registry(store), own, LOG, sleep, again=True)


def test_keys_are_those_of_etcd(store: Store) -> None:
    store.put(AT + b"_config/size", b"2")
    store.put(AT + b"members/bb", b"b=http://127.0.0.1:2")
    store.put(AT + b"members/cc", b"nothing")
    store.put(b"/_etcd/registry/t2/members/dd", b"d=http://127.0.0.1:3")
    assert directory(store, "aa").join("a=http://127.0.0.1:1") == [
        ("a", "http://127.0.0.1:1"),
        ("b", "http://127.0.0.1:2"),
    ]
    assert store.rows[AT + b"members/aa"][0] == b"a=http://127.0.0.1:1"


def test_a_host_waits_for_the_others(store: Store) -> None:
    store.put(AT + b"_config/size", b"2")
    slept: list[float] = []

    def comes(seconds: float) -> None:
        slept.append(seconds)
        store.put(AT + b"members/bb", b"b=http://127.0.0.1:2")

    assert len(directory(store, "aa", comes).join("a=http://127.0.0.1:1")) == 2
    assert slept == [1.0]


def test_a_host_that_is_registered_may_come_again_and_keeps_its_place(store: Store) -> None:
    store.put(AT + b"_config/size", b"1")
    for _ in range(2):
        assert directory(store, "aa").join("a=http://127.0.0.1:1") == [("a", "http://127.0.0.1:1")]
    with pytest.raises(DirectoryFailed, match="cluster is full"):
        directory(store, "bb").join("b=http://127.0.0.1:2")
    assert AT + b"members/bb" not in store.rows


@pytest.mark.parametrize(("size", "member", "reason"), [
    (None, None, "discovery: size key not found"),
    (b"x", None, "discovery: size key is bad"),
    (b"0", None, "discovery: size key is bad"),
    (b"2", b"b=ftp://127.0.0.1:2", "discovery: invalid peer URL"),
])  # fmt: skip
def test_what_cannot_be_is_refused_in_etcds_words(
    store: Store, size: bytes | None, member: bytes | None, reason: str
) -> None:
    if size is not None:
        store.put(AT + b"_config/size", size)
    if member is not None:
        store.put(AT + b"members/bb", member)
    with pytest.raises(DirectoryFailed) as failed:
        directory(store, "aa").join("a=http://127.0.0.1:1")
    assert str(failed.value) == reason


def test_a_user_is_believed_by_a_password(store: Store) -> None:
    assert registry(store, user="u:secret").get().nodes == ()  # there are no users: the name is for nothing
    store.password = "secret"
    for more in ({"user": "u:secret"}, {"user": "u", "password": "secret"}):
        registry(store, **more).create("aa", "a=http://127.0.0.1:1")
        assert [n.name for n in registry(store, **more).get().nodes] == ["aa"]
    for wrong, reason in (({}, "user name is empty"), ({"user": "u:wrong"}, "authentication failed")):
        with pytest.raises(Refused, match=reason):
            registry(store, **wrong).get()


def test_one_endpoint_that_answers_is_enough(store: Store) -> None:
    (nobody,) = free_ports(1)
    both = (f"127.0.0.1:{nobody}", f"127.0.0.1:{store.port}")
    one = Registry(Config(both, dial_timeout_ms=300), "t", PATIENT_MS)
    store.put(AT + b"_config/size", b"1")

    def size() -> str:
        with contextlib.suppress(Unreachable):  # it has as little time to connect
            return one.get("_config/size").value
        return ""

    assert until(size) == "1"
    none = Registry(Config((f"127.0.0.1:{nobody}",), dial_timeout_ms=300), "t")
    with pytest.raises(Unreachable, match="no connection in time"):
        none.get()


def test_tls_is_spoken_where_it_is_wanted(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    pair = authority.issue("server", "127.0.0.1")
    credentials = grpc.ssl_server_credentials([(pair.key.read_bytes(), pair.cert.read_bytes())])
    store = Store(credentials)
    try:
        store.put(AT + b"_config/size", b"5")
        at = f"127.0.0.1:{store.port}"
        ca = str(authority.file)
        for endpoint, more in ((f"https://{at}", {"cacert": ca}), (at, {"cacert": ca}),
                               (at, {"insecure_transport": False, "skip_verify": True})):  # fmt: skip
            assert patient(endpoint, **more).get("_config/size").value == "5"
        unlimited = Registry(Config((f"https://{at}",), cacert=ca, dial_timeout_ms=0), "t", PATIENT_MS)
        assert unlimited.get("_config/size").value == "5"
        with pytest.raises(Unreachable):
            Registry(Config((f"https://{at}",), dial_timeout_ms=500), "t").get()
        with pytest.raises(Refused, match="no such file"):
            patient(at, cacert=str(tmp_path / "none")).get()
    finally:
        store.stop()


def built(tmp_path: Path, *flags: str) -> config.ServerConfig:
    own = ("--name=h0", f"--data-dir={tmp_path}", "--initial-advertise-peer-urls=http://127.0.0.1:23800")
    return config.build(resolve(SERVER_FLAGS, (*own, *flags), {}))


TOKEN, ENDPOINTS = "--discovery-token=t", "--discovery-endpoints=http://127.0.0.1:1"


def test_a_start_by_a_token_has_the_token_in_its_ids(store: Store, tmp_path: Path) -> None:
    store.put(AT + b"_config/size", b"1")
    settings = built(tmp_path, TOKEN, f"--discovery-endpoints=http://127.0.0.1:{store.port}",
                     "--discovery-dial-timeout=30s", "--discovery-request-timeout=30s")  # fmt: skip
    found = by_url.with_cluster(settings, LOG)
    assert found.initial_cluster_text == "h0=http://127.0.0.1:23800"
    assert found.initial_cluster_token == "t"
    (key,) = [key for key in store.rows if b"members" in key]
    store.put(AT + b"_config/size", b"0")
    with pytest.raises(ConfigError) as failed:
        by_url.with_cluster(settings, LOG)
    assert str(failed.value) == "failed to join discovery cluster (discovery: size key is bad)"
    assert [k for k in store.rows if b"members" in k] == [key]


@pytest.mark.parametrize(("flags", "reason"), [
    ((TOKEN,), "both --discovery-token and --discovery-endpoints must be set"),
    ((ENDPOINTS,), "both --discovery-token and --discovery-endpoints must be set"),
    ((TOKEN, ENDPOINTS, "--discovery=http://a/b"), "multiple discovery or bootstrap flags are set."),
    ((TOKEN, ENDPOINTS, "--discovery-srv=a.b"), "multiple discovery or bootstrap flags are set."),
    ((TOKEN, ENDPOINTS, "--discovery-proxy=http://a"), "both v2 discovery settings"),
])  # fmt: skip
def test_flags_that_do_not_go_together_are_refused(
    tmp_path: Path, flags: tuple[str, ...], reason: str
) -> None:
    with pytest.raises(ConfigError) as failed:
        built(tmp_path, *flags)
    assert str(failed.value).startswith(reason)


def test_pings_come_no_closer_than_grpc_allows(tmp_path: Path) -> None:
    """The flag's default is 2 s, and a server may end connections of such clients."""
    assert by_url._registry(built(tmp_path, TOKEN, ENDPOINTS))._config.keepalive_ms == 10_000
    longer = built(tmp_path, TOKEN, ENDPOINTS, "--discovery-keepalive-time=1m")
    assert by_url._registry(longer)._config.keepalive_ms == 60_000
