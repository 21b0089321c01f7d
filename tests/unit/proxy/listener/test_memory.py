"""The memory of a host, under etcd's name: of all its processes, once each, and without a label."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from prometheus_client.core import Metric

from proxy.metrics.siblings import encode, labelled
from tests.unit.proxy.listener.test_http import Site
from tools.client.channels import Config
from tools.musterctl.commands.data import datascale

NODE, PAGE = 5 << 30, os.sysconf("SC_PAGE_SIZE")


def own_bytes() -> int:
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * PAGE


@pytest.mark.parametrize(("fronts", "joined", "nodes"), [(1, True, 0), (1, False, NODE), (2, False, NODE)])
def test_each_process_counts_once(
    fronts: int, joined: bool, nodes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``check datascale``, etcdctl's too, reads the first such line; with a label it is no number."""
    site = Site()
    site.facts |= {"pid": os.getpid() if joined else 1, "resident_bytes": NODE}
    own = site.metrics.own

    def gathered(done: Callable[[Iterable[Metric]], None]) -> None:
        done(own() if fronts == 1 else labelled({front: encode(own()) for front in range(fronts)}))

    site.metrics.gather = gathered
    answer = site.get("/metrics").answer
    assert answer is not None
    monkeypatch.setattr(datascale, "page", lambda *_: answer[1])
    found = datascale._memory_bytes(Config(("h:1",)))
    assert found == pytest.approx(nodes + fronts * own_bytes(), rel=0.1)
    lines = [line for line in answer[1].splitlines() if line.startswith(b"process_resident_memory_bytes")]
    assert len(lines) == 1
