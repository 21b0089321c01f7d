"""A password asked for on a terminal: what ends the question, and the terminal's echo behind it. One that
comes by a pipe leaves all that follows it to the command."""

from __future__ import annotations

import contextlib
import io
import os
import pty
import signal
import subprocess
import sys
import termios
from collections.abc import Callable

import pytest
from muster_client.pb import rpc_pb2

from tools.musterctl import cli, client, passwords
from tools.musterctl.commands import auth

LINES = ("user add bob", "get a --user=root", "--api=2 -u root get a")


@pytest.mark.parametrize("line", LINES)
@pytest.mark.parametrize(("keys", "code"), [
    (b"\x03", -signal.SIGINT), (b"\x1c", -signal.SIGQUIT), (b"\x04", None),
    (b"\xfc\n", 1)])  # fmt: skip
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


@pytest.fixture
def piped(monkeypatch: pytest.MonkeyPatch) -> Callable[[bytes], None]:
    """Sets what comes by the pipe."""

    def pipe(sent: bytes) -> None:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(sent)))

    return pipe


def test_what_follows_the_line_of_a_password_is_the_commands(piped: Callable[[bytes], None]) -> None:
    """``musterctl --api 2 set`` stored the rest of a large value."""
    piped(b"p\xffw\r\n" + b"x" * 20_000)
    assert passwords.ask("Password: ") == "p\udcffw"
    assert len(sys.stdin.buffer.read()) == 20_000


def test_a_new_users_password_is_a_line_of_its_own(
    piped: Callable[[bytes], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    monkeypatch.setattr(auth, "_change", lambda of, method, request, *_: asked.append(request.password))
    piped(b"new words\nown\n")
    assert cli.run(["user", "add", "bob", "--interactive=false"]) == 0
    assert asked == ["new"]
    assert sys.stdin.buffer.read() == b"own\n"


def test_a_transactions_lines_follow_the_password(
    piped: Callable[[bytes], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It came behind them, and its line was taken for a compare."""
    asked: list[tuple[str, rpc_pb2.TxnRequest]] = []

    def ask(
        own: client.Session, method: str, request: rpc_pb2.TxnRequest, *_: object, **__: object
    ) -> rpc_pb2.TxnResponse:
        asked.append((own.config.password, request))
        return rpc_pb2.TxnResponse()

    monkeypatch.setattr(client.Session, "ask", ask)
    piped(b'pw\nmod("k") > "0"\n\nput k v\n\n\n')
    assert cli.run(["txn", "--user=root"]) == 0
    ((password, request),) = asked
    assert (password, len(request.compare), len(request.success)) == ("pw", 1, 1)
