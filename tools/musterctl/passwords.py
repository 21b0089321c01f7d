"""A password that is asked for: a line of standard input, not shown on a terminal."""

from __future__ import annotations

import contextlib
import getpass
import signal
import sys
import termios
from collections.abc import Iterator
from types import FrameType

from cluster.gotext import text
from tools import ending
from tools.musterctl.command import Exit

_ENDING = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM)


def ask(prompt: str, gap: str = "\n") -> str:
    """``gap`` is printed behind the prompt where there is no terminal. Nothing at the input's end."""
    if not sys.stdin.isatty():
        print(prompt, end=gap, flush=True)
        # the text layer would take what follows, which a command reads as octets
        return text(sys.stdin.buffer.readline()).rstrip("\r\n")
    with _echo_given_back():
        try:
            return getpass.getpass(prompt)
        except EOFError:
            print(file=sys.stderr)
            return ""
        except UnicodeDecodeError:  # of a terminal that is not UTF-8
            raise Exit(1, "the password is not in UTF-8") from None


@contextlib.contextmanager
def _echo_given_back() -> Iterator[None]:
    """Also if a signal ends the program."""
    before = termios.tcgetattr(sys.stdin)

    def end(number: int, frame: FrameType | None) -> None:
        termios.tcsetattr(sys.stdin, termios.TCSANOW, before)
        ending.by(number)

    handlers = [(number, signal.signal(number, end)) for number in _ENDING
                if signal.getsignal(number) is not signal.SIG_IGN]
    try:
        yield
    finally:
        for number, handler in handlers:
            signal.signal(number, handler)
