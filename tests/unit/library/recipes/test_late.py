"""Keys of locks that come late, where namespaces share a lease."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import muster_client as m
import pytest
from muster_client.pb import rpc_pb2 as pb
from muster_client.recipes import late

from tests.unit.library.scripted import Code, scripted, until
from tests.unit.library.test_places import Late, Line, done, held, nothing


def test_a_late_key_is_deleted_though_another_namespace_has_one_of_its_name() -> None:
    """Held meanwhile, and under the same lease: that says nothing of it."""
    line, coming = Line(), Late(11)

    def txn(request: pb.TxnRequest, context: grpc.ServicerContext) -> Any:
        line.asked.append(request)
        first = request.success[0]
        if first.request_put.key.startswith(b"A/"):
            context.abort(Code.UNAVAILABLE, "etcdserver: request timed out")
        if first.HasField("request_put"):
            return held(8)
        return nothing(6) if first.HasField("request_range") else done(9)

    async def main() -> None:
        async with m.Client(address) as client, await client.lease(60) as lease:
            with pytest.raises(m.Unavailable):
                await client.namespace("A/").lock("l", lease=lease).acquire()
            async with client.namespace("B/").lock("l", lease=lease):
                pass
            coming.lands.set()
            key = b"A/l/%x" % lease.id
            await until(lambda: line.deletes(key))
            assert [compare.create_revision for compare in line.deletes(key)[0].compare] == [11]

    with scripted(line.methods | {"KV/Txn": txn, "Watch/Watch": coming.watch}) as address:
        asyncio.run(main())


def test_no_wait_goes_on_once_no_put_can_be_under_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lease may live for months, with locks of ever new names: each wait is a stream to the server."""
    monkeypatch.setattr(late, "_COMES_IN_S", 0.3)
    monkeypatch.setattr(late, "_AGAIN_S", 0.05)
    line, coming = Line(), Late(11)

    def txn(request: pb.TxnRequest, context: grpc.ServicerContext) -> Any:
        line.asked.append(request)
        if request.success[0].HasField("request_put"):
            context.abort(Code.UNAVAILABLE, "etcdserver: request timed out")
        return nothing(6)

    async def main() -> None:
        async with m.Client(address) as client, await client.lease(60) as lease:
            for name in ("a", "b", "c"):
                with pytest.raises(m.Unavailable):
                    await client.lock(name, lease=lease).acquire()
            await until(lambda: not lease.late)
            assert len(line.asked) == 9, "each is looked for once more at the end"

    with scripted(line.methods | {"KV/Txn": txn, "Watch/Watch": coming.watch}) as address:
        asyncio.run(main())
