"""When a lease is renewed, in time that passes when nothing else is to be done: no machine is too slow."""

from __future__ import annotations

import asyncio
import itertools
from types import SimpleNamespace
from typing import Any

import pytest
from muster_client.pb import rpc_pb2 as pb
from muster_client.wire import connections, keeper
from muster_client.wire.calls import Caller
from muster_client.wire.endpoints import parsed

TTL_S = 3


class VirtualLoop(asyncio.SelectorEventLoop):
    """Python's own, whose next timer is always due. A turn takes a microsecond."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0
        select = self._selector.select  # type: ignore[attr-defined]

        def passed(timeout: float | None) -> Any:
            assert timeout is not None, "nothing would ever happen"
            self.now += max(timeout, 1e-6)
            return select(0)

        self._selector.select = passed  # type: ignore[attr-defined]

    def time(self) -> float:
        return self.now


class Line:
    """A connection to a server whose answers to renewals take so long."""

    def __init__(self, took_s: float, asked: list[float]) -> None:
        self._took_s, self._asked = took_s, asked

    def stream(self, path: str, answer: Any, metadata: Any) -> Any:
        loop = asyncio.get_running_loop()
        begun = loop.time()

        async def read() -> pb.LeaseKeepAliveResponse:
            await asyncio.sleep(begun + self._took_s - loop.time())
            return pb.LeaseKeepAliveResponse(ID=1, TTL=TTL_S)

        return SimpleNamespace(
            send=lambda request: self._asked.append(begun), close_send=lambda: None, read=read,
            cancel=lambda: None)


@pytest.mark.parametrize(("endpoints", "grant_s", "took_s"), [
    (1, 0.0, 0.75), (2, 0.0, 0.75), (3, 0.0, 0.75), (1, 1.4, 0.75), (1, 0.0, 1.45), (3, 0.0, 1.6),
])  # fmt: skip
def test_a_lease_is_kept_where_each_renewal_takes_a_part_of_its_time(
    monkeypatch: pytest.MonkeyPatch, endpoints: int, grant_s: float, took_s: float
) -> None:
    """Each was given up, though the server had done it or would have in time, and so were its successors; or
    the first one was late, as it counted from the end of a slow grant. A server that is slow got twice as
    many."""
    loop, asked = VirtualLoop(), list[float]()
    for module in (connections, keeper):
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=loop.time))
    monkeypatch.setattr(keeper, "clock", loop.time)
    names = ",".join(f"h{n}:1" for n in range(endpoints))
    found = connections.Connections(parsed(names))
    found._opened = [connections.Connection(endpoint) for endpoint in found._endpoints]
    for one in found._opened:
        one.line = Line(took_s, asked)  # type: ignore[assignment]

    async def main() -> None:
        keeps = keeper.Keeper(Caller(found, "", "", 10.0), loop.time)
        kept = keeper.Kept(1, TTL_S, loop.time())
        await asyncio.sleep(grant_s)
        await keeps.keep(kept)
        began = loop.time()
        while loop.time() < began + 10 * TTL_S:
            await asyncio.sleep(0.01)
            assert not kept.why()
        await keeps.close()

    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        runner.run(main())
    # in 30 s: one that was sent beside another takes the place of the next
    assert len(asked) <= (31 if endpoints == 1 else 40)
    if endpoints == 1:
        assert all(after - before > 0.99 for before, after in itertools.pairwise(asked))
