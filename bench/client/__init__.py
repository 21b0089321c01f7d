"""A lean asynchronous etcd v3 client: gRPC over one purpose-written HTTP/2 connection type.

``Connection`` is the protocol (unary calls by callback, streams), ``Client`` keeps many of them open.
Read ``headers`` (header blocks in), ``connection``, ``stream``, ``client``. What is sent is muster_client's.

As a library::

    import asyncio
    from bench.client import Client, parse_endpoint
    from cluster.pb import rpc_pb2 as pb

    async def main():
        client = await Client.open([parse_endpoint("127.0.0.1:2379")], connections=2)
        await client.unary("/etcdserverpb.KV/Put", pb.PutRequest(key=b"k", value=b"v"), pb.PutResponse)
        done = asyncio.Event()
        request = pb.RangeRequest(key=b"k").SerializeToString()
        client.connections[0].call(
            "/etcdserverpb.KV/Range", request, lambda error, body: (print(error, body), done.set()))
        await done.wait()

        events = asyncio.Queue()
        watch = client.connections[1].stream(
            "/etcdserverpb.Watch/Watch", events.put_nowait, lambda error: None)
        create = pb.WatchCreateRequest(key=b"k")
        watch.send(pb.WatchRequest(create_request=create).SerializeToString())
        assert pb.WatchResponse.FromString(await events.get()).created
        await client.unary("/etcdserverpb.KV/Put", pb.PutRequest(key=b"k", value=b"w"), pb.PutResponse)
        print(pb.WatchResponse.FromString(await events.get()).events)
        watch.cancel()
        await client.close()

    asyncio.run(main())

Over TLS: ``Client.open([parse_endpoint("https://db:2379")], tls=tls_context(cacert="ca.crt"),
user="root:secret")``. A failed call is an ``RpcError`` with gRPC's code; ``error.sent`` is False where the
server has certainly not seen it. A call costs 5 to 9 us of CPU. Many clients with measured latencies are a
``bench.load.loops.Loop`` over the connections.
"""

from bench.client.client import Client, Endpoint, parse_endpoint, tls_context
from bench.client.connection import Connection
from bench.client.errors import RpcError, Status
from bench.client.stream import Stream

__all__ = [
    "Client", "Connection", "Endpoint", "RpcError", "Status", "Stream", "parse_endpoint", "tls_context",
]
