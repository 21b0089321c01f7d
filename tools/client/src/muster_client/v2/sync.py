"""The same client for programs without asyncio."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence

from muster_client.sync.base import Blocking, wait
from muster_client.v2 import client as asynchronous
from muster_client.v2.client import Result
from muster_client.wire.endpoints import Tls


class Client:
    """See :class:`muster_client.v2.Client`."""

    def __init__(
        self, endpoints: str | Sequence[str] = "http://127.0.0.1:2379", *, user: str = "", password: str = "",
        tls: Tls | None = None, timeout: float = asynchronous.TIMEOUT_S,
    ) -> None:
        self.inner = asynchronous.Client(endpoints, user=user, password=password, tls=tls, timeout=timeout)

    ask = Blocking(asynchronous.Client.ask)
    get = Blocking(asynchronous.Client.get)
    set = Blocking(asynchronous.Client.set)
    refresh = Blocking(asynchronous.Client.refresh)
    append = Blocking(asynchronous.Client.append)
    delete = Blocking(asynchronous.Client.delete)

    def wait(
        self, key: str, *, index: int = 0, recursive: bool = False, timeout: float | None = None
    ) -> Result:
        """See :meth:`muster_client.v2.Client.wait`. TimeoutError."""
        return wait(self.inner.wait(key, index=index, recursive=recursive), timeout)

    def watch(self, key: str, *, index: int = 0, recursive: bool = False) -> Iterator[Result]:
        told = self.inner.watch(key, index=index, recursive=recursive)
        while True:
            yield wait(_next(told))


async def _next(told: AsyncIterator[Result]) -> Result:
    return await anext(told)
