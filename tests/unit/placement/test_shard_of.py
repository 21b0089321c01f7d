"""``shard of`` goes by the table that the cluster has."""

from __future__ import annotations

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread
from typing import Any

import grpc
import pytest

from cluster.pb import shards_pb2
from cluster.placement import Table, changes
from cluster.placement.base import Base
from cluster.placement.changes import Moved
from cluster.placement.table import Move, State
from tools.musterctl import cli
from tools.musterctl.client import Client, RequestError


def moved() -> Table:
    """Shard 1 has /b/ since revision 6; /c/ was its own once, which is pruned."""
    table = Table.initial(Base(1, 2))
    table = changes.take_shard(table, 1, State.FORMING, 1, (7,))
    table = changes.take_shard(table, 1, State.SERVING, 0, ())
    for number, (start, source, target, at) in enumerate((
            (b"/c/", 0, 1, 2), (b"/b/", 0, 1, 5)), 1):
        move = Move(number, start, start[:-1] + b"0", (source,), target)
        table = changes.take_moved(changes.take_move(table, move, at), Moved(number, True, at, 3), at)
    return changes.take_compact(table, 4)


class Front(BaseHTTPRequestHandler):
    hides = False  # as while there are users

    def do_GET(self) -> None:
        table = moved()
        shown = {} if self.hides else {"table": table.encode().hex()}
        found: dict[str, Any] = {"shards": 1, "depth": 2, "generation": table.generation, **shown}
        if self.path == "/muster/shards":
            found = {"shards": [{"up": False}, {"up": True, "revision": 5}, {"up": True, "revision": 6}]}
        body = json.dumps(found).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Tests are quiet."""


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), Front)
    thread = Thread(target=server.serve_forever)
    thread.start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def ask(endpoint: str, *words: str) -> int:
    return cli.run(["--endpoints", endpoint, "shard", "of", *words])


@pytest.mark.parametrize(("words", "shards"), [
    (("/a/k",), [0]), (("/b/k",), [1]), (("/b/k", "--rev", "6"), [1]), (("/b/k", "--rev=5"), [0]),
    (("/c/k", "--rev=4"), [1]), (("--prefix", "/"), [0, 1]), (("--prefix", "/b/", "--rev=5"), [0]),
    (("/a", "/b/z"), [0, 1]),
])
def test_the_owner_now_and_at_a_revision(
    endpoint: str, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], shards: list[int]
) -> None:
    assert not ask(endpoint, *words, "-w", "json")
    found = json.loads(capsys.readouterr().out)
    assert found["shards"] == shards
    assert (found["of"], found["generation"]) == (2, 7)
    assert not ask(endpoint, *words, "-w", "simple")
    assert [int(line.split(",")[0]) for line in capsys.readouterr().out.splitlines()] == shards


@pytest.mark.parametrize(("rev", "code", "why"), [
    ("3", 1, "required revision has been compacted"),
    ("7", 1, "required revision is a future revision"), ("-1", 128, "--rev must not be negative")])
def test_revisions_that_have_no_answer(
    endpoint: str, capsys: pytest.CaptureFixture[str], rev: str, code: int, why: str
) -> None:
    assert ask(endpoint, "/b/k", f"--rev={rev}") == code
    assert why in capsys.readouterr().err


def test_while_there_are_users_a_table_with_keys_is_told_by_moves(
    endpoint: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """To the role root; to others nothing that may be wrong is told."""
    def unary(client: Client, method: str, request: shards_pb2.MovesRequest, *more: object) -> object:
        assert (method, request.table) == ("musterpb.Shards/Moves", True)
        if refused:
            raise RequestError("etcdserver: permission denied", grpc.StatusCode.PERMISSION_DENIED)
        return shards_pb2.MovesResponse(table=moved().encode())

    monkeypatch.setattr(Front, "hides", True)
    monkeypatch.setattr(Client, "unary", unary)
    for refused in (False, True):
        assert ask(endpoint, "/b/k", "-w", "simple") == refused
    said = capsys.readouterr()
    assert (said.out[:1], said.err) == ("1", "Error: etcdserver: permission denied\n")
