"""The recipes' small client of the JSON gateway renews a lease until it is gone, whatever a renewal meets."""

from __future__ import annotations

import importlib.util
import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

_FILE = Path(__file__).parents[4] / "docs/use/recipes/gateway.py"
RENEWED = {"result": {"ID": "7", "TTL": "2"}}
GONE = {"result": {"ID": "7"}}
Answer = Callable[[BaseHTTPRequestHandler], None]


@pytest.fixture(scope="module")
def gateway() -> Iterator[ModuleType]:
    spec = importlib.util.spec_from_file_location("muster_recipe_gateway", _FILE)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def says(status: int, message: object) -> Answer:
    def answer(request: BaseHTTPRequestHandler) -> None:
        data = json.dumps(message).encode()
        request.send_response(status)
        request.send_header("Content-Length", str(len(data)))
        request.end_headers()
        request.wfile.write(data)

    return answer


def hangs(request: BaseHTTPRequestHandler) -> None:
    time.sleep(1.5)


def hangs_up(request: BaseHTTPRequestHandler) -> None:
    request.close_connection = True


def breaks_off(request: BaseHTTPRequestHandler) -> None:
    request.send_response(200)
    request.send_header("Content-Length", "100")
    request.end_headers()
    request.wfile.write(b"{")
    request.close_connection = True


class Host:
    """Answers renewals in turn, the last answer for ever, and counts them."""

    def __init__(self, *answers: Answer) -> None:
        self.renewals = 0
        self.seen = threading.Condition()
        host = self

        class Requests(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                if self.path == "/v3/lease/grant":
                    says(200, {"ID": "7", "TTL": "1"})(self)
                    return
                with host.seen:
                    at = host.renewals
                    host.renewals += 1
                    host.seen.notify_all()
                answers[min(at, len(answers) - 1)](self)

            def log_message(self, format: str, *args: Any) -> None:
                """Nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Requests)
        self.endpoint = f"127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def wait_for(self, renewals: int, limit_s: float) -> bool:
        with self.seen:
            return self.seen.wait_for(lambda: self.renewals >= renewals, limit_s)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.mark.parametrize("failure", [
    says(503, {"error": "etcdserver: no leader", "code": 14}), says(200, {"error": {"code": 14}}),
    hangs, hangs_up, breaks_off,
])  # fmt: skip
def test_a_renewal_that_fails_is_tried_again(gateway: ModuleType, failure: Answer) -> None:
    host = Host(failure, says(200, RENEWED))
    try:
        lease = gateway.Cluster(host.endpoint).lease(1)
        assert host.wait_for(3, 10)
        lease.fail()
    finally:
        host.close()


def test_a_lease_that_is_gone_is_renewed_no_more(gateway: ModuleType) -> None:
    host = Host(says(200, GONE))
    try:
        gateway.Cluster(host.endpoint).lease(1)
        assert host.wait_for(1, 10)
        assert not host.wait_for(2, 1.5)
    finally:
        host.close()
