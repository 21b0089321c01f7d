"""``musterctl --api 2 import``."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path

import pytest

from tests.unit.v2.host import host
from tools.musterctl import cli

SET = {"action": "set", "node": {"key": "/k", "value": "v", "modifiedIndex": 8, "createdIndex": 8}}


def test_a_password_is_asked_for_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each thread asked again, where no signal can be caught: a traceback, and nothing was copied."""
    nodes = [{"key": f"/k{n}", "value": "v"} for n in range(5)]
    saved = tmp_path / "saved.json"
    saved.write_text(json.dumps({"node": {"dir": True, "nodes": nodes}}), encoding="utf-8")
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"rp\nmore\n")))
    with host(lambda asked: (200, SET)) as (url, seen):
        line = ["--api", "2", "--no-sync", "--endpoints", url, "-u", "root", "import", "-c", "2"]
        assert cli.run([*line, "--snap", str(saved)]) == 0
    assert sorted(asked.line for asked in seen) == [f"PUT /v2/keys/k{n}" for n in range(5)]
    assert {asked.authorization for asked in seen} == {"Basic " + base64.b64encode(b"root:rp").decode()}
