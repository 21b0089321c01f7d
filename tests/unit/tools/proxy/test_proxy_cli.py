"""``muster proxy`` as a user meets it, and how it finds its members."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from concurrent import futures
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import grpc
import pytest
import structlog
from structlog.testing import capture_logs

from cluster.pb import rpc_pb2
from cluster.settings import Peer
from tests.authority import Authority
from tests.ports import free_ports
from tools.muster import cli, proxy_cli
from tools.muster.config.parse import ConfigError, resolve
from tools.muster.config.settings import ServerConfig, build
from tools.muster.host.identity import joining
from tools.muster.host.identity.bootstrap import Identity
from tools.muster.host.supervising.children import ChildSpec
from tools.muster.proxy_mode import fronts

TWO = ((1, "a"), (13, "d"))


@contextlib.contextmanager
def members_served(answer: Callable[[bytes, grpc.ServicerContext], object]) -> Iterator[int]:
    """The port of a server that has MemberList alone."""
    server = grpc.server(futures.ThreadPoolExecutor(1))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(
        "etcdserverpb.Cluster", {"MemberList": grpc.unary_unary_rpc_method_handler(answer)}),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield port
    finally:
        server.stop(None).wait()


def told_of_two(*where: object) -> bytes:
    """What a member of a cluster says at its peer port, in which "a" has begun and "d" was added."""
    members = [{"id": f"{n:x}", "name": name, "peer_urls": [f"http://127.0.0.1:{n}"], "learner": False}
               for n, name in TWO]
    return joining.QUESTION + json.dumps(
        {"cluster_id": "7", "shards": 3, "depth": 5, "members": members, "removed": []}).encode()


def test_the_help_of_a_proxy_says_nothing_of_a_member_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["proxy", "--help"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    for words in ("this host", "first hosts", "node 0", "of a new cluster", "${name}"):
        assert words not in text


def test_a_proxy_takes_what_makes_its_members_tokens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Web tokens of members were invalid at a proxy, and the other way round."""
    (tmp_path / "k").write_text("secret")
    web = f"jwt,sign-method=HS256,priv-key={tmp_path / 'k'}"
    ran: list[ServerConfig] = []

    def run(config: ServerConfig, *more: object) -> int:
        ran.append(config)
        return 0

    monkeypatch.setattr(fronts, "run", run)
    monkeypatch.setattr(joining, "asked_in_clear", told_of_two)
    assert proxy_cli.run([
        f"--auth-token={web}", "--auth-token-ttl=60", "--bcrypt-cost=4",
        "--initial-cluster=a=http://127.0.0.1:1", "--log-outputs=/dev/null", f"--data-dir={tmp_path / 'p'}",
        f"--listen-client-urls=http://127.0.0.1:{free_ports(1)[0]}"]) == 0
    values = ran[0].values
    assert (values["auth-token"], values["auth-token-ttl"], values["bcrypt-cost"]) == (web, 60, 4)


def test_a_proxy_asks_listed_members_for_all_of_them_beside_an_empty_list_of_endpoints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It worked out the IDs of its list: no member took it once another one had been added."""
    ran: list[Identity] = []
    monkeypatch.setattr(fronts, "run", lambda config, identity, *_: ran.append(identity) or 0)
    monkeypatch.setattr(joining, "asked_in_clear", told_of_two)
    flags = [
        "--endpoints=", "--initial-cluster=a=http://127.0.0.1:1", "--log-outputs=/dev/null",
        f"--data-dir={tmp_path / 'p'}", f"--listen-client-urls=http://127.0.0.1:{free_ports(1)[0]}"]
    assert proxy_cli.run(flags) == 0
    peers = tuple(Peer(n, name, "127.0.0.1", n, (f"http://127.0.0.1:{n}",)) for n, name in TWO)
    assert ran == [Identity(7, 0, 0, 3, 5, peers)]
    with pytest.raises(ConfigError, match="--shards=1, but this cluster began with 3"):
        proxy_cli.run([*flags, "--shards=1"])


def test_a_proxy_dials_members_with_its_certificate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It knew no such flags, and dialled https members in clear."""
    authority = Authority(tmp_path)
    own = authority.issue("proxy", "127.0.0.1")
    member = Peer(1, "a", "127.0.0.1", 1, ("https://127.0.0.1:1",))
    monkeypatch.setattr(proxy_cli, "members_of", lambda *_: (7, (member,)))
    monkeypatch.setattr(proxy_cli, "layout_of", lambda *_: (1, 3))
    ran: list[ServerConfig] = []
    monkeypatch.setattr(fronts, "run", lambda config, *_: ran.append(config) or 0)
    flags = [
        "--endpoints=127.0.0.1:1", "--log-outputs=/dev/null", f"--data-dir={tmp_path / 'p'}",
        f"--listen-client-urls=http://127.0.0.1:{free_ports(1)[0]}"]
    with pytest.raises(ConfigError, match=r"^cannot dial https://127.0.0.1:1: .*--peer-cert-file"):
        proxy_cli.run(flags)
    assert proxy_cli.run([
        *flags, f"--peer-cert-file={own.cert}", f"--peer-key-file={own.key}",
        f"--peer-trusted-ca-file={authority.file}", "--peer-cert-allowed-cn=a"]) == 0
    tls = ran[0].peer_tls
    assert tls is not None
    assert (tls.cert_file, tls.key_file, tls.trusted_ca_file, tls.allowed_cns) == (
        str(own.cert), str(own.key), str(authority.file), ("a",))


