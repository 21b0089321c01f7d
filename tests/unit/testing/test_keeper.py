"""What the process that runs the hosts says to the tests."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
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


_PLANNED = """
import json, sys
from muster.testing import keeper
try:
    made, doors = keeper.planned(json.loads(sys.argv[1]))
except keeper.ConfigError as error:
    print(json.dumps(str(error)))
else:
    named = [one for one in made.hosts[0].arguments if one.startswith("--initial-cluster=")]
    print(json.dumps([doors, named[-1]]), flush=True)
    sys.stdin.read()
"""


@contextmanager
def planned(data_dir: Path, hosts: int = 3) -> Iterator[Any]:
    """What a process plans, which has its ports meanwhile; the words of an error."""
    plan = {"data_dir": str(data_dir), "hosts": hosts, "shards": 1, "flags": []}
    with subprocess.Popen(
        [sys.executable, "-c", _PLANNED, json.dumps(plan)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        yield json.loads(process.stdout.readline())
        process.stdin.close()


def test_hosts_with_data_find_each_other_at_the_next_start(tmp_path: Path) -> None:
    """They dialled the ports of the first start, where nobody listened, and had no leader."""
    with planned(tmp_path) as first:
        doors, named = first
        assert all(f":{door}" in named for door in doors)
    with planned(tmp_path) as again:
        assert again == first
        with planned(tmp_path) as third:
            assert "know each other by ports that are taken: another cluster of tests has" in third
    with planned(tmp_path, 2) as fewer:
        assert fewer == f"{tmp_path} has the data of 3 hosts, not of 2"


def test_a_lone_host_with_data_takes_any_ports(tmp_path: Path) -> None:
    with planned(tmp_path, 1) as first, planned(tmp_path, 1) as other:
        assert first != other
