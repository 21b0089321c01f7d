"""``make demo`` and its five steps, pasted into a shell as a new user would."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cluster.local_cluster import ROOT, environment, free_base_port

_BIN = ROOT / ".venv" / "bin"


@pytest.mark.skipif(not (_BIN / "etcdctl").exists(), reason="needs make setup: the steps name .venv/bin")
@pytest.mark.timeout(180)
def test_each_of_the_five_steps_shows_something(tmp_path: Path) -> None:
    line = [sys.executable, "-m", "tools.muster.demo", f"--data-dir={tmp_path}/d", f"--base-port={free_base_port(3)}"]
    with subprocess.Popen(line, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=environment()) as demo:
        try:
            assert demo.stdout is not None
            text = ""
            for told in demo.stdout:
                text += told
                if told.startswith("Ctrl-C"):
                    break
            head, *steps = re.split(r"(?m)^ \d\. [a-zA-Z', ]{20} ", text.partition("\nCtrl-C")[0])
            variable = re.search(r"First: (E=\S+)", head)
            assert variable is not None
            assert len(steps) == 5
            script = f"set -m; {variable[1]}\n" + "echo =====\n".join(steps)
            done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=120, cwd=ROOT, check=False)
        finally:
            demo.terminate()
    shown = done.stdout.split("=====\n")
    assert shown[0] == "OK\ngreeting\nhello\n", done.stderr
    assert "PUT\n/service/web\nstill up\n" in shown[1]
    assert "started host 0" in shown[1]
    assert shown[2].count("true") >= 1
    assert "IS LEADER" in shown[2]
    assert "FEED FROM" in shown[2]
    assert shown[3].startswith('{"health":"true"')
    assert "etcd_server_has_leader 1" in shown[3]
    assert 'value: "hello"' in shown[4]
