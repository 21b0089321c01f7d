"""The API's own messages."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterator
from typing import Any, Generic, TypeVar

from muster_client.pb import rpc_pb2 as pb
from muster_client.ranges import Text
from muster_client.raw import api, watching
from muster_client.sync.base import Asking, Blocking, Within, wait
from muster_client.sync.keys import Followed
from muster_client.wire.following import OnAgain

Told = TypeVar("Told")


class Answers(Followed[pb.WatchResponse]):
    """See :class:`muster_client.raw.Answers`."""

    def __init__(self, inner: watching.Answers) -> None:
        super().__init__(inner)


class Stream(Within, Iterator[Told], Generic[Told]):
    """Answers, until they end or it is closed. An interrupt ends it."""

    def __init__(self, inner: AsyncGenerator[Told, None]) -> None:
        self._inner = inner

    def __next__(self) -> Told:
        try:
            return wait(_next(self._inner))
        except StopAsyncIteration:
            raise StopIteration from None

    def close(self) -> None:
        wait(self._inner.aclose())


async def _next(told: AsyncGenerator[Told, None]) -> Told:
    return await anext(told)


class Raw:
    """See :class:`muster_client.raw.Raw`."""

    def __init__(self, inner: api.Raw) -> None:
        self.inner = inner

    call = Asking(api.Raw.call)
    renew = Blocking(api.Raw.renew)

    def guard(self, check: Callable[[str, Any], None]) -> None:
        self.inner.guard(check)

    def watch(self, request: pb.WatchCreateRequest, *, on_again: OnAgain | None = None) -> Answers:
        return Answers(self.inner.watch(request, on_again=on_again))

    def renewals(
        self, lease: int, *, on_again: OnAgain | None = None
    ) -> Stream[pb.LeaseKeepAliveResponse]:
        return Stream(self.inner.renewals(lease, on_again=on_again))

    def snapshot(self, endpoint: str = "") -> Stream[pb.SnapshotResponse]:
        return Stream(self.inner.snapshot(endpoint))

    def observe(self, election: Text, *, on_again: OnAgain | None = None) -> Stream[pb.RangeResponse]:
        return Stream(self.inner.observe(election, on_again=on_again))