def test_a_proxy_has_a_data_directory_of_its_own() -> None:
    for args in ((), ("--data-dir=",)):
        values = proxy_cli._server_values(resolve(proxy_cli.FLAGS, args, {}))
        assert build(values).data_dir == "proxy.muster"


def test_a_proxy_says_at_once_and_once_of_each_endpoint_that_it_is_not_reached(
    monkeypatch: pytest.MonkeyPatch
) -> None:
    """It said nothing for 30 s, and then gave up."""
    monkeypatch.setattr(proxy_cli, "ASK_LIMIT_S", 0.5)  # two rounds
    endpoints = [f"127.0.0.1:{port}" for port in free_ports(2)]
    with (
        capture_logs() as logs,
        pytest.raises(ConfigError, match=r"no member answered within 0\.5 s; the last: 127\.0\.0\.1:\d+: "),
    ):
        proxy_cli.members_of(endpoints, log=structlog.get_logger())
    assert [(line["event"], line["endpoint"]) for line in logs] == [
        ("cannot reach a member; trying again", endpoint) for endpoint in endpoints]
    assert all("refused" in line["reason"] for line in logs)


@pytest.mark.parametrize("endpoint", ["http://[::1", "http://[::1/x", "[::1"])
def test_an_endpoint_that_is_no_url_is_one_that_does_not_answer(
    monkeypatch: pytest.MonkeyPatch, endpoint: str
) -> None:
    """It ended the proxy with a traceback."""
    monkeypatch.setattr(proxy_cli, "ASK_LIMIT_S", 0.0)
    with pytest.raises(ConfigError, match=r"^no member answered"):
        proxy_cli.members_of([endpoint])


@pytest.mark.parametrize("endpoint", ["foo:bar", "h:99999", "http://[::1", "htps://h:1", "unix:///run/s", "://h:1"])
def test_an_endpoint_that_can_never_answer_ends_a_proxy_at_once(endpoint: str, tmp_path: Path) -> None:
    """It was asked for 30 s, and of an unknown scheme in clear."""
    with pytest.raises(ConfigError, match=r"^--endpoints: .* is no endpoint such as http://10\.0\.0\.1:2379$"):
        proxy_cli.run([f"--endpoints=h:1,{endpoint}", f"--data-dir={tmp_path}", "--log-outputs=/dev/null"])


@pytest.mark.parametrize(("endpoint", "secure"), [("HTTPS://h:1", True), ("Http://h:1", False)])
def test_capitals_of_a_scheme_are_small_letters(endpoint: str, secure: bool) -> None:
    """Such https was asked in clear."""
    assert (proxy_cli.NO_FILES.dialled(endpoint).tls is not None) is secure


def test_an_answer_that_is_no_list_of_members_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proxy_cli, "ASK_LIMIT_S", 0.0)
    with members_served(lambda *_: b"\xff") as port, pytest.raises(ConfigError, match=r"^no member answered"):
        proxy_cli.members_of([f"127.0.0.1:{port}"])


