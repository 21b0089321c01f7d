"""What the process that runs the hosts says to the tests."""

from __future__ import annotations

import json
import socket
import sys
from pathlib import Path
from typing import Any

import pytest

from muster.testing import keeper


def test_what_fails_before_the_hosts_run_answers_the_first_request(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    async def fails(plan: dict[str, Any], asking: socket.socket) -> int:
        raise OSError("no free ports")

    ours, theirs = socket.socketpair()
    plan = {"data_dir": str(tmp_path / "data"), "hosts": 1, "remove": False}
    monkeypatch.setattr(keeper, "_run", fails)
    monkeypatch.setattr(sys, "argv", ["keeper", str(theirs.detach()), json.dumps(plan)])
    with ours:
        assert keeper.main() == 1
        assert json.loads(ours.recv(1000)) == {"id": 0, "error": "no free ports"}
