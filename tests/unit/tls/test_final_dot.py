"""A name with its final dot, as SRV records have it: certificates name it without."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from muster_client.v2.http import Request as V2Request
from muster_client.v2.http import asked
from muster_client.wire.endpoints import Tls, parsed
from muster_client.wire.http2.dialing import DialError, dial

from cluster.settings import PeerTls
from tests.authority import Authority
from tools.client.channels import Config
from tools.client.diagnose import explain
from tools.client.files import Renewed
from tools.muster.machine.zmtp.tls import PeerCredentials, asked_by_tls
from tools.musterctl import pages
from tools.musterctl.v2.exchange import Connections, Request, RequestError

NAME = "infra0.example.test"


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def served(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[int, list[str | None]]]:
    """The port of a server of that name, which ends each connection behind its handshake; the names that it
    was asked for in those that succeeded."""
    pair = authority.issue("host", NAME)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.cert, pair.key)
    context.set_alpn_protocols(["h2", "http/1.1"])
    found, names = list[str | None](), list[str | None]()
    context.sni_callback = lambda _, name, __: names.append(name)
    find = socket.getaddrinfo

    def looked_up(host: Any, *rest: Any, **options: Any) -> Any:
        return find("127.0.0.1" if host in (NAME, f"{NAME}.") else host, *rest, **options)

    monkeypatch.setattr(socket, "getaddrinfo", looked_up)

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _ = listener.accept()
                sock.settimeout(30)
                with contextlib.suppress(OSError), context.wrap_socket(sock, server_side=True) as secure:
                    secure.recv(1)  # a client that refuses the certificate says so
                    found.append(names[-1])

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.getsockname()[1], found
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


def library(url: str, context: ssl.SSLContext, authority: Authority) -> None:
    (endpoint,) = parsed(url, Tls(ca=str(authority.file)))
    with contextlib.suppress(DialError):
        asyncio.run(dial(endpoint, lambda: None))


def library_of_version_2(url: str, context: ssl.SSLContext, authority: Authority) -> None:
    with contextlib.suppress(Exception):
        asyncio.run(asked(f"{url}/v2/keys/a", V2Request("GET", "/v2/keys/a", (), b""),
                          Tls(ca=str(authority.file)), 30.0))


def version_2(url: str, context: ssl.SSLContext, authority: Authority) -> None:
    with contextlib.suppress(RequestError):
        Connections(Renewed((), lambda: context)).send(url, Request("GET", "/v2/keys/a"), 30, None)


def diagnosis(url: str, context: ssl.SSLContext, authority: Authority) -> None:
    explain(Config((url,), cacert=str(authority.file)).target(url), 30.0)


def page(url: str, context: ssl.SSLContext, authority: Authority) -> None:
    with contextlib.suppress(OSError):
        pages.page(Config((url,), cacert=str(authority.file)), url, "/metrics", 30.0)


def peer(url: str, context: ssl.SSLContext, authority: Authority) -> None:
    own = authority.issue("peer", "127.0.0.1")
    held = PeerCredentials(PeerTls(str(own.cert), str(own.key), trusted_ca_file=str(authority.file)))
    host, _, port = url.removeprefix("https://").partition(":")
    asked_by_tls(host, int(port), held, b"?", 30.0)


@pytest.mark.parametrize("client", [library, library_of_version_2, version_2, diagnosis, page, peer])
def test_the_servers_certificate_is_taken(
    client: Callable[[str, ssl.SSLContext, Authority], None], served: tuple[int, list[str | None]],
    authority: Authority,
) -> None:
    port, found = served
    client(f"https://{NAME}.:{port}", ssl.create_default_context(cafile=str(authority.file)), authority)
    with socket.create_connection(("127.0.0.1", port)) as last, contextlib.suppress(OSError):
        last.shutdown(socket.SHUT_WR)
        last.recv(1)  # its end: what came before is known
    assert set(found) == {NAME}
