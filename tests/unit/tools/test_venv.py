"""Which Python ``make setup`` takes (packaging/venv.py), and how the Debian package is configured."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.version import InvalidVersion, Version

_FILE = Path(__file__).parents[3] / "packaging" / "venv.py"
_spec = importlib.util.spec_from_file_location("muster_packaging_venv", _FILE)
assert _spec is not None
assert _spec.loader is not None
venv = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(venv)


def _measures(**found: tuple[tuple[int, int], float]):
    return lambda python: (*found[python], f"/bin/{python}") if python in found else None


def _choose(*given: Any, closed: str = "") -> str:
    return venv.choose(*given, lambda path: path not in closed.split())


def test_the_first_is_taken_unless_another_is_clearly_quicker():
    assert _choose("a", ("b",), _measures(a=((3, 11), 1.0), b=((3, 11), 0.95))) == "/bin/a"
    assert _choose("a", ("b",), _measures(a=((3, 11), 1.0), b=((3, 11), 0.8))) == "/bin/b"
    assert (
        _choose("a", ("b", "c"), _measures(a=((3, 11), 1.0), b=((3, 12), 0.8), c=((3, 13), 0.7)))
        == "/bin/c"
    )


@pytest.mark.parametrize(("closed", "of_b", "chosen"), [
    ("/bin/a", 1.05, "/bin/b"), ("/bin/a", 1.2, "/bin/a"), ("/bin/b", 0.95, "/bin/a"),
    ("/bin/b", 0.8, "/bin/b"), ("/bin/a /bin/b", 0.95, "/bin/a"), ("/bin/a /bin/b", 0.8, "/bin/b"),
])
def test_one_that_other_users_cannot_start_has_to_be_clearly_quicker(
    closed: str, of_b: float, chosen: str
) -> None:
    """Hosts of another user ended, where a full machine had taken root's own Python for the quicker one."""
    measure = _measures(a=((3, 11), 1.0), b=((3, 11), of_b))
    assert _choose("a", ("b",), measure, closed=closed) == chosen


def test_a_program_in_a_closed_folder_is_not_anybodys(tmp_path: Path) -> None:
    (tmp_path / "python").write_text("")
    (tmp_path / "python").chmod(0o755)
    tmp_path.chmod(0o700)
    assert not venv.anybodys(str(tmp_path / "python"))
    assert venv.anybodys("/usr/bin/env")


def test_one_slow_turn_decides_nothing():
    """The first Python of a machine that had just begun took twice its time."""
    slow = iter([2.0, 0.8, 0.8])

    def measure(python: str) -> tuple[tuple[int, int], float, str]:
        return (3, 11), next(slow) if python == "b" else 1.0, f"/bin/{python}"

    assert _choose("a", ("b",), measure) == "/bin/b"


def test_one_that_is_too_old_or_not_there_is_passed_over():
    assert _choose("a", ("b",), _measures(a=((3, 9), 0.1), b=((3, 11), 1.0))) == "/bin/b"
    assert _choose("a", ("b",), _measures(b=((3, 13), 1.0))) == "/bin/b"
    with pytest.raises(LookupError, match=r"3\.11 or newer"):
        _choose("a", ("b",), _measures(a=((3, 9), 0.1)))


def test_a_real_interpreter_is_measured_and_one_that_fails_is_not():
    release, seconds, path = venv.measured(sys.executable)
    assert release == sys.version_info[:2]
    assert seconds > 0
    assert os.path.exists(path)
    assert venv.measured("/nonexistent/python3") is None


def test_a_named_interpreter_that_will_not_do_is_one_line(tmp_path: Path):
    done = subprocess.run(
        [sys.executable, str(_FILE), str(tmp_path / "venv"), "/nonexistent/python3"], capture_output=True,
        text=True, check=False,
    )
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "3.11 or newer" in done.stderr
    assert not (tmp_path / "venv").exists()


def test_one_that_cannot_be_equipped_gives_way_to_the_first_and_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made: list[str] = []

    def make(python: str, folder: str, environ: object) -> None:
        made.append(python)
        if len(made) < works:
            raise subprocess.CalledProcessError(1, [python, "-m", "pip"])

    monkeypatch.setattr(venv, "make", make)
    monkeypatch.setattr(venv, "choose", lambda first, others, measure: "/quicker")
    works = 2
    assert venv.main([str(tmp_path / "venv")]) == 0
    assert made == ["/quicker", sys.executable]
    made.clear()
    works = 3
    assert venv.main([str(tmp_path / "venv")]) == 1
    assert "Traceback" not in (err := capsys.readouterr().err)
    assert err.count("no virtual environment from") == 3


@pytest.mark.parametrize("project", ["pyproject.toml", "tools/client/pyproject.toml"])
def test_no_extra_reads_as_a_version(project: str) -> None:
    """pip 24.1 to 24.3, which Python 3.12 and 3.13 brought along, ends with a traceback there."""
    told = tomllib.loads((_FILE.parents[1] / project).read_text(encoding="utf-8"))
    for extra in told["project"]["optional-dependencies"]:
        with pytest.raises(InvalidVersion):
            Version(extra)


def _postinst(folder: Path, python: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """What the package's script does, by programs that tell what they are asked."""
    files, stubs = folder / "muster", folder / "bin"
    for one in (files, stubs):
        one.mkdir(exist_ok=True)
    for name in ("adduser", "install", "chown", "chmod", "systemctl"):
        (stubs / name).write_text(f"""#!/bin/sh
echo {name} "$@"
for file; do case $file in {files}*) [ -e "$file" ] || exit 1;; esac; done
""")
        (stubs / name).chmod(0o755)
    script = (_FILE.parent / "debian" / "postinst").read_text(encoding="utf-8")
    script = script.replace("/etc/muster", str(files)).replace("/opt/muster/venv/bin/python", python)
    return subprocess.run(
        ["/bin/sh", "-c", script, "postinst", *arguments], env={"PATH": str(stubs)}, check=False,
        capture_output=True, text=True)


@pytest.mark.parametrize("kept", [True, False])
def test_the_package_is_configured_without_its_file_of_variables(tmp_path: Path, kept: bool) -> None:
    """A removed one does not come back, and no upgrade was configured then."""
    files = tmp_path / "muster"
    files.mkdir()
    if kept:
        (files / "muster.env").touch()
    done = _postinst(tmp_path, "echo", "configure")
    assert done.returncode == 0
    assert (f"chmod 640 {files}/muster.env" in done.stdout) == kept
    assert f"chown root:muster {files}\nchmod 750 {files}\n" in done.stdout
    assert "compileall" in done.stdout


def test_an_upgrade_that_is_turned_back_compiles_what_was_removed_for_it(tmp_path: Path) -> None:
    """Else each process of the version before compiles all modules, until the next upgrade."""
    done = _postinst(tmp_path, "echo", "abort-upgrade", "0.2.0")
    assert done.returncode == 0
    assert "compileall" in done.stdout
    assert "adduser" not in done.stdout
    assert _postinst(tmp_path, "/bin/false", "abort-upgrade", "0.2.0").returncode == 0, "a full disk, say"
    assert _postinst(tmp_path, "/bin/false", "configure").returncode == 1
