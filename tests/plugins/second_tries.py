"""A second try for a failed test of real time, in CI only; told in full, and only so often.

A machine that others use may stand still for seconds. A test of processes, threads or disks then fails, and
that failure says nothing of the change. ``MUSTER_SECOND_TRIES`` names a file (``.ci/run`` does): with it such
a test is tried again, with all of its fixtures made anew and its whole limit of time. Each test that passed
only then is named, with its first failure in full, at the end of the run and in the file. More than
:data:`MOST` of them in all the runs that share the file fail the run that met the last. Simulations
(:data:`NEVER`) have a virtual clock and a seed: they fail for a cause of their own, and are never tried
again. Hypothesis draws the same examples at both tries, so a rule that a unit test found broken fails twice.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from _pytest.runner import runtestprotocol

from tests.plugins.limits import limited

VARIABLE = "MUSTER_SECOND_TRIES"
MOST = 6  # of 7,400; four of 1,300 once waited in vain for an etcd or a host on a machine that stood still
NEVER = frozenset({"sim", "linearizability"})
HEADING = "passed at the second try"
RERUN = "rerun"

_second = pytest.StashKey[bool]()


def register(config: pytest.Config) -> None:
    """Second tries, where the environment asks for them."""
    if names := os.environ.get(VARIABLE):
        config.pluginmanager.register(SecondTries(Path(names)))


class SecondTries:
    """The plugin. Workers of xdist run the tests, and the process that started them counts and tells."""

    def __init__(self, names: Path) -> None:
        self._names = names
        self._failures: dict[str, list[str]] = {}
        self._failed: set[str] = set()
        self._told = 0

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item, nextitem: pytest.Item | None) -> bool | None:
        """The first try; the second one is the usual protocol, with a limit of time of its own."""
        if item.stash.get(_second, False) or not of_real_time(item):
            return None
        item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
        reports = runtestprotocol(item, log=False, nextitem=nextitem)
        again = any(report.failed for report in reports)
        if again:
            reports.append(_end_fixtures(item))
        for report in reports:
            if again and not report.failed:
                continue
            if report.failed:
                report.outcome = RERUN  # type: ignore[assignment]
            item.ihook.pytest_runtest_logreport(report=report)
        item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
        if again:
            item.stash[_second] = True
            item.ihook.pytest_runtest_protocol(item=item, nextitem=nextitem)
        return True

    def pytest_report_teststatus(self, report: pytest.TestReport) -> tuple[str, str, str] | None:
        """A letter and a word for a first try that failed."""
        return (RERUN, "R", "RERUN") if report.outcome == RERUN else None

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Keep what failed first, and what failed for good."""
        if report.outcome == RERUN:
            self._failures.setdefault(report.nodeid, []).append(f"{report.when}:\n{whole(report)}")
        elif report.failed:
            self._failed.add(report.nodeid)

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Count those that passed at their second try, with those of earlier runs."""
        if hasattr(session.config, "workerinput") or not (passed := self._passed()):
            return
        with open(self._names, "a", encoding="utf-8") as file:
            file.writelines(f"{name}\n" for name in passed)
        self._told = len(self._names.read_text(encoding="utf-8").splitlines())
        if self._told > MOST and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Name each of them, with its first failure."""
        if not (passed := self._passed()):
            return
        terminalreporter.section(HEADING)
        for name in passed:
            terminalreporter.write_sep("_", name)
            for failure in self._failures[name]:
                terminalreporter.write_line(failure)
        terminalreporter.section(f"{self._told} {HEADING} so far, {MOST} at most", "-")
        for name in passed:
            terminalreporter.write_line(name)

    def _passed(self) -> list[str]:
        return [name for name in self._failures if name not in self._failed]


def of_real_time(item: pytest.Item) -> bool:
    """Whether a test lies in none of the folders that have no real time."""
    folders = item.path.relative_to(item.config.rootpath).parts[:-1]
    return folders[:1] == ("tests",) and not NEVER & set(folders[1:2])


def _end_fixtures(item: pytest.Item) -> pytest.TestReport:
    """End also what a test shares with others: it may have left hosts dead, so all is made anew. It has one
    limit of time."""
    state = item.session._setupstate
    ends = (pytest.exit.Exception, KeyboardInterrupt)
    with limited(item):
        call = pytest.CallInfo.from_call(lambda: state.teardown_exact(None), "teardown", reraise=ends)
    return pytest.TestReport.from_item_and_call(item, call)


def whole(report: pytest.TestReport) -> str:
    """A failure, with what the test wrote."""
    sections = "".join(f"\n--- {title} ---\n{text}" for title, text in report.sections)
    return f"{report.longreprtext}{sections}"
