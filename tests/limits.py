"""A limit of time for fixtures that end after a failure, too.

pytest-timeout takes a test's limit away as soon as the test fails, so that a debugger may be used. A fixture
that hangs at its end would then hang the whole run.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager

import pytest
import pytest_timeout

_unlimited = pytest.StashKey[bool]()


def register(config: pytest.Config) -> None:
    """The limit, wherever tests have one."""
    config.pluginmanager.register(Limits())


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
