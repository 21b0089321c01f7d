"""Where ``musterctl --api 2`` asks, and for how long, as the tables of old articles have it."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from tests.ports import free_ports
from tools.musterctl import cli


@contextlib.contextmanager
def member(advertised: str) -> Iterator[str]:
    """The URL of a member with a key /a that advertises another URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            one = {"id": "1", "name": "a", "peerURLs": [], "clientURLs": [advertised]}
            node = {"key": "/a", "value": "b", "modifiedIndex": 4, "createdIndex": 4}
            members = self.path.startswith("/v2/members")
            body = json.dumps({"members": [one]} if members else {"action": "get", "node": node}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize(("more", "code", "out"), [((), 4, ""), (("--no-sync",), 0, "b\n")])
def test_a_url_that_nobody_serves_is_asked_where_a_member_advertises_it(
    more: tuple[str, ...], code: int, out: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """S0-060: the given URL is asked by ``--no-sync``."""
    (port,) = free_ports(1)
    with member(f"http://127.0.0.1:{port}") as url:
        assert cli.run(["--api", "2", *more, "--endpoints", url, "get", "/a"]) == code
    assert capsys.readouterr().out == out


def test_a_name_with_an_empty_label_is_no_host_and_hides_no_other_endpoint(
    capsys: pytest.CaptureFixture[str]
) -> None:
    with member("http://127.0.0.1:1") as url:
        line = ["--api", "2", "--no-sync", "--endpoints"]
        assert cli.run([*line, f"http://10.0.0..1:2379,{url}", "get", "/a"]) == 0
        assert capsys.readouterr().out == "b\n"
        assert cli.run([*line, "http://10.0.0..1:2379", "get", "/a"]) == 4
    assert "no such host" in capsys.readouterr().err


@pytest.mark.parametrize("more", ["?x", "/?x#y", "#y"])
def test_an_endpoints_query_is_left_out(more: str, capsys: pytest.CaptureFixture[str]) -> None:
    with member("http://127.0.0.1:1") as url:
        assert cli.run(["--api", "2", "--no-sync", "--endpoints", url + more, "get", "/a"]) == 0
        assert cli.run(["--api", "2", "--no-sync", "--endpoints", url + more, "member", "list"]) == 0
    assert capsys.readouterr().out.startswith("b\n1: name=a ")


@pytest.mark.parametrize(("more", "code"), [((), 2), (("--no-sync",), 4)])
def test_a_silent_server_is_given_up_by_the_limits_that_are_given(more: tuple[str, ...], code: int) -> None:
    """S0-066, with smaller limits."""
    limits = ("--timeout", "100ms", "--total-timeout", "100ms")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        began = time.monotonic()
        assert cli.run(["--api", "2", *more, *limits, "--endpoints", url, "get", "/a"]) == code
    assert time.monotonic() - began < 3
