"""How programs of ``watch``, ``lock`` and ``exec-watch`` end, in Go's words."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tools.musterctl import programs

ECHO = "/bin/echo"


@pytest.mark.parametrize(("words", "said"), [
    (["no-such"], 'exec: "no-such": executable file not found in $PATH'),
    (["/no/such"], "fork/exec /no/such: no such file or directory"),
    ([""], "fork/exec : no such file or directory"),
    (["/"], "fork/exec /: permission denied"),
    ([ECHO, "a\0b"], f"fork/exec {ECHO}: invalid argument"),
    ([ECHO, "a" * 200_000], f"fork/exec {ECHO}: argument list too long"),
])  # fmt: skip
def test_what_cannot_be_started(words: list[str], said: str) -> None:
    with pytest.raises((OSError, ValueError)) as met:
        subprocess.run(words, check=False)
    assert isinstance(met.value, OSError | ValueError)
    assert programs.not_started(words, met.value) == said


def test_a_program_of_the_path_is_told_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "echo").touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert programs.not_started(["echo"], OSError(7, "Argument list too long")) == (
        f"fork/exec {tmp_path}/echo: argument list too long")


@pytest.mark.parametrize(("code", "said"), [
    (0, ""), (3, "exit status 3"), (-9, "signal: killed"), (-40, "signal: signal 40")])  # fmt: skip
def test_how_one_ends(code: int, said: str) -> None:
    assert programs.ended(code) == said
