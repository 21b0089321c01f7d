"""A cluster that cannot form says why: on every host, by name and address, in the first minute.

docs/run/troubleshoot.md has the lines, which are compared with what hosts log.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cluster.starting.misconfigurations import CASES, Setting, await_causes, on_the_page, running

MOST_LINES = 60  # of a host, in all


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_every_host_names_the_cause(case: Callable[[Setting], None], tmp_path: Path) -> None:
    told = on_the_page()[(case.__doc__ or "").strip()]
    with running(case, tmp_path) as setting:
        for host in setting.hosts:
            host.expected += [line for name, line in told if name == host.name]
        missing = await_causes(setting)
        assert not missing, {host.name: host.lines()[-30:] for host in setting.hosts}
        if setting.after is not None:
            setting.after()
        for host in setting.hosts:
            assert len(host.lines()) <= MOST_LINES, "it says so, and not again and again"
            assert not any("Traceback" in line for line in host.lines())
            if not host.runs:
                assert sum("muster: " in line or "refuses to run" in line for line in host.lines()) == 1


def test_the_page_has_a_row_for_each() -> None:
    assert list(on_the_page()) == [(case.__doc__ or "").strip() for case in CASES]
    assert all(re.search("[?]=", line) for told in on_the_page().values() for _, line in told)
