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
