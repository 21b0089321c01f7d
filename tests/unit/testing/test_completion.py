"""Scripts that complete muster's, musterctl's and muster-bench's lines, as shells run them."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cluster.local_cluster import ROOT, environment
from tests.interop.toolchain import unavailable

MODULES = {"muster": "tools.muster.cli", "musterctl": "tools.musterctl", "muster-bench": "tools.muster_bench"}


@functools.cache
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


BASH = """{script}
COMP_WORDS=({line}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
_{program}
printf "%s\\n" "${{COMPREPLY[@]}}"
"""
# zsh offers what matches of that; nothing of a line that is edited is there
ZSH = """autoload -U compinit; compinit -D -u
compadd() {{ print -rl -- "$@" }}
fpath=({folder} $fpath); autoload -U _{program}
words=({line}); CURRENT=$#words
_{program}
print -r -- again; eval $_comps[{program}]; true
"""
_OF_ZSH = ("-", "-S")  # flags of compadd's own


@pytest.mark.parametrize("shell", ["bash", "zsh"])
@pytest.mark.parametrize(
    ("line", "follow"),
    [
        ("muster loc", ["local"]), ("muster local ki", ["kill"]),
        ("muster gateway start --end", ["--endpoints"]), ("muster peer-keys --ro", ["--rotate"]),
        ("muster --listen-client-u", ["--listen-client-urls"]), ("muster console --log", ["--log-in"]),
        ("musterctl lease gr", ["grant"]), ("musterctl put --end", ["--endpoints"]),
        ("musterctl --hex lease gra", ["grant"]), ("musterctl snapshot ''", ["restore", "save", "status"]),
        ("musterctl snapshot save ''", []),  # files
    ],
)  # fmt: skip
def test_a_line_is_completed(line: str, follow: list[str], shell: str, tmp_path: Path) -> None:
    if shutil.which(shell) is None:
        unavailable(f"needs {shell}, not found in PATH")
    program, last = line.split()[0], line.split()[-1].strip("'")
    text = script(program, shell)
    (tmp_path / f"_{program}").write_text(text)
    asked = (BASH if shell == "bash" else ZSH).format(
        script=text, line=line, program=program, folder=tmp_path)
    done = subprocess.run(
        [shell, *(["-f"] if shell == "zsh" else []), "-c", asked], check=True, capture_output=True, text=True)
    for told in done.stdout.split("again"):
        words = [word for word in told.split() if word.startswith(last) and word not in _OF_ZSH]
        assert words == follow, done.stderr


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
