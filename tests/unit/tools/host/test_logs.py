"""Every process of a host writes the same kind of line, to every output. Each in a process of its own: what
it sets up is for its whole life."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import structlog

from tools.muster.config.flags import SERVER_FLAGS
from tools.muster.config.parse import resolve
from tools.muster.config.settings import build
from tools.muster.host import logs

CHILD = """
import sys, structlog
from tools.muster.machine import logs
logs.configure("muster/node", "info", sys.argv[1], tuple(sys.argv[2:]), host="h")
log = structlog.get_logger("x")
log.debug("not said")
log.warning("refused", peer="p")
try:
    raise ValueError("why")
except ValueError:
    log.exception("it broke")
"""
SUPERVISOR = """
import sys
from tools.muster.host import logs
logs.configure(sys.argv[2:], "info", sys.argv[1]).warning("refused", peer="p")
"""


def run(program: str, form: str, *outputs: str | Path) -> str:
    """What the program writes to stderr."""
    command = [sys.executable, "-c", program, form, *map(str, outputs)]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stderr


def test_a_child_writes_to_every_output(tmp_path: Path) -> None:
    files = [tmp_path / "one.log", tmp_path / "two.log"]
    said = run(CHILD, "json", "stderr", *files)
    assert [file.read_text() for file in files] == [said, said]
    refused, broke = map(json.loads, said.splitlines())
    assert refused["msg"] == "refused"
    assert broke["level"] == "error"
    assert "ValueError: why" in broke["exception"]


def test_children_and_supervisor_write_the_same_kind_of_line() -> None:
    supervisor = json.loads(run(SUPERVISOR, "json", "stderr"))
    child = json.loads(run(CHILD, "json", "stderr").splitlines()[0])
    assert list(supervisor) == ["level", "ts", "caller", "msg", "peer"]
    assert list(child) == ["level", "ts", "caller", "msg", "host", "peer"]
    assert child["level"] == supervisor["level"] == "warn"
    texts = run(SUPERVISOR, "console", "stderr"), run(CHILD, "console", "stderr")
    assert [text.splitlines()[0].split("\t")[1::2][:2] for text in texts] == [["warn", "refused"]] * 2


def test_limits_above_those_that_etcd_recommends_are_warned_of_in_its_words() -> None:
    def said(quota: int, request: int) -> list[dict[str, object]]:
        config = build(resolve(
            SERVER_FLAGS, [f"--quota-backend-bytes={quota}", f"--max-request-bytes={request}"], {}))
        with structlog.testing.capture_logs() as lines:
            logs.warn(config, structlog.get_logger())
        return [dict(line) for line in lines]

    assert said(8 << 30, 10 << 20) == said(-1, 0) == []
    assert said((8 << 30) + 1, (10 << 20) + 1) == [
        {
            "event": "exceeded recommended request limit", "log_level": "warning",
            "max-request-bytes": 10485761, "max-request-size": "10 MB",
            "recommended-request-bytes": 10485760, "recommended-request-size": "10 MB",
        },
        {
            "event": "quota exceeds the maximum value", "log_level": "warning",
            "quota-size-bytes": 8589934593, "quota-size": "8.6 GB",
            "quota-maximum-size-bytes": 8589934592, "quota-maximum-size": "8.6 GB",
        },
    ]  # fmt: skip
