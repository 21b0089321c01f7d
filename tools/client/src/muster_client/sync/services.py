"""Services, configuration, and jobs by the clock."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from concurrent.futures import Future
from types import TracebackType
from typing import Any, Generic, ParamSpec, Self, TypeVar

from muster_client import ops
from muster_client.errors import MusterError
from muster_client.services import cron
from muster_client.services.config import Config as _Config
from muster_client.services.config import Model
from muster_client.services.discovery import Discovery as _Discovery
from muster_client.services.registry import Instance, OnLost
from muster_client.services.registry import Registration as _Registration
from muster_client.sync.base import Blocking, Within, wait

P = ParamSpec("P")
Result = TypeVar("Result")


def in_thread(call: Callable[P, Result], *, daemon: bool = False) -> Callable[P, Coroutine[Any, Any, Result]]:
    """A function that may block, for the engine's loop, in threads of its own: connections need the loop's.
    TimeoutError if it still runs. ``daemon``: the process's end does not wait for it."""
    running: Future[Result] | None = None

    async def run(*args: P.args, **kwargs: P.kwargs) -> Result:
        nonlocal running
        if running is not None and not running.done():
            raise TimeoutError("the call before still runs")
        future = Future[Result]()
        future.set_running_or_notify_cancel()  # a task that waits for it may be cancelled, it is not

        context = contextvars.copy_context()

        def work() -> None:
            try:
                future.set_result(context.run(call, *args, **kwargs))
            except BaseException as error:
                future.set_exception(error)

        threading.Thread(target=work, name="muster-client-call", daemon=daemon).start()
        running = future  # not before: a start may fail
        return await asyncio.wrap_future(future)

    return run


class Registration(Within):
    """See :class:`muster_client.Registration`."""

    def __init__(self, inner: _Registration) -> None:
        self.inner = inner

    unregister = Blocking(_Registration.unregister)

    @property
    def key(self) -> bytes:
        return self.inner.key

    @property
    def found(self) -> bool:
        return self.inner.found

    @property
    def lost(self) -> MusterError | None:
        return self.inner.lost

    def wait_lost(self, timeout: float | None = None) -> MusterError:
        """See :meth:`muster_client.Registration.wait_lost`. TimeoutError."""
        return wait(self.inner.wait_lost(), timeout)

    def on_lost(self, call: OnLost) -> None:
        """See :meth:`muster_client.Registration.on_lost`; from the thread that keeps leases alive: be
        short."""
        self.inner.on_lost(call)

    def register(self) -> Self:
        wait(self.inner.register(), undo=lambda _: self.inner.unregister())
        return self

    def __enter__(self) -> Self:
        return self.register()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        wait(self.inner.__aexit__(kind, error, trace))

    def close(self) -> None:
        self.unregister()


class Discovery(Within):
    """See :class:`muster_client.Discovery`."""

    def __init__(self, inner: _Discovery) -> None:
        self.inner = inner
        self.instances, self.addresses = inner.instances, inner.addresses
        self.pick, self.using = inner.pick, inner.using

    @property
    def service(self) -> bytes:
        return self.inner.service

    def changed(self, timeout: float | None = None) -> None:
        """Wait until the instances have changed since :meth:`instances` last showed them. TimeoutError."""
        wait(self.inner.changed(), timeout)

    def wait_for(self, count: int, timeout: float | None = None) -> tuple[Instance, ...]:
        """Wait until so many instances are there; all of them. TimeoutError."""
        return wait(self.inner.wait_for(count), timeout)

    def __enter__(self) -> Self:
        wait(self.inner.__aenter__())
        return self

    def close(self) -> None:
        wait(self.inner.__aexit__(None, None, None))


class Config(Within, Generic[Model]):
    """See :class:`muster_client.Config`."""

    def __init__(self, inner: _Config[Model]) -> None:
        self.inner = inner

    @property
    def value(self) -> Model:
        return self.inner.value

    @property
    def error(self) -> Exception | None:
        return self.inner.error

    @property
    def revision(self) -> int:
        return self.inner.revision

    def changes(self) -> Iterator[Model]:
        """The state, and each later one."""
        told = self.inner.changes()
        while True:
            yield wait(_next(told))

    def __enter__(self) -> Self:
        wait(self.inner.__aenter__())
        return self

    def close(self) -> None:
        wait(self.inner.__aexit__(None, None, None))


async def _next(told: AsyncIterator[Model]) -> Model:
    return await anext(told)


class Run:
    """See :class:`muster_client.Run`."""

    def __init__(self, inner: cron.Run) -> None:
        self.inner = inner
        self.due, self.attempt, self.token, self.held = inner.due, inner.attempt, inner.token, inner.held

    @property
    def lost(self) -> bool:
        return self.inner.lost

    @property
    def finished(self) -> bool:
        return self.inner.finished

    def finish(self, *done: ops.Op | ops.Txn) -> None:
        wait(self.inner.finish(*done))
