"""Authorities that Go's clients take, and so muster's."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest
import trustme
from muster_client import Tls
from muster_client.v2 import http as library_v2
from muster_client.wire.endpoints import trusting

from bench.client import Client, parse_endpoint, tls_context
from cluster.pb import rpc_pb2
from cluster.settings import PeerTls
from cluster.settings import Tls as ServerTls
from proxy.grpc.registry import Registry
from proxy.tls import Credentials
from tests.authority import Authority, replace
from tests.unit.grpc.harness import serving
from tools.client import files
from tools.muster import proxy_cli
from tools.muster.config.parse import ConfigError
from tools.muster.machine.zmtp.tls import PeerCredentials
from tools.musterctl.v2 import client as musterctl_v2

ROOT = Path(__file__).parents[3]


def peers(ca: str) -> ssl.SSLContext:
    """What a host dials another by."""
    folder = Path(ca).parent
    mine = trustme.CA().issue_cert("me")
    mine.private_key_pem.write_to_path(folder / "key.pem")
    mine.cert_chain_pems[0].write_to_path(folder / "cert.pem")
    settings = PeerTls(
        str(folder / "cert.pem"), str(folder / "key.pem"), client_cert_auth=True, trusted_ca_file=ca
    )
    return PeerCredentials(settings).for_dialling()


CLIENTS: dict[str, Callable[[str], ssl.SSLContext | None]] = {
    "peers": peers,
    "all others": trusting,
    "library": lambda ca: Tls(ca=ca).context(),
    "library, version 2": lambda ca: library_v2._context(Tls(ca=ca)),
    "musterctl": lambda ca: files.Files(files.Tls(cacert=ca)).context(),
    "musterctl, version 2": lambda ca: musterctl_v2._context("", "", ca),
    "proxy": lambda ca: proxy_cli.Files(cacert=ca).context("https://localhost"),
    "bench": lambda ca: tls_context(cacert=ca),
}


def shake(server: ssl.SSLContext, client: ssl.SSLContext) -> str:
    """A handshake in memory: the number of the client's certificate. SSLError."""
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    sides = (client.wrap_bio(back, there, server_hostname="localhost"),
             server.wrap_bio(there, back, server_side=True))
    done: set[int] = set()
    while len(done) < 2:
        for number, side in enumerate(sides):
            try:
                side.do_handshake()
                done.add(number)
            except ssl.SSLWantReadError:
                pass
    return str((sides[1].getpeercert() or {}).get("serialNumber", ""))


@pytest.mark.parametrize("version", [2, 3])
def test_a_new_certificate_of_a_user_is_shown_where_musterctl_dials_next(
    version: int, tmp_path: Path
) -> None:
    """It showed the first one for ever, also once that was expired."""
    authority = Authority(tmp_path)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    served = authority.issue("server", "localhost")
    server.load_cert_chain(served.cert, served.key)
    server.load_verify_locations(authority.file)
    server.verify_mode = ssl.CERT_REQUIRED
    pair, other = authority.issue("me", "me"), authority.issue("other", "me")
    names = str(pair.cert), str(pair.key), str(authority.file)
    made = musterctl_v2._tls(*names) if version == 2 else files.Files(files.Tls(*names))
    assert made is not None
    assert int(shake(server, made.context()), 16) == (first := pair.serial)
    replace(pair.key, other.key.read_bytes())
    assert int(shake(server, made.context()), 16) == first  # half of a pair
    replace(pair.cert, other.cert.read_bytes())
    assert int(shake(server, made.context()), 16) == other.serial


@pytest.mark.parametrize("name", CLIENTS)
def test_an_intermediate_authority_alone(name: str, tmp_path: Path) -> None:
    lower = trustme.CA().create_child_ca()
    lower.cert_pem.write_to_path(tmp_path / "lower.pem")
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    lower.issue_cert("localhost").configure_cert(server)
    trustme.CA().cert_pem.write_to_path(tmp_path / "other.pem")
    client = CLIENTS[name](str(tmp_path / "lower.pem"))
    assert client is not None
    shake(server, client)
    stranger = CLIENTS[name](str(tmp_path / "other.pem"))
    assert stranger is not None
    with pytest.raises(ssl.SSLCertVerificationError):
        shake(server, stranger)


