"""What the console reads of shards."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import grpc
import httpx
import pytest
from muster_client import PermissionDenied

from cluster.pb import shards_pb2 as pb
from cluster.placement import Table, changes
from cluster.placement.base import Base
from cluster.placement.table import Move, State
from tools.console.store import shards, web
from tools.console.store.cluster import Member


def moving() -> Table:
    table = changes.take_shard(Table.initial(Base(1, 2)), 1, State.FORMING, 1, (7,))
    table = changes.take_shard(table, 1, State.SERVING, 0, ())
    return changes.take_move(table, Move(1, b"/a/", b"/a0", (0,), 1), 2)


@pytest.mark.parametrize("root", [True, False])
def test_a_table_that_hosts_hide_is_read_as_the_user(monkeypatch: pytest.MonkeyPatch, root: bool) -> None:
    """While there are users, hosts tell it to the role root alone."""
    def host(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/muster/shards":
            return httpx.Response(200, json={"name": "h", "shards": []})
        return httpx.Response(200, json={"shards": 1, "depth": 2, "generation": moving().generation})

    async def call(method: object, request: pb.MovesRequest, **more: object) -> pb.MovesResponse:
        if not root:
            raise PermissionDenied(grpc.StatusCode.PERMISSION_DENIED, "etcdserver: permission denied")
        return pb.MovesResponse(table=moving().encode() if request.table else b"")

    transport = httpx.MockTransport(host)
    monkeypatch.setattr(web, "client", lambda tls, timeout_s: httpx.AsyncClient(transport=transport))
    client = cast(Any, SimpleNamespace(raw=SimpleNamespace(call=call)))
    found = asyncio.run(shards.look(client, [Member(1, "h", (), ("http://h:1",), False)], None))
    assert found.table == (moving() if root else None)


UP = {
    "shard": 0, "up": True, "role": "leader", "keys": 3, "size_bytes": 4, "order_index": 5, "cpu_share": 0.1,
}  # fmt: skip


@pytest.mark.parametrize(
    "odd",
    [
        "[]",
        "null",
        "[" * 100_000,
        '{"name": "h", "shards": [{"shard": 0, "up": true}]}',
        '{"name": "h", "shards": [{"shard": "x"}]}',
        '{"name": "h", "shards": [[]]}',
        '{"name": "h", "shards": [{"shard": 0, "up": true, "growth": 1}]}',
    ],
)
def test_a_host_of_another_version_takes_no_view_of_the_others(
    monkeypatch: pytest.MonkeyPatch, odd: str
) -> None:
    """The cluster's view was empty for everybody, without a word."""
    def host(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/muster/placement":
            return httpx.Response(200, json={"shards": 1, "depth": 2})
        if request.url.host == "odd":
            return httpx.Response(200, text=odd)
        return httpx.Response(200, json={"name": "good", "shards": [UP]})

    transport = httpx.MockTransport(host)
    monkeypatch.setattr(web, "client", lambda tls, timeout_s: httpx.AsyncClient(transport=transport))
    members = [Member(at, name, (), (f"http://{name}:1",), False) for at, name in enumerate(("odd", "good"))]
    found = asyncio.run(shards.look(cast(Any, None), members, None))
    assert found.replicas == (shards.Replica(0, "good", True, "leader", 3, 4, 5, 0.1),)
