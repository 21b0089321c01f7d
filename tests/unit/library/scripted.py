"""A server of etcd's API whose answers a test gives."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
from muster_client.pb import rpc_pb2 as pb

Answers = Callable[[Any, grpc.ServicerContext], Any]
Code = grpc.StatusCode
_KINDS = {
    "Watch/Watch": grpc.stream_stream_rpc_method_handler,
    "Lease/LeaseKeepAlive": grpc.stream_stream_rpc_method_handler,
    "Maintenance/Snapshot": grpc.unary_stream_rpc_method_handler,
    "KV/RangeStream": grpc.unary_stream_rpc_method_handler,
}


class _Methods(grpc.GenericRpcHandler):
    def __init__(self, methods: dict[str, Answers]) -> None:
        self._methods = methods

    def service(self, handler_call_details: Any) -> Any:
        name = handler_call_details.method.removeprefix("/etcdserverpb.")
        answers = self._methods.get(name)
        if answers is None:
            return None
        message = name.partition("/")[2]
        names = {"Compact": "Compaction", "RangeStream": "Range"}
        request = getattr(pb, names.get(message, message) + "Request")
        kind = _KINDS.get(name, grpc.unary_unary_rpc_method_handler)
        return kind(answers, request.FromString, lambda answer: answer.SerializeToString())


@contextlib.contextmanager
def scripted(methods: dict[str, Answers], most_streams: int = 1 << 16) -> Iterator[str]:
    """Such a server's address; ``methods`` by their names, ``KV/Range``. ``most_streams`` of a connection."""
    server = grpc.server(
        ThreadPoolExecutor(16), handlers=[_Methods(methods)],
        options=[("grpc.max_concurrent_streams", most_streams)])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(0).wait(5)


def say_nothing(context: grpc.ServicerContext) -> None:
    """Until the call is given up."""
    ended = threading.Event()
    if context.add_callback(ended.set):
        ended.wait(30)


def refusing(code: grpc.StatusCode, text: str, refused: list[str] | None = None) -> Answers:
    """A stream that is refused behind its first message. ``refused`` gets the text each time."""
    def refuse(requests: Iterator[Any], context: grpc.ServicerContext) -> None:
        next(requests)
        if refused is not None:
            refused.append(text)
        context.abort(code, text)

    return refuse


def watched(requests: Iterator[pb.WatchRequest], context: grpc.ServicerContext) -> Iterator[pb.WatchResponse]:
    """A watch that is created, and tells nothing."""
    next(requests)
    yield pb.WatchResponse(created=True)
    say_nothing(context)


async def until(holds: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not holds():
            await asyncio.sleep(0.005)
