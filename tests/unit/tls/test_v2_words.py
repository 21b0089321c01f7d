"""Version 2's words where TLS refuses."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tools.client.exits import Exit
from tools.client.files import Files, Tls
from tools.musterctl.v2.client import Refused, _tls
from tools.musterctl.v2.exchange import Connections, Request, RequestError


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tls")
    ca, other = trustme.CA(), trustme.CA()
    ca.cert_pem.write_to_path(folder / "ca.pem")
    for name, authority in (("server", ca), ("stranger", other)):
        issued = authority.issue_cert("localhost")
        issued.cert_chain_pems[0].write_to_path(folder / f"{name}.pem")
        issued.private_key_pem.write_to_path(folder / f"{name}.key")
    keys = {"rsa": rsa.generate_private_key(65537, 2048), "ec": ec.generate_private_key(ec.SECP256R1())}
    for name, key in keys.items():
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
        (folder / f"{name}.key").write_bytes(pem)
    return folder


@pytest.fixture
def port(files: Path) -> Iterator[int]:
    """Of a server that wants a certificate of its authority."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files / "server.pem", files / "server.key")
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(files / "ca.pem")

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _ = listener.accept()
                with context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False) as one:
                    with contextlib.suppress(ssl.SSLError):
                        one.do_handshake()
                    while socket.socket.recv(one, 65_536):
                        pass  # a reset would overtake the alert

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        yield int(listener.getsockname()[1])
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


@pytest.mark.parametrize(
    ("name", "reason"), [("", "certificate required"), ("stranger", "unknown certificate authority")])
def test_a_refused_certificate_is_named(files: Path, port: int, name: str, reason: str) -> None:
    """It was 'read tcp: read: operation not permitted', and exit code 2, as if there were no connection."""
    cert, key = (str(files / f"{name}.{kind}") if name else "" for kind in ("pem", "key"))
    connections = Connections(_tls(cert, key, str(files / "ca.pem")), "localhost")
    with pytest.raises(RequestError) as refused:
        connections.send(f"https://127.0.0.1:{port}", Request("GET", "/v2/keys/a"), 60, None)
    assert str(refused.value) == f"remote error: tls: {reason}"
    assert not refused.value.connecting


@pytest.mark.parametrize(("key", "reason"), [
    ("ec", "tls: private key does not match public key"),
    ("rsa", "tls: private key type does not match public key type"),
])
def test_a_key_of_another_certificate_is_named(files: Path, key: str, reason: str) -> None:
    cert, other = str(files / "server.pem"), str(files / f"{key}.key")
    with pytest.raises(Refused) as refused:
        _tls(cert, other, "")
    assert str(refused.value) == reason
    with pytest.raises(Exit) as ended:
        Files(Tls(cert, other))
    assert reason in str(ended.value)
