"""Steps that go to the engine's loop and come back: all of them, in order, whoever gives up."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import itertools
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType

import pytest
from muster_client.sync import base
from muster_client.wire import engine
from muster_client.wire.keeper import Kept, clock


def test_many_loops_get_what_is_theirs() -> None:
    errors: list[BaseException] = []

    async def there(n: int) -> int:
        assert engine.is_here()
        if n % 3:
            await asyncio.sleep(0)
        if n % 7 == 6:
            raise ValueError(n)
        return n

    async def here(base: int) -> None:
        numbers = range(base, base + 300)
        told = await asyncio.gather(*(engine.run(there(n)) for n in numbers), return_exceptions=True)
        for n, one in zip(numbers, told, strict=True):
            assert one == n or (isinstance(one, ValueError) and n % 7 == 6 and one.args == (n,))

    def run(base: int) -> None:
        try:
            for _ in range(3):  # a loop of its own each time
                asyncio.run(here(base))
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(1000 * i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not errors


def test_steps_begin_in_order() -> None:
    begun: list[int] = []

    async def there(n: int) -> None:
        begun.append(n)

    async def main() -> None:
        await asyncio.gather(*(engine.run(there(n)) for n in range(500)))

    asyncio.run(main())
    assert begun == list(range(500))


def test_a_caller_that_is_cancelled_cancels_its_step() -> None:
    cancelled = threading.Event()
    begun = threading.Event()

    async def there() -> None:
        begun.set()
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            cancelled.set()
            raise

    async def main() -> None:
        waiting = asyncio.create_task(engine.run(there()))
        await asyncio.to_thread(begun.wait, 5)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        never = asyncio.create_task(engine.run(there()))
        await asyncio.sleep(0)  # handed over, or not yet
        never.cancel()
        await asyncio.gather(never, return_exceptions=True)

    asyncio.run(main())
    assert cancelled.wait(5)


def test_a_loop_that_has_ended_holds_up_nobody() -> None:
    goes_on = threading.Event()

    async def slow() -> None:
        await asyncio.to_thread(goes_on.wait, 10)

    async def leaves() -> None:
        asyncio.get_running_loop().create_task(engine.run(slow()))
        await asyncio.sleep(0.01)

    async def there() -> int:
        return 1

    asyncio.run(leaves())
    goes_on.set()

    async def main() -> None:
        assert await engine.run(there()) == 1

    asyncio.run(main())


async def _one() -> int:
    return 1


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """No thread runs yet."""
    for name in ("_loop", "_mail", "_thread"):
        monkeypatch.setattr(engine, name, None)


@pytest.mark.usefixtures("fresh")
def test_its_loop_is_pythons_own_whatever_the_programs_policy(monkeypatch: pytest.MonkeyPatch) -> None:
    def other() -> asyncio.AbstractEventLoop:
        raise AssertionError("by the policy")

    monkeypatch.setattr(asyncio, "new_event_loop", other)
    assert isinstance(engine.loop(), asyncio.SelectorEventLoop)
    assert engine.submit(_one()).result(5) == 1


@pytest.mark.usefixtures("fresh")
def test_a_thread_that_does_not_start_is_started_by_the_next_call() -> None:
    def fails(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(threading.Thread, "start", fails)
        with contextlib.closing(step := _one()), pytest.raises(RuntimeError, match="can't start"):
            engine.submit(step)
    assert engine.submit(_one()).result(5) == 1


@pytest.mark.usefixtures("fresh")
@pytest.mark.parametrize("late", [False, True])
def test_an_interrupt_as_the_thread_starts_gives_it_up(late: bool, caplog: pytest.LogCaptureFixture) -> None:
    """The thread ran a closed loop for ever, or the interrupt became "Cannot close a running event loop"."""
    start, threads = threading.Thread.start, list[threading.Thread]()

    def interrupted(thread: threading.Thread) -> None:
        threads.append(thread)
        if late:
            start(thread)
            while not loops[0].is_running():
                time.sleep(0.001)
        raise KeyboardInterrupt

    class Loop(engine.Loop):
        def __init__(self) -> None:
            super().__init__()
            loops.append(self)

    loops = list[Loop]()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(engine, "Loop", Loop)
        patched.setattr(threading.Thread, "start", interrupted)
        with pytest.raises(KeyboardInterrupt):
            engine.loop()
    if not late:
        start(threads[0])
    threads[0].join(30)
    assert not threads[0].is_alive()
    assert loops[0].is_closed()
    assert not caplog.records
    assert engine.submit(_one()).result(5) == 1


@pytest.mark.usefixtures("fresh")
def test_a_step_that_exits_ends_no_other() -> None:
    async def exits() -> None:
        sys.exit(3)

    with pytest.raises(SystemExit):
        engine.submit(exits()).result(5)
    assert engine.submit(_one()).result(5) == 1


@pytest.mark.usefixtures("fresh")
def test_mail_behind_a_step_that_exits_is_taken() -> None:
    taken = threading.Event()

    def first() -> None:
        engine.mail().post(lambda: sys.exit(3))
        engine.mail().post(taken.set)

    engine.mail().post(first)
    assert taken.wait(5)


def test_mail_whose_wake_is_interrupted_is_taken() -> None:
    """By what a signal's handler raises in the thread that posts."""
    loop = asyncio.new_event_loop()
    mail, taken, wakes = engine.Mail(loop), list[int](), iter([KeyboardInterrupt])
    wake = loop.call_soon_threadsafe

    def interrupted(step: Callable[[], object]) -> None:
        for error in wakes:
            raise error
        wake(step)

    loop.call_soon_threadsafe = interrupted  # type: ignore[assignment, method-assign]
    with pytest.raises(KeyboardInterrupt):
        mail.post(lambda: taken.append(1))
    loop.run_until_complete(asyncio.sleep(0))
    mail.post(lambda: taken.append(2))
    loop.run_until_complete(asyncio.sleep(0))
    assert taken == [1, 2]
    loop.close()


