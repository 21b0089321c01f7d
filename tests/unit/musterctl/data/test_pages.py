"""Pages beside the API, from any endpoint that the flags may name."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from urllib.error import HTTPError

import pytest

from tests.authority import Authority
from tools.client.channels import Config
from tools.musterctl.pages import page


class Page(BaseHTTPRequestHandler):
    """One page."""

    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/metrics" else 404)
        self.end_headers()
        if self.path == "/metrics":  # nobody reads the other one
            self.wfile.write(self.headers["Host"].encode())

    def log_message(self, format: str, *args: object) -> None:
        """Nowhere."""


@contextlib.contextmanager
def served(path: Path, context: ssl.SSLContext | None = None) -> Iterator[None]:
    """At a Unix socket, once."""
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()

        def serve() -> None:
            plain, _ = listening.accept()
            with plain if context is None else context.wrap_socket(plain, server_side=True) as taken:
                Page(taken, ("", 0), None)  # type: ignore[arg-type]

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield
        thread.join(10)


@pytest.mark.parametrize("endpoint", ["unix://{}", "unix:{}"])
def test_a_page_at_a_unix_socket(endpoint: str, tmp_path: Path) -> None:
    """urllib knows none."""
    for path in ("/metrics", "/nosuch"):
        at = tmp_path / path[1:]
        with (served(at), contextlib.nullcontext() if path == "/metrics" else pytest.raises(HTTPError)):
            assert page(Config(()), endpoint.format(at), path, 5) == b"localhost"


def test_a_page_at_a_unix_socket_with_tls(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    own = authority.issue("host", "localhost")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(own.cert, own.key)
    with served(tmp_path / "s", context):
        config = Config((), cacert=str(authority.file))
        assert page(config, f"unixs://{tmp_path / 's'}", "/metrics", 5) == b"localhost"


def test_no_unix_socket(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        page(Config(()), f"unix://{tmp_path}/nosuch", "/metrics", 5)