def test_members_that_cannot_be_dialled_keep_no_proxy_from_starting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``member add`` takes their URLs, as etcd's does."""
    urls = [["http://:2380"], ["unixs://h:1"], ["http://:1", "http://127.0.0.1:2"], ["http://127.0.0.1:3"]]
    ran: list[tuple[str, tuple[Peer, ...]]] = []

    def run(config: ServerConfig, identity: Identity, *more: object) -> int:
        ran.append((config.data_dir, identity.peers))
        return 0

    monkeypatch.setattr(fronts, "run", run)
    monkeypatch.setattr(proxy_cli, "layout_of", lambda *_: (1, 3))
    monkeypatch.setattr(proxy_cli, "ASK_LIMIT_S", 0.0)
    flags = [f"--data-dir={tmp_path / 'p'}", "--log-outputs=/dev/null",
             f"--listen-client-urls=http://127.0.0.1:{free_ports(1)[0]}"]
    for known, code in ((urls, 0), (urls[:2], None)):
        members = [rpc_pb2.Member(ID=n, name=f"m{n}", peerURLs=one) for n, one in enumerate(known, 1)]
        told = rpc_pb2.MemberListResponse(members=members).SerializeToString()
        with members_served(lambda *_, told=told: told) as port, (
            contextlib.nullcontext() if code == 0
            else pytest.raises(ConfigError, match="no member with a peer URL that can be dialled")
        ):
            assert proxy_cli.run([*flags, f"--endpoints=127.0.0.1:{port}"]) == code
    assert ran == [(str(tmp_path / "p"), (
        Peer(3, "m3", "127.0.0.1", 2, ("http://127.0.0.1:2",)),
        Peer(4, "m4", "127.0.0.1", 3, ("http://127.0.0.1:3",))))]


def test_a_front_of_a_proxy_that_starts_again_knows_the_members_of_that_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of the proxy's start may all be replaced: it would dial them for ever."""
    monkeypatch.setattr(proxy_cli, "layout_of", lambda *_: (1, 3))
    monkeypatch.setattr(proxy_cli, "REFRESH_S", 0.01, raising=False)
    told: list[bytes] = []

    def answer(peer_port: int, cluster_id: int = 7) -> None:
        url = f"http://127.0.0.1:{peer_port}"
        member = rpc_pb2.Member(ID=peer_port, name="m", peerURLs=[url])
        header = rpc_pb2.ResponseHeader(cluster_id=cluster_id)
        told.append(rpc_pb2.MemberListResponse(header=header, members=[member]).SerializeToString())

    def ask(*_: object) -> bytes:
        """Another cluster's for a moment."""
        return told.pop(0) if len(told) > 1 else told[0]

    def run(
        config: ServerConfig, identity: Identity, log: object, specs: Callable[[str], list[ChildSpec]],
        beside: Callable[[], Coroutine[Any, Any, None]],
    ) -> int:
        first, second = specs("/run")
        assert (port_of(first), port_of(second)) == (1, 1)
        answer(9, cluster_id=8)
        answer(2)
        asyncio.run(until_told(beside(), lambda: port_of(first) != 1))
        assert (port_of(first), port_of(second)) == (2, 2)
        return 0

    monkeypatch.setattr(fronts, "run", run)
    answer(1)
    with members_served(ask) as port:
        assert proxy_cli.run([
            "--fronts=2", f"--data-dir={tmp_path / 'p'}", "--log-outputs=/dev/null",
            f"--listen-client-urls=http://127.0.0.1:{free_ports(1)[0]}",
            f"--endpoints=127.0.0.1:1,127.0.0.1:{port}"]) == 0


def port_of(front: ChildSpec) -> int:
    """Of the one member that a front is told."""
    assert json.loads(front.settings(3)[0])["proxy_failure_wait_ms"] == -1, "it is none of version 2"
    (peer,) = json.loads(front.settings(3)[0])["common"]["peers"]
    port: int = peer["port"]
    return port


async def until_told(beside: Coroutine[Any, Any, None], holds: Callable[[], bool]) -> None:
    """What runs beside fronts, until then."""
    task = asyncio.ensure_future(beside)
    async with asyncio.timeout(10):
        while not holds():
            await asyncio.sleep(0.01)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


