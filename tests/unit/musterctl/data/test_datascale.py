"""``check datascale``: the server's memory, by its ``/metrics``."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import grpc
import pytest
import trustme
from muster_client.pb import rpc_pb2

from tests.unit.library.scripted import scripted
from tools.client.channels import Config
from tools.musterctl import cli
from tools.musterctl.client import Client
from tools.musterctl.commands.data import datascale
from tools.musterctl.commands.data.datascale import Load, _memory_bytes, drive


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


def test_a_server_that_goes_away_ends_it_long_before_its_last_put(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each put waited for its own limit: 25 hours of them."""
    monkeypatch.setattr(datascale, "_PUT_TIMEOUT_S", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        client = Client(Config((address,)), (address,))
        errors = drive(client, Load(puts=1000, clients=2), b"/check/")
        client.close()
    assert set(errors) == {"context deadline exceeded", "gave up: no put succeeded for 0.3 s"}
    assert errors["context deadline exceeded"] < 1000
    assert capsys.readouterr().out.split("\r")[-1].strip() != "1000 / 1000  100.00%"


def refuse(request: object, context: grpc.ServicerContext) -> None:
    context.abort(grpc.StatusCode.PERMISSION_DENIED, "etcdserver: permission denied")


def test_what_the_puts_met_is_told_where_the_cleaning_up_fails(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(datascale, "_memory_bytes", lambda config: 1.0)
    monkeypatch.setattr(datascale, "drive", lambda *_: {"etcdserver: no space": 7})
    with scripted({"KV/Range": lambda *_: rpc_pb2.RangeResponse(), "KV/DeleteRange": refuse}) as address:
        assert cli.run(["--endpoints", address, "check", "datascale"]) == 1
    said = capsys.readouterr()
    assert said.out.endswith("FAIL: too many errors\nFAIL: ERROR(etcdserver: no space) -> 7\n")
    assert said.err == "Error: etcdserver: permission denied\n"
