"""What docs/run/growth.md lets one see: shards come and keys move under puts and a watch."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest

from cluster.features.growth import LEVEL
from tests import forks
from tests.cluster.local_cluster import LIMIT_S, environment, free_base_port, until
from tests.cluster.starting.test_demo import demo
from tests.cluster.starting.test_run_pages import _BIN, block

pytestmark = [
    pytest.mark.skipif(not (_BIN / "musterctl").exists(), reason="needs make setup: pages name commands"),
    pytest.mark.timeout(300),
]


def seen(file: Path) -> list[int]:
    """The revisions of a watch's events, line by line; the last line may be cut short."""
    lines = file.read_text(encoding="utf-8").splitlines(keepends=True) if file.exists() else []
    return [
        event["kv"]["mod_revision"] for line in lines if line.endswith("\n")
        for event in json.loads(line).get("Events", ())]


def listed(endpoints: str) -> str:
    """Shards, and what hosts know; ``endpoints`` as the demo tells them: ``E=...``."""
    told = forks.run(
        [*forks.MUSTERCTL, "--endpoints", endpoints.partition("=")[2], "shard", "list", "-w", "table"],
        capture_output=True, text=True, timeout=LIMIT_S, env=environment())
    return told.stdout


def test_no_put_fails_and_the_watch_has_each_once(tmp_path: Path) -> None:
    with demo(tmp_path / "d", free_base_port(3)) as text:
        variable = re.search(r"First: (E=\S+)", text)
        assert variable is not None
        commands = block("growth", "See it")
        until(lambda: f"growth: level {LEVEL};" in listed(variable[1]))  # the demo enables it
        said = tmp_path / "said"
        with said.open("w") as out, subprocess.Popen(
            ["bash", "-ec", f"{variable[1]}\n{commands}"], cwd=tmp_path, stdout=out, stderr=out,
            env={**environment(), "PATH": f"{_BIN}:{os.environ['PATH']}"}, start_new_session=True,
        ) as shell:  # fmt: skip
            try:
                assert shell.wait(4 * LIMIT_S) == 0, said.read_text(encoding="utf-8")
                told = said.read_text(encoding="utf-8")
                assert re.search(r"\| +load \|.* switched \|", told), told
                done = re.search(r"(\d+) operations", told)
                assert done is not None, told
                until(lambda: len(seen(tmp_path / "events")) >= int(done[1]))
            finally:
                with suppress(ProcessLookupError):
                    os.killpg(shell.pid, signal.SIGKILL)
        revisions = seen(tmp_path / "events")
        assert len(revisions) == int(done[1]), "each once"
        assert revisions == sorted(set(revisions)), "in order"