def test_a_proxy_of_members_whose_client_urls_serve_grpc_alone_asks_at_their_peer_ports(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``--listen-client-http-urls`` leaves no HTTP at the URLs that members tell."""
    ran: list[tuple[int, int]] = []

    def run(config: ServerConfig, identity: Identity, *more: object) -> int:
        ran.append((identity.shard_count, identity.placement_depth))
        return 0

    def told(host: str, port: int, *more: object) -> bytes:
        if port == 1:
            return b""
        found = {"cluster_id": f"{7 if port == 3 else 8:x}", "shards": port, "depth": 5, "members": [],
                 "removed": []}
        return joining.QUESTION + json.dumps(found).encode()

    monkeypatch.setattr(fronts, "run", run)
    monkeypatch.setattr(joining, "asked_in_clear", told)
    monkeypatch.setattr(proxy_cli, "ASK_LIMIT_S", 0.0)
    flags = [f"--data-dir={tmp_path / 'p'}", "--log-outputs=/dev/null",
             f"--listen-client-urls=http://127.0.0.1:{free_ports(1)[0]}"]
    for ports_of_peers in ((1, 2, 3), (1, 2)):  # silent, of another cluster, a member
        members = [rpc_pb2.Member(ID=n, name=f"m{n}", peerURLs=[f"http://127.0.0.1:{n}"])
                   for n in ports_of_peers]
        header = rpc_pb2.ResponseHeader(cluster_id=7)
        answer = rpc_pb2.MemberListResponse(header=header, members=members).SerializeToString()
        with members_served(lambda *_, answer=answer: answer) as port, (
            contextlib.nullcontext() if 3 in ports_of_peers
            else pytest.raises(ConfigError, match="no member of the cluster answers at its peer port")
        ):
            assert proxy_cli.run([*flags, f"--endpoints=127.0.0.1:{port}"]) == 0
    assert ran == [(3, 5)]


@pytest.mark.parametrize("said", ["no HTTP\r\n", "HTTP/1.0 200 OK\r\n\r\n[]",
                                  'HTTP/1.0 200 OK\r\n\r\n{"shards":null}'])
def test_a_proxy_asks_again_for_shards_where_the_answer_is_none(
    monkeypatch: pytest.MonkeyPatch, said: str
) -> None:
    """Such an answer ended it with a traceback, and any other one with a message at once."""
    monkeypatch.setattr(time, "sleep", lambda _: None)
    answers = [said, 'HTTP/1.0 200 OK\r\n\r\n{"shards":4,"depth":3}']
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            for answer in answers:
                connection, _ = listening.accept()
                with connection:
                    connection.recv(4096)
                    connection.sendall(answer.encode())

        serving = threading.Thread(target=serve, daemon=True)
        serving.start()
        assert proxy_cli.layout_of([f"127.0.0.1:{listening.getsockname()[1]}"]) == (4, 3)
        serving.join()


def test_a_proxy_of_members_with_users_and_without_version_2_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch
) -> None:
    """Members show themselves to users alone then. What version 2 shows: ``tests/cluster/serving``."""
    monkeypatch.setattr(proxy_cli, "ASK_LIMIT_S", 0.0)

    def refuse(request: bytes, context: grpc.ServicerContext) -> None:
        context.abort(grpc.StatusCode.INVALID_ARGUMENT, "etcdserver: user name is empty")

    with (
        members_served(refuse) as port,
        pytest.raises(ConfigError, match=r"user name is empty; /v2/members: .*name the members by "
                                         r"--initial-cluster"),
    ):
        proxy_cli.members_of([f"127.0.0.1:{port}"])


def test_a_proxy_asks_members_through_no_proxy_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No member answered it where one was set, and no_proxy did not name the members."""
    for name in ("grpc_proxy", "https_proxy", "http_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    for name in ("no_grpc_proxy", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(proxy_cli, "ASK_LIMIT_S", 0.0)
    member = rpc_pb2.Member(ID=1, name="a", peerURLs=["http://127.0.0.1:2380"])
    told = rpc_pb2.MemberListResponse(
        header=rpc_pb2.ResponseHeader(cluster_id=7), members=[member]).SerializeToString()
    with members_served(lambda *_: told) as port:
        assert [peer.name for peer in proxy_cli.members_of([f"127.0.0.1:{port}"])[1]] == ["a"]
    pages = {
        "/muster/placement": b'{"shards":4,"depth":3}',
        "/v2/members": b'{"members":[{"id":"1","name":"a","peerURLs":["http://127.0.0.1:2380"]}]}'}

    class Pages(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("X-Etcd-Cluster-Id", "7")
            self.end_headers()
            self.wfile.write(pages[self.path])

    with HTTPServer(("127.0.0.1", 0), Pages) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        endpoint = f"127.0.0.1:{server.server_port}"
        assert proxy_cli.layout_of([endpoint]) == (4, 3)
        assert proxy_cli._public_members_at(endpoint, proxy_cli.NO_FILES)[0] == 7
        server.shutdown()
