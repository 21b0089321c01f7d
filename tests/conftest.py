"""What holds for every test: no fault of the program goes unnoticed; and how hypothesis searches, the same
examples in every run of CI, others each time elsewhere.

A failure that a random search finds in CI would mark the wrong change. So ``MUSTER_CI`` draws the examples
from each test's own code; everywhere else a run may find what no run found before, and prints the blob that
repeats it. What was found once stays as an ``@example``.

What tests start gets default signals, also where a shell runs pytest in the background and so has it ignore
some: a child inherits what is ignored, and never what is handled.
"""

from __future__ import annotations

import gc
import itertools
import os
import signal
from collections import Counter
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from cluster.faults import Faults, faults
from tests.plugins import at_once, lanes, limits, second_tries

# Tests fork to start hosts that end with them. grpc's handlers of forks would close its pollers' descriptors
# in the child, which says so in that host's log, and stop its own threads meanwhile.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

# Collect what is young seldomer than Python would: simulations make many objects, and few cycles
GARBAGE = (20_000, 10, 10)
LONG_S = 15.0

# A machine that is busy with other things makes an example slow, not wrong.
settings.register_profile("anew", deadline=None, print_blob=True)
settings.register_profile("ci", settings.get_profile("anew"), derandomize=True, database=None,
                          suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("ci" if os.environ.get("MUSTER_CI") else "anew")


def pytest_configure(config: pytest.Config) -> None:
    """Ignore no signal that a shell may have had this process ignore; register plugins."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if signal.getsignal(signal.SIGQUIT) is signal.SIG_IGN:
        signal.signal(signal.SIGQUIT, signal.SIG_DFL)
    at_once.register(config)
    lanes.register(config)
    limits.register(config)
    second_tries.register(config)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """In CI, tell which modules took long, so that its parts can be kept in balance (decision 58)."""
    if "MUSTER_CI" not in os.environ:
        return
    took_s: Counter[str] = Counter()
    for report in itertools.chain.from_iterable(terminalreporter.stats.values()):
        if isinstance(report, pytest.TestReport):
            took_s[report.nodeid.partition("::")[0]] += report.duration
    if longest := [(module, took) for module, took in took_s.most_common(30) if took >= LONG_S]:
        terminalreporter.section("seconds of modules")
        for module, took in longest:
            terminalreporter.write_line(f"{took:7.1f} {module}")


@pytest.hookimpl(trylast=True)
def pytest_collection_finish() -> None:
    """Thousands of collected tests live to the end: the garbage collector looks at them no more."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GARBAGE)


@pytest.fixture(autouse=True)
def _files_as_before() -> Iterator[None]:
    """A host's start, which some tests call in this process, has new files for its user alone: none of the
    tests after it inherits that."""
    mask = os.umask(0o022)
    os.umask(mask)
    yield
    os.umask(mask)


@pytest.fixture(autouse=True)
def _no_fault_goes_unnoticed() -> Iterator[None]:
    """A fault of the program ends a request only; a test that expects one takes it (``faults.take``)."""
    vars(faults).update(vars(Faults()))  # each test begins with none
    yield
    assert not (met := faults.take()), f"a request met a fault of the program: {met}"