def test_an_interrupt_before_a_step_is_handed_over_is_not_held_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """It waited 5 s for the end of what had not begun."""
    def interrupted(awaited: engine.Awaited[int]) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(engine.Awaited, "begin", interrupted)
    monkeypatch.setattr(base, "_TIDY_S", 30)
    with contextlib.closing(step := _one()):
        with pytest.raises(KeyboardInterrupt):
            base.wait(step)
        assert inspect.getcoroutinestate(step) == inspect.CORO_CLOSED


def test_a_signal_s_handler_may_call_in_the_midst_of_a_wake() -> None:
    """It waited for the frame beneath it to wake the loop."""
    loop = asyncio.new_event_loop()
    mail, taken = engine.Mail(loop), list[int]()
    wake = loop.call_soon_threadsafe

    def interrupted(step: Callable[[], object]) -> None:
        loop.call_soon_threadsafe = wake  # type: ignore[method-assign]
        mail.post(lambda: taken.append(2))
        loop.run_until_complete(asyncio.sleep(0))
        assert taken == [1, 2]
        wake(step)

    loop.call_soon_threadsafe = interrupted  # type: ignore[assignment, method-assign]
    mail.post(lambda: taken.append(1))
    mail.post(lambda: taken.append(3))
    loop.run_until_complete(asyncio.sleep(0))
    assert taken == [1, 2, 3]
    loop.close()


@pytest.mark.usefixtures("fresh")
@pytest.mark.filterwarnings("ignore:coroutine '_one' was never awaited")  # nor is it known to the library yet
def test_an_interrupt_at_whatever_moment_leaves_the_engine_free() -> None:
    """Signals are looked at where a function begins, and behind a call of C; a lock of Python stays taken
    there."""
    engine.loop()

    def interrupted_at(moment: int) -> bool:
        passed = itertools.count()

        def look(frame: FrameType, event: str, given: object) -> None:
            if frame.f_globals["__name__"] == "_weakrefset":
                return  # as garbage is collected: nothing is raised there
            if event in ("call", "c_return") and next(passed) == moment:
                sys.setprofile(None)
                raise KeyboardInterrupt

        sys.setprofile(look)
        try:
            assert base.wait(_one()) == 1
        except KeyboardInterrupt:
            return True
        finally:
            sys.setprofile(None)
        return False

    moments = itertools.takewhile(interrupted_at, itertools.count(1))
    assert all(engine.submit(_one()).result(5) == 1 for _ in moments)


def test_a_loss_is_told_behind_a_callback_that_exits() -> None:
    told: list[str] = []
    kept = Kept(1, 10, clock())
    kept.add(lambda why: sys.exit(1))
    kept.add(told.append)
    kept.end("it ended")
    assert told == ["it ended"]
