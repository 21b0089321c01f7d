"""The thread and the loop of all connections of this process.

What keeps leases alive must not wait for a caller's loop, and a client serves any loop and any thread. So
connections have a loop of their own, which never ends before the process does.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import logging
import os
import threading
from collections import deque
from collections.abc import Callable, Coroutine
from concurrent.futures import CancelledError, Future, InvalidStateError
from typing import Any, Generic, TypeVar

from muster_client.wire.beside import Loop

log = logging.getLogger("muster_client")
Result = TypeVar("Result")
_lock = threading.Lock()
_loop: asyncio.AbstractEventLoop | None = None
_mail: Mail | None = None  # the loop's
_own = threading.local()  # ``mail``: of the loop that runs in this thread; ``direct``: see there
_thread: threading.Thread | None = None
_ended = False
_forks = 0  # how often this process was forked off from another that had the library
_ENDED = "muster_client: the process ends, and its connections have ended"


class Mail:
    """What other threads hand to a loop. It is woken once for all that waits: to wake it costs more than a
    call's own work here."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._waiting: deque[Callable[[], object]] = deque()
        self._woken = False
        self._waking = 0  # the thread that does so

    def post(self, step: Callable[[], object]) -> None:
        """Run a step there, behind those before it. RuntimeError: the loop is closed."""
        try:
            self._waiting.append(step)
            here = threading.get_ident()
            if not self._woken or self._waking == here:  # a signal's handler, in the midst of that
                self._woken, self._waking = True, here
                self.loop.call_soon_threadsafe(self._take)
                if self._waking == here:
                    self._waking = 0
        except BaseException:  # a signal's handler may raise before it is woken: once more does no harm
            self._woken = False
            self.loop.call_soon_threadsafe(self._take)
            raise

    def _take(self) -> None:
        self._woken = False  # before it looks: what comes later wakes it again
        try:
            for _ in range(len(self._waiting)):
                self._waiting.popleft()()
        finally:  # a step may have failed
            if self._waiting and not self._woken:
                self._woken = True
                self.loop.call_soon(self._take)


class Origin:
    """The process in which something is made: it may be met in one that is forked off from that."""

    def __init__(self) -> None:
        self._forks = _forks

    @property
    def is_parent(self) -> bool:
        """This process was forked off from that one."""
        return self._forks != _forks


class Told(Generic[Result]):
    """What a thread waits for. Where a signal's handler raises in that thread, a Future's lock may stay
    taken, and the engine would wait for it for ever. The lock here is the waiting thread's alone."""

    __slots__ = ("_came", "_done", "_error", "_result", "given_up")

    def __init__(self) -> None:
        self._came = threading.Lock()
        self._came.acquire()
        self._done = self.given_up = False
        self._error: BaseException | None = None

    def set_result(self, result: Result) -> None:
        self._result = result
        self._end()

    def set_exception(self, error: BaseException) -> None:
        self._error = error
        self._end()

    def cancel(self) -> None:
        self.set_exception(CancelledError())

    def _end(self) -> None:
        self._done = True
        self._came.release()

    def done(self) -> bool:
        return self._done

    def cancelled(self) -> bool:
        """The thread does not wait any more."""
        return self.given_up

    def wait(self, timeout_s: float = -1) -> bool:
        """Whether it is there now."""
        return self._done or self._came.acquire(timeout=timeout_s)

    def found(self) -> bool:
        """It is there, and is no error."""
        return self._done and self._error is None

    def result(self) -> Result:
        self.wait()
        try:
            if self._error is not None:
                raise self._error
            return self._result
        finally:
            del self  # else the error would hold itself, by its traceback


def tell(
    told: asyncio.Future[Result] | Future[Result] | Told[Result], task: asyncio.Task[Result]
) -> None:
    """Give a task's result to a caller that still waits, in its loop."""
    error = None if task.cancelled() else task.exception()
    if told.done():
        return
    if task.cancelled():
        told.cancel()
    elif error is not None:
        told.set_exception(error)
    else:
        told.set_result(task.result())


class _Step(Generic[Result]):
    """A step that runs in the engine. ``told`` is its caller's future: one that is cancelled before the step
    begins closes it."""

    def __init__(
        self, step: Coroutine[Any, Any, Result], there: Mail,
        told: asyncio.Future[Result] | Future[Result] | Told[Result],
    ) -> None:
        self._step, self._there, self._told = step, there, told
        self._task: asyncio.Task[Result] | None = None

    def begin(self) -> None:
        self._there.post(self._begin)

    def _begin(self) -> None:
        if self._told.cancelled():
            self._step.close()
            return
        self._task = self._there.loop.create_task(self._step)
        self._task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[Result]) -> None:
        self._tell(task)

    def _tell(self, task: asyncio.Task[Result]) -> None:
        tell(self._told, task)

    def cancel(self) -> None:
        """Of a caller that was cancelled, which does not wait for the end."""
        self._there.post(self._cancel)

    def _cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()


class _Errand(_Step[Result]):
    """For a caller in another loop."""

    def __init__(self, step: Coroutine[Any, Any, Result], there: Mail, back: Mail) -> None:
        self._back = back
        self.told: asyncio.Future[Result] = back.loop.create_future()
        super().__init__(step, there, self.told)
        self.begin()

    def _ended(self, task: asyncio.Task[Result]) -> None:
        with contextlib.suppress(RuntimeError):  # the caller's loop has ended
            self._back.post(lambda: self._tell(task))


