"""Limits of time: for fixtures that end after a failure, too; of CPU time where a run gives way to others.

pytest-timeout takes a test's limit away as soon as the test fails, so that a debugger may be used. A fixture
that hangs at its end would then hang the whole run.

With ``MUSTER_LIMITS=cpu`` a limit is of the CPU time of the test's process: a run that gives way to all
others (``make test`` has one) may wait for a CPU, however long.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Generator, Iterator
from contextlib import contextmanager

import pytest
import pytest_timeout

VARIABLE, OF_CPU = "MUSTER_LIMITS", "cpu"
_unlimited = pytest.StashKey[bool]()


def register(config: pytest.Config) -> None:
    """The limit, wherever tests have one."""
    config.pluginmanager.register(Limits())
    if os.environ.get(VARIABLE) == OF_CPU:
        config.pluginmanager.register(CpuLimits())


class Limits:
    """The plugin."""

    def pytest_exception_interact(self, node: pytest.Item | pytest.Collector) -> None:
        """A test has failed, and has no limit any more."""
        node.stash[_unlimited] = True

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_teardown(self, item: pytest.Item) -> Generator[None, object, object]:
        """What its fixtures do has one."""
        if not item.stash.get(_unlimited, False):
            return (yield)
        del item.stash[_unlimited]
        with limited(item):
            return (yield)


class CpuLimits:
    """The plugin of runs that give way."""

    @pytest.hookimpl(tryfirst=True)
    def pytest_timeout_set_timer(self, item: pytest.Item, settings: pytest_timeout.Settings) -> bool:
        """In place of pytest-timeout's own timer, which counts what others take, too."""
        def ends(*_: object) -> None:
            pytest_timeout.timeout_sigalrm(item, settings)

        def cancel() -> None:
            signal.setitimer(signal.ITIMER_PROF, 0)
            signal.signal(signal.SIGPROF, signal.SIG_IGN)

        item.cancel_timeout = cancel  # type: ignore[attr-defined]  # where pytest-timeout looks for it
        signal.signal(signal.SIGPROF, ends)
        signal.setitimer(signal.ITIMER_PROF, settings.timeout)
        return True


@contextmanager
def limited(item: pytest.Item) -> Iterator[None]:
    """The test's whole limit, anew."""
    hook = item.config.pluginmanager.hook
    settings = pytest_timeout._get_item_settings(item)
    if settings.timeout:
        hook.pytest_timeout_set_timer(item=item, settings=settings)
    try:
        yield
    finally:
        if settings.timeout:
            hook.pytest_timeout_cancel_timer(item=item)
