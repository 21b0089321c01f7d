"""What every user of the machine sees of a host's processes."""

from __future__ import annotations

import json
from pathlib import Path

import psutil
import pytest

from tests.cluster import one_host
from tests.cluster.local_cluster import environment, until
from tools.muster import peer_keys

LONGEST = 200  # bytes of a command line, the interpreter's path apart
NODE, FRONT = "tools.muster.processes.node", "tools.muster.processes.front"
OF_TWO_SHARDS = {
    0: {"tools.muster.joined shard=0 host=default", f"{NODE} shard=1 host=default"},
    1: {f"{NODE} shard=0 host=default", f"{NODE} shard=1 host=default", f"{FRONT} front=0 host=default"},
}


@pytest.mark.parametrize("fronts", [0, 1])
def test_arguments_and_environment_tell_processes_apart_and_no_more(
    fronts: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    keys, token = tmp_path / "keys.json", "a-token-of-this-cluster"
    peer_keys.generate(str(keys))
    monkeypatch.setattr(
        one_host, "environment", lambda: {**environment(), "MUSTER_INITIAL_CLUSTER_TOKEN": token}
    )
    flags = f"--fronts={fronts}", f"--peer-key-file={keys}"
    with one_host.started(tmp_path / "h", 0, 2, *flags, cold=True) as host:
        until(host.leads)
        children = psutil.Process(host.process.pid).children()
        assert {" ".join(child.cmdline()[3:]) for child in children} == OF_TWO_SHARDS[fronts]
        for child in children:
            arguments = Path(f"/proc/{child.pid}/cmdline").read_bytes()
            assert len(arguments) - len(child.exe()) < LONGEST
            shown = arguments + Path(f"/proc/{child.pid}/environ").read_bytes()
            for hidden in (json.loads(keys.read_text())["secret"], token, str(keys)):
                assert hidden.encode() not in shown
