"""What the store holds when it is attacked: very many small keys, and a few large ones."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor

import grpc

from cluster.pb import rpc_pb2 as pb

MANY, MANY_END = b"/many", b"/manz"  # 60,000 keys in 60 directories, so on every shard
LARGE, LARGE_END = b"/large", b"/largf"  # 17 MB in 60 directories
DIRECTORIES, KEYS_EACH, LARGE_BYTES = 60, 1000, 17_000_000
_IN_A_TXN = 125  # of 128
_LIMIT_S = 60.0


def load(endpoint: str) -> None:
    """Put all of it."""
    requests = []
    for directory in range(DIRECTORIES):
        at = b"%b/%02d/all/" % (MANY, directory)  # the first two segments tell the shard
        for first in range(0, KEYS_EACH, _IN_A_TXN):
            puts = [
                pb.PutRequest(key=b"%b%04d" % (at, n), value=b"%d" % n)
                for n in range(first, first + _IN_A_TXN)
            ]
            requests.append(pb.TxnRequest(success=[pb.RequestOp(request_put=put) for put in puts]))
        value = bytes(LARGE_BYTES // DIRECTORIES)
        put = pb.PutRequest(key=b"%b/%02d/all/value" % (LARGE, directory), value=value)
        requests.append(pb.TxnRequest(success=[pb.RequestOp(request_put=put)]))
    with grpc.insecure_channel(endpoint) as channel, ThreadPoolExecutor(8) as pool:
        txn = channel.unary_unary("/etcdserverpb.KV/Txn")
        bodies = [request.SerializeToString() for request in requests]
        found: list[Future[bytes]] = [pool.submit(txn, body, timeout=_LIMIT_S) for body in bodies]
        for future in found:
            assert pb.TxnResponse.FromString(future.result()).succeeded
