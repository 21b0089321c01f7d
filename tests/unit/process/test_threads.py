"""Work that no thread can be started for (proxy.threads)."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from weakref import ref

import pytest

from proxy.threads import in_thread


class Work:
    """Done so often."""

    done = 0

    def __call__(self) -> int:
        Work.done += 1
        return Work.done


def test_work_that_no_thread_could_begin_is_freed_and_never_done(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pool queues it all the same. Once threads could be started, the next login waited for all that had
    failed, and their passwords stayed in memory for hours."""

    def start(thread: object) -> None:
        raise RuntimeError("can't start new thread")

    async def scenario() -> None:
        loop, pool = asyncio.get_running_loop(), ThreadPoolExecutor(2)
        with monkeypatch.context() as limited:
            limited.setattr(threading.Thread, "start", start)
            works = [Work() for _ in range(3)]
            failed = [in_thread(loop, pool, work) for work in works]
        kept = [ref(work) for work in works]
        works.clear()
        assert [str(one.exception()) for one in failed] == ["can't start new thread"] * 3
        failed.clear()
        assert [work() for work in kept] == [None] * 3
        assert await in_thread(loop, pool, Work()) == 1, "those before it"
        pool.shutdown()

    asyncio.run(scenario())
