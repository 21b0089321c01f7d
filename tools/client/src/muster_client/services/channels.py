"""Channels of gRPC that follow a service, for the stubs that protoc makes.

grpcio has no interface for resolvers of names in Python: its core resolves ``dns:`` and fixed addresses by
itself. So this is a channel that holds one to each instance, and picks one for each call, as Go's resolver
with its balancer does. One to an instance that is gone is closed once its calls have ended.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Collection
from typing import Any, Protocol

import grpc
import grpc.aio

from muster_client.services.registry import Instance


class Picks(Protocol):
    """A discovery, of either form."""

    @property
    def addresses(self) -> Callable[[], Collection[str]]:
        """Of all instances; the same object while they are the same."""
        ...

    @property
    def pick(self) -> Callable[[], Instance]: ...


class _Line:
    """A channel to one address. ``calls``: how many are under way."""

    def __init__(self, channel: Any) -> None:
        self.channel, self.calls, self.gone = channel, 0, False


class _Lines:
    """By address, and those to instances that are gone, while calls of theirs are under way."""

    def __init__(self, discovery: Picks, opened: Callable[[str], Any]) -> None:
        self._discovery, self._opened = discovery, opened
        self._lock = threading.RLock()  # stubs are used by many threads, and a call may end within
        self._there: Collection[str] = ()
        self._by_address: dict[str, _Line] = {}
        self._leaving: set[_Line] = set()

    def left(self) -> list[Any]:
        """Channels to close: their instances are gone, and nothing is under way. Of
        others, :meth:`ended` says so."""
        with self._lock:
            there = self._discovery.addresses()
            if there is self._there:
                return []
            self._there = there
            gone = [self._by_address.pop(one) for one in list(self._by_address) if one not in there]
            for line in gone:
                line.gone = True
            self._leaving.update(line for line in gone if line.calls)
            return [line.channel for line in gone if not line.calls]

    def take(self) -> _Line:
        """The one for a call, which is under way from now on. NoInstance."""
        address = self._discovery.pick().address
        with self._lock:
            if address not in self._by_address:
                self._by_address[address] = _Line(self._opened(address))
            line = self._by_address[address]
            line.calls += 1
            return line

    def ended(self, line: _Line) -> bool:
        """A call is over; whether its channel is to be closed."""
        with self._lock:
            line.calls -= 1
            if not line.gone or line.calls or line not in self._leaving:
                return False
            self._leaving.remove(line)
            return True

    def all(self) -> list[Any]:
        """Channels that are open, to close them."""
        with self._lock:
            found = [line.channel for line in (*self._by_address.values(), *self._leaving)]
            self._by_address.clear()
            self._leaving.clear()
            return found


class _Method:
    """A method of whichever channel is picked when it is called. ``waits``: a call of it ends before it
    returns."""

    def __init__(self, channel: ServiceChannel, make: Callable[[Any], Any], waits: bool) -> None:
        self._channel, self._make, self._waits = channel, make, waits

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._channel.begun(lambda one: self._make(one)(*args, **kwargs), self._waits)

    def with_call(self, *args: Any, **kwargs: Any) -> Any:
        return self._channel.begun(lambda one: self._make(one).with_call(*args, **kwargs), True)

    def future(self, *args: Any, **kwargs: Any) -> Any:
        return self._channel.begun(lambda one: self._make(one).future(*args, **kwargs), False)


class ServiceChannel:
    """For stubs of ``grpc``: each call goes to an instance that the discovery picks. ``opened`` makes a
    channel to an address; without TLS, if it is not given. A call fails where its instance does: it is the
    caller's to try it again."""

    _waits = True  # for one answer

    def __init__(
        self, discovery: Picks, opened: Callable[[str], grpc.Channel] = grpc.insecure_channel
    ) -> None:
        self._lines = _Lines(discovery, opened)

    def unary_unary(self, path: str, *given: Any, **named: Any) -> Any:
        return _Method(self, lambda one: one.unary_unary(path, *given, **named), self._waits)

    def unary_stream(self, path: str, *given: Any, **named: Any) -> Any:
        return _Method(self, lambda one: one.unary_stream(path, *given, **named), False)

    def stream_unary(self, path: str, *given: Any, **named: Any) -> Any:
        return _Method(self, lambda one: one.stream_unary(path, *given, **named), self._waits)

    def stream_stream(self, path: str, *given: Any, **named: Any) -> Any:
        return _Method(self, lambda one: one.stream_stream(path, *given, **named), False)

    def begun(self, begin: Callable[[Any], Any], waits: bool) -> Any:
        """Begin a call over the channel that is picked now: what that gives. NoInstance."""
        for channel in self._lines.left():
            self._close(channel)
        line = self._lines.take()
        told = False
        try:
            call = begin(line.channel)
            told = not waits and self._tells(call, lambda: self._ended(line))
            return call
        finally:
            if not told:
                self._ended(line)

    def close(self) -> None:
        """End all connections."""
        for channel in self._lines.all():
            channel.close()

    def _tells(self, call: Any, ended: Callable[[], None]) -> bool:
        """Whether a call will tell its end; false: it is over, or an interceptor's that tells nothing."""
        tells = getattr(call, "add_callback", None)
        return tells is not None and bool(tells(ended))

    def _ended(self, line: _Line) -> None:
        if self._lines.ended(line):
            self._close(line.channel)

    def _close(self, channel: Any) -> None:
        """In a thread of its own: a call tells its end in the one that would be waited for."""
        with contextlib.suppress(RuntimeError):  # the process ends
            threading.Thread(target=channel.close, name="muster-client-close", daemon=True).start()


class AioServiceChannel(ServiceChannel):
    """The same for stubs of ``grpc.aio``."""

    _waits = False

    def __init__(
        self, discovery: Picks, opened: Callable[[str], grpc.aio.Channel] = grpc.aio.insecure_channel
    ) -> None:
        super().__init__(discovery, opened)
        self._closing: set[asyncio.Task[None]] = set()

    async def close(self) -> None:  # type: ignore[override]
        """End all connections."""
        for channel in self._lines.all():
            await channel.close()
        await asyncio.gather(*self._closing)

    def _tells(self, call: Any, ended: Callable[[], None]) -> bool:
        tells = getattr(call, "add_done_callback", None)
        if tells is not None:
            tells(lambda _: ended())
        return tells is not None

    def _close(self, channel: Any) -> None:
        closing = asyncio.ensure_future(channel.close())
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)
