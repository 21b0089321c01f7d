"""What a proxy says while it knows no member: etcd's 503. Its fronts take the ports once it knows one."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer

from proxy.shared.unreached import NO_ENDPOINTS, NOBODY, OWN
from tools.muster.config.settings import Url
from tools.muster.host.ports import bind_address

_REFUSED = (503, "application/json", NOBODY)
_NONE = (200, "text/plain; charset=utf-8", NO_ENDPOINTS)
_MOST_READ = 1 << 20
_PATIENCE_S = 5.0  # with a client that says nothing


class _Handler(BaseHTTPRequestHandler):
    """One connection, for one request."""

    timeout = _PATIENCE_S
    read_only = False

    def handle_one_request(self) -> None:
        """Read its head, and refuse it."""
        self.raw_requestline = self.rfile.readline(65_537)
        if not self.raw_requestline or len(self.raw_requestline) > 65_536 or not self.parse_request():
            return
        length = self.headers.get("Content-Length", "")
        if length.isdecimal():  # what is not read would have the connection reset
            self.rfile.read(min(int(length), _MOST_READ))
        own = self.path.partition("?")[0] == OWN and self.command == "GET"
        status, kind, body = _NONE if own else _REFUSED
        if self.read_only and self.command != "GET":
            status, kind, body = 501, "", b""
        self.send_response_only(status)
        self.send_header("Date", self.date_time_string())
        if kind:
            self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
        self.close_connection = True

    def handle(self) -> None:
        """A client that goes away is nobody's trouble."""
        with contextlib.suppress(OSError):
            super().handle()

    def log_message(self, format: str, *args: object) -> None:
        """Nothing is told of each."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    address_family = socket.AF_INET

    def server_bind(self) -> None:
        """Bind, and ask no name server who this is."""
        TCPServer.server_bind(self)

    def handle_error(self, request: object, client_address: object) -> None:
        """Of one client alone."""


class _Server6(_Server):
    address_family = socket.AF_INET6


@contextlib.contextmanager
def refusing(urls: Sequence[Url], read_only: bool) -> Iterator[None]:
    """Requests at these URLs are refused meanwhile; at those of https nobody answers. A port that cannot be
    had is left alone: the fronts will tell."""
    handler = type("_ReadOnly", (_Handler,), {"read_only": True}) if read_only else _Handler
    servers: list[_Server] = []
    for url in urls:
        if url.scheme != "http":
            continue
        host = bind_address(url)
        with contextlib.suppress(OSError):
            servers.append((_Server6 if ":" in host else _Server)((host, url.port), handler))
    for server in servers:
        threading.Thread(target=server.serve_forever, args=(0.1,), daemon=True).start()
    try:
        yield
    finally:
        for server in servers:
            server.shutdown()
            server.server_close()
