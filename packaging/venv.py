"""Make a virtual environment of the quickest Python at hand: ``python3 packaging/venv.py FOLDER [PYTHON]``.

Half of muster's CPU goes into the interpreter. A build without profile-guided optimisation, such as pyenv's
default, takes 17 to 20 % more CPU for a put. So ``python3`` is measured in turns with the system's, which is
taken if clearly quicker: ``sysconfig`` does not tell how Debian's was built. One that other users cannot
start, as in a home that is closed, has to be clearly quicker itself: hosts of theirs could not run. On a busy
machine the slower one may win: ``make setup PYTHON=python3.12`` names one.

Standard library only. Status 1 and one line if no interpreter will do.
"""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

OLDEST = (3, 11)
ELSEWHERE = ("/usr/bin/python3", "/usr/local/bin/python3")
CLEARLY = 0.93  # of the other's time; the loop's own spread is 2 %
TURNS = 3  # the first process of an interpreter reads its files, and others may use the machine

_TIMED = """
import sys, time, venv
class Value:
    __slots__ = ("number", "at")
    def __init__(self, number, at):
        self.number, self.at = number, at
    def add(self, more):
        self.number += more
        return self.at
def look(values, key):
    return values.get(key)
def work():
    values, out, total = {}, [], 0
    for at in range(50000):
        key = b"key%d" % (at & 255)
        values[key] = Value(at, total)
        total += look(values, key).add(3) & 7
        out.append(key[1:] + b"/")
        if len(out) == 50:
            b"".join(out)
            out.clear()
best = 1e9
for _ in range(7):
    start = time.process_time()
    work()
    best = min(best, time.process_time() - start)
print(sys.version_info[0], sys.version_info[1], best, sys.executable)
"""


def measured(python: str) -> tuple[tuple[int, int], float, str] | None:
    """Release, CPU seconds of a loop like muster's code, and path of an interpreter; None: unusable."""
    try:
        done = subprocess.run(
            [python, "-I", "-c", _TIMED], capture_output=True, text=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    major, minor, seconds, path = done.stdout.split(None, 3)
    return (int(major), int(minor)), float(seconds), path.strip()


def anybodys(path: str) -> bool:
    """Whether each user can start this program."""
    real = Path(path).resolve()
    return all(one.stat().st_mode & stat.S_IXOTH for one in (real, *real.parents))


def choose(
    first: str, others: tuple[str, ...], measure: Callable[[str], tuple[tuple[int, int], float, str] | None],
    shared: Callable[[str], bool] = anybodys,
) -> str:
    """``first``, or another one that is clearly quicker, or new enough unlike ``first``. Those for all users
    count as before the others. LookupError."""
    quickest: list[tuple[float, str]] = []
    turns = [[measure(python) for python in (first, *others)] for _ in range(TURNS if others else 1)]
    for measurements in zip(*turns, strict=True):
        found = [one for one in measurements if one is not None and one[0] >= OLDEST]
        if not found:
            continue
        _, seconds, path = min(found, key=lambda one: one[1])
        quickest.append((seconds, path))
    if not quickest:
        raise LookupError(
            f"muster needs Python {OLDEST[0]}.{OLDEST[1]} or newer, with its module venv; "
            f"try: make PYTHON=python3.12")
    quickest.sort(key=lambda one: not shared(one[1]))  # stable
    best = quickest[0]
    for one in quickest[1:]:
        if one[0] < CLEARLY * best[0]:
            best = one
    return best[1]


def make(python: str, folder: str, environ: Mapping[str, str]) -> None:
    """An environment with pip. Distributions package ``ensurepip`` apart: then this process's pip installs
    it."""
    env = {name: value for name, value in environ.items() if not name.startswith("PYTHON")}
    with_pip = (
        subprocess.run(
            [python, "-I", "-c", "import ensurepip"], capture_output=True, env=env, check=False
        ).returncode
        == 0)
    subprocess.run(
        [python, "-m", "venv", *([] if with_pip else ["--without-pip"]), folder], env=env, check=True
    )
    if not with_pip:
        inside = os.path.join(folder, "bin", "python")
        pip = [sys.executable, "-m", "pip", "--python", inside, "--disable-pip-version-check", "--quiet"]
        subprocess.run([*pip, "install", "pip"], env=env, check=True)


def main(arguments: list[str]) -> int:
    folder, named = arguments[0], arguments[1:]
    here = sys.executable
    try:
        chosen = choose(named[0], (), measured) if named else choose(here, ELSEWHERE, measured)
    except LookupError as error:
        print(error, file=sys.stderr)
        return 1
    # a quicker one may lack a module that this one has
    for python in (chosen,) if named or chosen == here else (chosen, here):
        try:
            make(python, folder, os.environ)
        except subprocess.CalledProcessError as error:
            print(
                f"no virtual environment from {python} (on Debian, install python3-venv): {error}",
                file=sys.stderr)
            shutil.rmtree(folder, ignore_errors=True)
        else:
            print(f"{folder}: {python}")
            return 0
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