@pytest.mark.parametrize("name", CLIENTS)
def test_a_common_name_is_no_servers_name(name: str, tmp_path: Path) -> None:
    """A user of that name, by the authority of users and servers, could pose as the server."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    client = CLIENTS[name](str(tmp_path / "ca.pem"))
    assert client is not None
    for hosts in ((), ("localhost",)):
        server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert(*hosts, common_name="localhost").configure_cert(server)
        if hosts:
            shake(server, client)
        else:
            with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
                shake(server, client)


@pytest.mark.parametrize("hosts", [(), ("localhost",)])
def test_a_proxy_takes_no_common_name_for_a_members(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hosts: tuple[str, ...]
) -> None:
    """It asks by gRPC, and grpcio takes one."""
    monkeypatch.setattr(proxy_cli, "ASK_LIMIT_S", 0.0)
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    pair = authority.issue_cert(*hosts, common_name="localhost")
    told = rpc_pb2.MemberListResponse(
        header=rpc_pb2.ResponseHeader(cluster_id=7),
        members=[rpc_pb2.Member(ID=1, name="a", peerURLs=["http://127.0.0.1:2380"])],
    ).SerializeToString()
    registry = Registry()
    registry.unary("/etcdserverpb.Cluster/MemberList", lambda call, data: call.reply(told))
    pair.private_key_pem.write_to_path(tmp_path / "key.pem")
    pair.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    credentials = Credentials(ServerTls(str(tmp_path / "cert.pem"), str(tmp_path / "key.pem")))
    with (
        serving(registry, tls=credentials) as running,
        contextlib.nullcontext()
        if hosts
        else pytest.raises(ConfigError, match="certificate verify failed: Hostname mismatch"),
    ):
        endpoint = f"https://localhost:{running.port}"
        found = proxy_cli.members_of([endpoint], proxy_cli.Files(cacert=str(tmp_path / "ca.pem")))
        assert found[0] == 7


def test_what_the_load_tool_cannot_use_is_named(tmp_path: Path) -> None:
    """It told of "No such file or directory" alone, and of a wrong version number."""
    no_cert = tmp_path / "cert"
    no_cert.write_text("none")
    with pytest.raises(OSError, match="/none"):
        tls_context(cacert="/none")
    with pytest.raises(OSError, match=str(no_cert)):
        tls_context(cert=str(no_cert))
    with serving(Registry()) as clear:
        endpoint = f"127.0.0.1:{clear.port}"
        with pytest.raises(ssl.SSLError, match=f"{endpoint}: "):
            asyncio.run(Client.open([parse_endpoint(f"https://{endpoint}")]))


def test_no_client_has_the_default_context() -> None:
    """That of Python 3.13 refuses authorities without key usage, as ``openssl req -x509`` makes them."""
    assert not trusting("").verify_flags & ssl.VERIFY_X509_STRICT
    assert not [str(path) for package in ("cluster", "node", "proxy", "tools", "bench", "muster")
                for path in (ROOT / package).rglob("*.py")
                if "create_default_context" in path.read_text(encoding="utf-8")]


def test_a_name_that_nobody_resolves_holds_a_proxy_no_longer_than_any_silent_member(
    monkeypatch: pytest.MonkeyPatch
) -> None:
    over = threading.Event()

    def unanswered(*given: object, **more: object) -> NoReturn:
        over.wait(30)
        raise socket.gaierror(socket.EAI_AGAIN, "no answer")

    monkeypatch.setattr(socket, "getaddrinfo", unanswered)
    monkeypatch.setattr("muster_client.wire.http2.dialing.DIAL_S", 0.1)
    monkeypatch.setattr(proxy_cli, "ASK_LIMIT_S", 0.0)
    began = time.monotonic()
    try:
        with pytest.raises(ConfigError, match="no answer"):
            proxy_cli.members_of(["http://member.invalid:2379"])
        assert time.monotonic() - began < 15
    finally:
        over.set()