class Awaited(_Step[Result]):
    """For a thread that waits for its end. It is made before it begins: whatever interrupts the thread from
    then on can cancel it."""

    def __init__(self, step: Coroutine[Any, Any, Result]) -> None:
        self.told: Told[Result] = Told()
        super().__init__(step, mail(), self.told)

    def _begin(self) -> None:
        super()._begin()
        if self._task is None:
            self.told.cancel()

    def cancel(self) -> None:
        self.told.given_up = True
        super().cancel()

    def _cancel(self) -> None:
        super()._cancel()
        if self._task is None and not self.told.done():  # it was never handed over
            self._step.close()
            self.told.cancel()


class _Submitted(_Step[Result]):
    """For a thread; cancelled with ``told``."""

    def __init__(self, step: Coroutine[Any, Any, Result], there: Mail) -> None:
        self.told: Future[Result] = Future()
        super().__init__(step, there, self.told)
        self.begin()

    def _begin(self) -> None:
        super()._begin()
        if self._task is not None:
            self.told.add_done_callback(self._was_told)

    def _was_told(self, told: Future[Result]) -> None:
        """In whatever thread; the task is cancelled in its own."""
        if told.cancelled():
            self.cancel()

    def _tell(self, task: asyncio.Task[Result]) -> None:
        with contextlib.suppress(InvalidStateError):  # it was cancelled meanwhile
            super()._tell(task)


def mail() -> Mail:
    """The engine's."""
    if _mail is None:
        loop()
    assert _mail is not None
    return _mail


def loop() -> asyncio.AbstractEventLoop:
    """The loop, which runs."""
    global _loop, _mail, _thread
    with _lock:
        if _loop is None:
            made = Loop()  # whatever the program's policy: others dial in another way
            taken, there = threading.Lock(), Mail(made)
            thread = threading.Thread(target=_run, args=(made, taken), name="muster-client", daemon=True)
            try:
                _loop = made
                thread.start()
                _thread, _mail = thread, there
            except BaseException:  # perhaps of a signal's handler, as the thread begins
                _thread = _loop = _mail = None
                if taken.acquire(blocking=False):
                    made.close()
                else:
                    with contextlib.suppress(RuntimeError):  # it is closed
                        made.call_soon_threadsafe(made.stop)
                raise
        return _loop


def _run(made: asyncio.AbstractEventLoop, taken: threading.Lock) -> None:
    if not taken.acquire(blocking=False):
        return  # given up before this thread began
    while not _ended and _loop is made:
        try:
            made.run_forever()
        except BaseException:  # a program's callback that exits ends its own task alone
            log.exception("what ran in the thread of all connections ended it; it goes on")
    if not _ended:
        made.close()


def has_ended() -> bool:
    """The process ends: nothing runs here any more."""
    return _ended


def is_here() -> bool:
    """Whether this thread is the engine's: it must not wait for what runs here."""
    return threading.current_thread() is _thread


def is_direct() -> bool:
    """Whether :func:`direct` runs what asks."""
    return getattr(_own, "direct", False)


def direct(step: Coroutine[Any, Any, Result]) -> Result:
    """Run a step in this thread, without a loop: one that waits for calls of a client alone."""
    before, _own.direct = is_direct(), True
    try:
        step.send(None)
    except StopIteration as ended:
        result: Result = ended.value
        return result
    finally:
        _own.direct = before
        step.close()
    raise AssertionError("it waits for something else")


def submit(step: Coroutine[Any, Any, Result]) -> Future[Result]:
    """Begin something there. RuntimeError once the process ends."""
    if _ended:
        step.close()
        raise RuntimeError(_ENDED)
    return _Submitted(step, mail()).told


def mail_of(here: asyncio.AbstractEventLoop) -> Mail:
    """Of the loop that runs in this thread. RuntimeError once the process ends."""
    if _ended:
        raise RuntimeError(_ENDED)
    back: Mail | None = getattr(_own, "mail", None)
    if back is None or back.loop is not here:
        back = _own.mail = Mail(here)
    return back


async def run(step: Coroutine[Any, Any, Result]) -> Result:
    """Run something there, from whatever loop; cancelled with its caller."""
    here = asyncio.get_running_loop()
    if here is _loop:
        return await step
    if _ended:
        step.close()
        raise RuntimeError(_ENDED)
    errand = _Errand(step, mail(), mail_of(here))
    try:
        return await errand.told
    except asyncio.CancelledError:
        errand.cancel()
        raise


def _end() -> None:
    global _ended
    with _lock:
        _ended = True
        if _loop is None or _thread is None:
            return
        _loop.call_soon_threadsafe(_loop.stop)
    _thread.join(1.0)


async def whole(step: Coroutine[Any, Any, Result]) -> Result:
    """The same to its end, also where its caller is cancelled, or the caller's loop ends."""
    here = asyncio.get_running_loop()
    if here is _loop:
        return await asyncio.shield(here.create_task(step))
    if _ended:
        step.close()
        raise RuntimeError(_ENDED)
    return await asyncio.shield(_Errand(step, mail(), mail_of(here)).told)


async def stop(*tasks: asyncio.Task[None]) -> None:
    """Cancel tasks, and wait for their end. Those of the process from which this one was forked off do not
    run here."""
    here = [task for task in tasks if task.get_loop() is asyncio.get_running_loop()]
    for task in here:
        task.cancel()
    await asyncio.gather(*here, return_exceptions=True)


def _forked() -> None:
    """A child has no thread yet, whatever held the lock."""
    global _loop, _lock, _mail, _own, _thread, _forks
    _forks += 1
    _loop = _mail = _thread = None
    _own = threading.local()
    _lock = threading.Lock()


# At import: what a program registers later, such as a client's close, runs before it
atexit.register(_end)
os.register_at_fork(after_in_child=_forked)
