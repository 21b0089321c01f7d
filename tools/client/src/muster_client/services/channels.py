"""Channels of gRPC that follow a service, for the stubs that protoc makes.

grpcio has no interface for resolvers of names in Python: its core resolves ``dns:`` and fixed addresses by
itself. So this is a channel that holds one to each instance, and picks one for each call, as Go's resolver
with its balancer does.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import grpc
import grpc.aio

from muster_client.services.registry import Instance


class Picks(Protocol):
    """A discovery, of either form."""

    @property
    def instances(self) -> Callable[[], Sequence[Instance]]: ...

    @property
    def pick(self) -> Callable[[], Instance]: ...


class _Opened:
    """Channels by address; those to instances that are gone are closed."""

    def __init__(self, discovery: Picks, opened: Callable[[str], Any]) -> None:
        self._discovery, self._opened = discovery, opened
        self._lock = threading.Lock()  # stubs are used by many threads
        self.channels: dict[str, Any] = {}

    def pick(self) -> tuple[Any, list[Any]]:
        """The channel for a call, and those that are to be closed. NoInstance."""
        address = self._discovery.pick().address
        left: list[Any] = []
        with self._lock:
            if address not in self.channels:
                there = {one.address for one in self._discovery.instances()}
                left = [self.channels.pop(gone) for gone in list(self.channels) if gone not in there]
                self.channels[address] = self._opened(address)
            return self.channels[address], left


def _method(pick: Callable[[], Any], kind: str, path: str, given: tuple[Any, ...], named: Any) -> Any:
    """A method of that kind, of whichever channel is picked when it is called."""

    class Method:
        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            return getattr(pick(), kind)(path, *given, **named)(*args, **kwargs)

        def with_call(self, *args: Any, **kwargs: Any) -> Any:
            return getattr(pick(), kind)(path, *given, **named).with_call(*args, **kwargs)

        def future(self, *args: Any, **kwargs: Any) -> Any:
            return getattr(pick(), kind)(path, *given, **named).future(*args, **kwargs)

    return Method()


class ServiceChannel:
    """For stubs of ``grpc``: each call goes to an instance that the discovery picks. ``opened`` makes a
    channel to an address; without TLS, if it is not given. A call fails where its instance does: it is the
    caller's to try it again."""

    def __init__(
        self, discovery: Picks, opened: Callable[[str], grpc.Channel] = grpc.insecure_channel
    ) -> None:
        self._opened = _Opened(discovery, opened)

    def unary_unary(self, path: str, *given: Any, **named: Any) -> Any:
        return _method(self._pick, "unary_unary", path, given, named)

    def unary_stream(self, path: str, *given: Any, **named: Any) -> Any:
        return _method(self._pick, "unary_stream", path, given, named)

    def stream_unary(self, path: str, *given: Any, **named: Any) -> Any:
        return _method(self._pick, "stream_unary", path, given, named)

    def stream_stream(self, path: str, *given: Any, **named: Any) -> Any:
        return _method(self._pick, "stream_stream", path, given, named)

    def close(self) -> None:
        """End all connections."""
        for channel in self._opened.channels.values():
            channel.close()
        self._opened.channels.clear()

    def _pick(self) -> Any:
        channel, left = self._opened.pick()
        for one in left:
            one.close()
        return channel


class AioServiceChannel(ServiceChannel):
    """The same for stubs of ``grpc.aio``."""

    def __init__(
        self, discovery: Picks, opened: Callable[[str], grpc.aio.Channel] = grpc.aio.insecure_channel
    ) -> None:
        super().__init__(discovery, opened)
        self._left: list[Any] = []

    async def close(self) -> None:  # type: ignore[override]
        """End all connections."""
        for channel in (*self._opened.channels.values(), *self._left):
            await channel.close()
        self._opened.channels.clear()

    def _pick(self) -> Any:
        channel, left = self._opened.pick()
        self._left += left  # calls to those that are gone may be under way
        return channel
