"""``check datascale``: the server's memory, by its ``/metrics``."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import trustme

from tools.client.channels import Config
from tools.musterctl.commands.data.datascale import _memory_bytes


class Metrics(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/metrics" else 404)
        self.end_headers()
        self.wfile.write(b"# HELP\nprocess_resident_memory_bytes 1.5e+06\nother 1\n")

    def log_message(self, *args: object) -> None: ...


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(params=["clear", "tls"])
def server(request: pytest.FixtureRequest, authority: trustme.CA) -> Iterator[HTTPServer]:
    found = HTTPServer(("127.0.0.1", 0), Metrics)
    if request.param == "tls":
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("127.0.0.1").configure_cert(context)
        authority.configure_trust(context)
        context.verify_mode = ssl.CERT_REQUIRED
        found.socket = context.wrap_socket(found.socket, server_side=True)
    thread = threading.Thread(target=found.serve_forever, daemon=True)
    thread.start()
    yield found
    found.shutdown()
    found.server_close()


def test_memory_is_asked_for_as_all_else(
    server: HTTPServer, authority: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the flags' files, with a scheme and without, and through no proxy of the environment."""
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:1")
    files = {}
    scheme = "http"
    if isinstance(server.socket, ssl.SSLSocket):
        scheme = "https"
        own = authority.issue_cert("me.example")
        files = {name: str(tmp_path / name) for name in ("cert", "key", "cacert")}
        own.cert_chain_pems[0].write_to_path(files["cert"])
        own.private_key_pem.write_to_path(files["key"])
        authority.cert_pem.write_to_path(files["cacert"])
    address = f"127.0.0.1:{server.server_port}"
    for endpoint in (address, f"{scheme}://{address}", f"{scheme}://{address}/"):
        assert _memory_bytes(Config((endpoint,), **files)) == 1_500_000
    assert _memory_bytes(Config(("127.0.0.1:1",))) == 0
