"""Requests of plain HTTP to hosts."""

from __future__ import annotations

import asyncio
import ssl
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest

from tests.authority import Authority
from tools.console.store import web


class _Host(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.mark.parametrize("known", [True, False])
def test_a_host_is_believed_by_the_machines_authorities(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, known: bool
) -> None:
    """httpx brings authorities of its own: charts and shards were missing where all else was shown."""
    authority, other = Authority(tmp_path), Authority(tmp_path, "other")
    pair = authority.issue("host", "127.0.0.1")
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.file if known else other.file))
    web._by_the_machine.cache_clear()
    host = ThreadingHTTPServer(("127.0.0.1", 0), _Host)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.cert, pair.key)
    host.socket = context.wrap_socket(host.socket, server_side=True)
    threading.Thread(target=host.serve_forever, daemon=True).start()

    async def asked() -> str:
        async with web.client(None, 30.0) as client:
            return (await client.get(f"https://127.0.0.1:{host.server_port}/metrics")).text

    try:
        if known:
            assert asyncio.run(asked()) == "ok"
        else:
            with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
                asyncio.run(asked())
    finally:
        host.shutdown()
        host.server_close()
        web._by_the_machine.cache_clear()
