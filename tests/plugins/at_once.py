"""A soak tells each failure in full as it comes: pytest's own account stands at the end, hours later."""

from __future__ import annotations

import os

import pytest

from tests.plugins.second_tries import whole


def register(config: pytest.Config) -> None:
    """Tell failures at once where ``make soak`` runs the tests."""
    if "MUSTER_SOAK" in os.environ and not hasattr(config, "workerinput"):
        config.pluginmanager.register(AtOnce(config))


class AtOnce:
    """The plugin, in the process that tells what workers of xdist ran."""

    def __init__(self, config: pytest.Config) -> None:
        self._plugins = config.pluginmanager

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Write a failure behind the line that names it."""
        terminal = self._plugins.get_plugin("terminalreporter")
        if report.failed and terminal is not None:
            terminal.ensure_newline()
            terminal.write_sep("_", f"{report.nodeid} ({report.when})")
            terminal.write_line(whole(report))
            terminal.flush()
