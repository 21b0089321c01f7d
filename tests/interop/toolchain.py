"""What other people's clients need: their toolchains, what is built with them, and running it.

What is downloaded and built lies in ``.interop/`` (not in git) and is used again.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NoReturn

import pytest

HERE = Path(__file__).parent
CACHE = HERE.parents[1] / ".interop"
BUILD_LIMIT_S = 500.0  # the first time, with all downloads
CI = bool(os.environ.get("MUSTER_CI"))


def skip_without(*commands: str) -> None:
    """At the top of a module: skip it by name if a command is missing. In CI its tests fail (see
    ``need``)."""
    missing = [command for command in commands if shutil.which(command) is None]
    if missing and not CI:
        pytest.skip(f"needs {', '.join(missing)}, not found in PATH", allow_module_level=True)


def need(*commands: str) -> None:
    """In a fixture: fail if a command is missing."""
    missing = [command for command in commands if shutil.which(command) is None]
    if missing:
        pytest.fail(f"needs {', '.join(missing)}, not found in PATH (MUSTER_CI is set)", pytrace=False)


def unavailable(what: str) -> NoReturn:
    """Something is not here, or could not be downloaded: a failure in CI, else a reason to skip."""
    if CI:
        pytest.fail(what, pytrace=False)
    pytest.skip(what)


@contextlib.contextmanager
def cache(name: str) -> Iterator[Path]:
    """A folder for downloads and builds, with nobody else in it meanwhile."""
    folder = CACHE / name
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder.with_suffix(".lock"), "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield folder


def fingerprint(*files: Path) -> str:
    """Changes when one of the files does."""
    digest = hashlib.sha256()
    for file in sorted(files):
        digest.update(str(file.name).encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def call(
    line: Sequence[str | Path], *, cwd: Path = HERE, env: Mapping[str, str] | None = None,
    limit_s: float = 60.0,
) -> subprocess.CompletedProcess[str]:  # fmt: skip
    """Run a program to its end, whatever that is."""
    return subprocess.run(
        [str(word) for word in line], cwd=cwd, env={**os.environ, **(env or {})},
        capture_output=True, text=True, check=False, timeout=limit_s,
    )  # fmt: skip


def checked(
    line: Sequence[str | Path],
    *,
    cwd: Path = HERE,
    env: Mapping[str, str] | None = None,
    limit_s: float = 60.0,
) -> str:
    """Run a program that must succeed; its output."""
    done = call(line, cwd=cwd, env=env, limit_s=limit_s)
    if done.returncode != 0:
        pytest.fail(
            f"{' '.join(map(str, line))}\nexit code {done.returncode}\n{done.stdout}{done.stderr}",
            pytrace=False,
        )
    return done.stdout


class Program:
    """A program that runs beside the test; its lines, stdout and stderr together, with the times they
    came."""

    def __init__(self, line: Iterable[str | Path]) -> None:
        self.lines: list[tuple[float, str]] = []
        self._more = threading.Condition()
        self._process = subprocess.Popen(
            [str(word) for word in line], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True, encoding="utf-8",
        )  # fmt: skip
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def __enter__(self) -> Program:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        self._reader.join()
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.stdout.close()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            with self._more:
                self.lines.append((time.monotonic(), line.rstrip("\n")))
                self._more.notify_all()

    def times(self, pattern: str) -> list[float]:
        """When lines with a pattern came."""
        with self._more:
            return [when for when, line in self.lines if re.search(pattern, line)]

    def wait_for(self, pattern: str, limit_s: float, count: int = 1) -> float:
        """Wait for the count-th line with a pattern; when it came."""
        deadline = time.monotonic() + limit_s
        with self._more:
            while len(found := [when for when, line in self.lines if re.search(pattern, line)]) < count:
                left = deadline - time.monotonic()
                if left <= 0 or (self._process.poll() is not None and not self._reader.is_alive()):
                    pytest.fail(
                        f"no line with {pattern!r} (number {count}); it printed:\n{self.text()}",
                        pytrace=False,
                    )
                self._more.wait(min(left, 0.2))
        return found[count - 1]

    def text(self) -> str:
        """All that it has printed."""
        return "\n".join(line for _, line in self.lines)

    def say(self, line: str) -> None:
        """A line for its stdin."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pytest.fail(f"it ended before {line!r}; it printed:\n{self.text()}", pytrace=False)

    def signal(self, number: int) -> None:
        self._process.send_signal(number)

    def finish(self, limit_s: float) -> None:
        """It must end by itself and with success."""
        code = self._process.wait(limit_s)
        self._reader.join()
        if code != 0:
            pytest.fail(f"exit code {code}; it printed:\n{self.text()}", pytrace=False)
