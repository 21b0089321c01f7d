"""A password asked for on a terminal: what ends the question, and the terminal's echo behind it."""

from __future__ import annotations

import contextlib
import os
import pty
import signal
import subprocess
import sys
import termios

import pytest

LINES = ("user add bob", "get a --user=root", "--api=2 -u root get a")


@pytest.mark.parametrize("line", LINES)
@pytest.mark.parametrize(("keys", "code"), [
    (b"\x03", -signal.SIGINT), (b"\x1c", -signal.SIGQUIT), (b"\x04", None)])  # fmt: skip
def test_the_echo_is_on_again_however_it_ends(line: str, keys: bytes, code: int | None) -> None:
    ours, terminal = pty.openpty()
    shown = termios.tcgetattr(terminal)[3] & termios.ECHO
    program = (
        "import fcntl, sys, termios\n"
        "from tools.musterctl import cli\n"
        "fcntl.ioctl(0, termios.TIOCSCTTY, 0)\n"
        "cli.main()")  # fmt: skip
    words = [*line.split(), "--command-timeout=1s"] if "--api" not in line else line.split()
    environment = {**os.environ, "ETCDCTL_ENDPOINTS": "http://127.0.0.1:1"}
    try:
        with subprocess.Popen(
            [sys.executable, "-c", program, *words], stdin=terminal, stdout=terminal, stderr=terminal,
            env=environment, start_new_session=True,
        ) as process:  # fmt: skip
            said = b""
            while b"assword" not in said:
                said += os.read(ours, 4096)
            while termios.tcgetattr(terminal)[3] & termios.ECHO:
                assert process.poll() is None
            os.write(ours, keys)
            ended = process.wait(60)
        os.set_blocking(ours, False)
        with contextlib.suppress(BlockingIOError):
            said += os.read(ours, 65536)
        assert b"Traceback" not in said
        assert ended == code or code is None
        assert termios.tcgetattr(terminal)[3] & termios.ECHO == shown
    finally:
        os.close(ours)
        os.close(terminal)
