"""Scripts that complete muster's, musterctl's and muster-bench's lines, as shells run them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest

from tests.cluster.local_cluster import ROOT, environment
from tests.interop.toolchain import unavailable

MODULES = {"muster": "tools.muster.cli", "musterctl": "tools.musterctl", "muster-bench": "tools.muster_bench"}


def script(program: str, shell: str) -> str:
    words = [sys.executable, "-m", MODULES[program]]
    more = {}
    if program == "muster-bench":  # its library's own way
        more = {"_MUSTER_BENCH_COMPLETE": f"source_{shell}"}
    else:
        words += ["completion", shell]
    done = subprocess.run(
        words, check=True, capture_output=True, text=True, env=environment() | more, cwd=ROOT)
    return done.stdout


@pytest.mark.parametrize(
    ("line", "follow"),
    [
        ("muster loc", ["local"]), ("muster local ki", ["kill"]),
        ("muster gateway start --end", ["--endpoints"]), ("muster peer-keys --ro", ["--rotate"]),
        ("muster --listen-client-u", ["--listen-client-urls"]),
        ("musterctl lease gr", ["grant"]), ("musterctl put --end", ["--endpoints"]),
    ],
)  # fmt: skip
def test_bash_completes(line: str, follow: list[str]) -> None:
    words = line.split()
    asked = f"{script(words[0], 'bash')}\nCOMP_WORDS=({line}); COMP_CWORD={len(words) - 1}\n_{words[0]}\n"
    asked += 'printf "%s\\n" "${COMPREPLY[@]}"'
    done = subprocess.run(["bash", "-c", asked], check=True, capture_output=True, text=True)
    assert done.stdout.split() == follow


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
@pytest.mark.parametrize("program", list(MODULES))
def test_each_shell_reads_its_script(program: str, shell: str) -> None:
    text = script(program, shell)
    assert program in text
    if shutil.which(shell) is None:
        unavailable(f"needs {shell} to read the script, not found in PATH")
    subprocess.run([shell, "-n"], input=text, check=True, text=True, env=dict(os.environ))


def test_a_shell_that_is_none_is_refused() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tools.muster.cli", "completion", "nosh"], check=False, capture_output=True,
        text=True, env=environment(), cwd=ROOT)
    assert done.returncode == 2
    assert "usage: muster completion bash|zsh|fish|powershell" in done.stderr
