"""What the calls of the JSON gateway share: memory, turns, and threads that translate large texts."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from cluster.pacing.turns import Turns
from proxy.gateway.lines import Lines
from proxy.http.backlog import Backlog
from proxy.http.memory import Memory
from proxy.threads import in_thread

LARGE_BYTES = 16_384  # of a text whose requests are translated in a thread
_THREADS = 2  # of their own: an addresses' look-up waits for none of them
_TURN_BYTES = 1 << 20  # given to them at once, some 0.1 s: what comes next waits so long
_Work = tuple[Callable[[], Any], Callable[[Any], None]]  # what is done in a thread, and what gets its result


@dataclass(slots=True)
class Room:
    loop: asyncio.AbstractEventLoop
    memory: Memory
    max_message_bytes: int
    max_untaken_bytes: int
    backlog: Backlog  # all calls share its turns
    lines: Lines = field(default_factory=Lines)
    _pool: ThreadPoolExecutor = field(default_factory=partial(ThreadPoolExecutor, _THREADS, "gateway"))
    _turns: Turns[_Work] = field(default_factory=partial(Turns, _TURN_BYTES))

    def work(self, peer: str, size: int, step: Callable[[], Any], then: Callable[[Any], None],
             large_bytes: int = LARGE_BYTES) -> None:
        """Run ``step`` on ``size`` bytes, here or in a thread. There clients take turns, by their addresses.
        ``then`` gets its result or its exception."""

        def guarded() -> Any:
            try:
                return step()
            except Exception as fault:  # it ends this request alone
                return fault

        if size <= large_bytes:
            then(guarded())
            return
        client = peer.rpartition(":")[0]
        size = min(size, _TURN_BYTES // _THREADS)  # each thread has one of the large ones
        if self._turns.enter(client, size, (guarded, then)):
            self._begin(client, size, (guarded, then))

    def _begin(self, client: Hashable, size: int, item: _Work) -> None:
        work, then = item

        def done(found: asyncio.Future[Any]) -> None:
            self._turns.leave(client, size)
            while (following := self._turns.next()) is not None:
                self._begin(*following)
            if not found.cancelled():
                then(found.exception() or found.result())

        in_thread(self.loop, self._pool, work).add_done_callback(done)
