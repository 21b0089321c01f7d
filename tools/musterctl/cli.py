"""musterctl's entry: match the command line, take the environment, run the command, exit as etcdctl does.

With ``--api 2`` before the subcommand, MUSTERCTL_API=2 or ETCDCTL_API=2 the line is of the v2 API (``v2``).

Exit codes: 0 done, 1 the request failed, 2 no client, 3 bad input, 4 unsupported value, 5 interrupted by the
server, 128 wrong arguments.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import signal
import sys
import threading
import warnings
from collections.abc import Iterator
from importlib import import_module
from typing import TYPE_CHECKING, NoReturn

from tools import ending
from tools.musterctl.command import Command, Exit, FlagError, Flags, Invocation, UnknownCommand, find
from tools.musterctl.commands import table as commands
from tools.musterctl.usage import usage

if TYPE_CHECKING:
    from typing_extensions import Buffer


def main() -> NoReturn:
    """Run ``sys.argv`` and end the process by ``_exit``: connections need no orderly end."""
    _begin_in_utf8()
    ending.at_once()
    warnings.simplefilter("ignore", ResourceWarning)  # of such connections, in Python's development mode
    _open_streams()
    try:
        code = run(sys.argv[1:])
        sys.stdout.flush()
    except OutputError as error:
        code = said(error)
    except InputError as error:
        print(f"Error: read /dev/stdin: {(error.strerror or '').lower()}", file=sys.stderr)
        code = 3
    sys.stderr.flush()
    os._exit(code)


def _begin_in_utf8() -> None:
    """Arguments, variables and names of files are octets, as to a program in Go. Python has read them by the
    locale; where that is of another encoding, this program begins again."""
    if sys.getfilesystemencoding() != "utf-8":
        os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])


class OutputError(OSError):
    """The output cannot be written."""


class InputError(OSError):
    """The input cannot be read."""


@contextlib.contextmanager
def _failing_as(kind: type[OSError]) -> Iterator[None]:
    """Tell a stream's failures from those of other files and of connections."""
    try:
        yield
    except OSError as error:
        raise kind(error.errno, error.strerror) from None


class _Input(io.FileIO):
    def readinto(self, buffer: Buffer, /) -> int | None:
        with _failing_as(InputError):
            return super().readinto(buffer)

    def readall(self) -> bytes:
        with _failing_as(InputError):
            return super().readall()


class _Output(io.FileIO):
    def write(self, data: Buffer, /) -> int:
        try:
            with _failing_as(OutputError):
                written = super().write(data)
        except OutputError as error:
            if error.errno == errno.EPIPE:
                _end_unread()
            raise
        if written is None:
            raise OutputError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        return written


def _end_unread() -> NoReturn:
    """Nobody reads the output any more (``| head``): end by the signal, which is ignored so that a broken
    connection is an error like any other."""
    while ending.unread:  # which may say something, and meet this again
        ending.unread.pop()()
    if threading.current_thread() is threading.main_thread():
        ending.by(signal.SIGPIPE)
    os._exit(ending.SHELLS + signal.SIGPIPE)


def _open_streams() -> None:
    """Those that are closed lead nowhere, as those of a program in Go. Errors come line by line, whatever
    PYTHONUNBUFFERED says: a signal may end the program at any time."""
    if sys.stdin is not None:
        given = io.BufferedReader(_Input(sys.stdin.fileno(), "rb", closefd=False))
        sys.stdin = io.TextIOWrapper(given, sys.stdin.encoding, sys.stdin.errors, newline="\n")
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is not None:
            output = io.BufferedWriter(_Output(stream.fileno(), "wb", closefd=False))
            by_line = name == "stderr" or bool(stream.line_buffering)
            setattr(sys, name, io.TextIOWrapper(
                output, stream.encoding, stream.errors, line_buffering=by_line))
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115


def run(line: list[str]) -> int:
    """Run one command line, without the program's name; the exit code."""
    for stream in (sys.stdout, sys.stderr):
        # keys and values are bytes: what is not UTF-8 must leave as it came
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(encoding="utf-8", errors="surrogateescape", newline="\n")
    try:
        version, words = _api_version(line)
        if version == "2":
            start = import_module("tools.musterctl.v2.start").start
            start(words)
        else:
            _dispatch(commands.root(), words)
    except Exit as end:
        sys.stdout.flush()
        return said(end)
    except UnicodeEncodeError:  # an argument for one of gRPC's strings
        wrong = "grpc: error while marshaling: string field contains invalid UTF-8"
        return said(Exit(1, f"rpc error: code = Internal desc = {wrong}"))
    return 0


def said(end: Exit | OutputError) -> int:
    """The exit code, once it is said why the program ends."""
    if isinstance(end, OutputError):
        print(f"Error: writing the output: {end.strerror}", file=sys.stderr, flush=True)
        return 1
    if end.message is not None:
        print(f"Error: {end.message}", file=sys.stderr, flush=True)
    return end.code


def _api_version(line: list[str]) -> tuple[str, list[str]]:
    """The API of the line, and the line without ``--api``."""
    version = os.environ.get("MUSTERCTL_API", "") or os.environ.get("ETCDCTL_API", "") or "3"
    if any(word == "--api" or word.startswith("--api=") for word in line):
        given, line = _without_api(line)
        version = version if given is None else given
    if version not in ("2", "3"):
        print(f"unsupported API version: {version}", file=sys.stderr)
        raise Exit(1)
    return version, line


def _without_api(line: list[str]) -> tuple[str | None, list[str]]:
    """The last value of ``--api`` before the subcommand, if any, and the other words.

    The API is not known yet: a word is a flag's value if it is one in either API.
    """
    taking = _flags_with_value()
    version: str | None = None
    kept: list[str] = []
    words = list(line)
    while words and len(words[0]) > 1 and words[0][0] == "-" and words[0] != "--":
        word = words.pop(0)
        name, equals, value = word.partition("=")
        if name == "--api":
            version = value if equals else (words.pop(0) if words else "")
            continue
        kept.append(word)
        if not equals and words and name.removeprefix("-").removeprefix("-") in taking:
            kept.append(words.pop(0))
    return version, kept + words


def _flags_with_value() -> set[str]:
    """The names of both APIs' global flags that take a value."""
    older = import_module("tools.musterctl.v2.table").GLOBAL
    newer = import_module("tools.musterctl.global_flags").GLOBAL_FLAGS
    names = {name for option in older if option.kind != "bool" for name in option.names}
    return names | {name for flag in newer if flag.kind != "bool" for name in (flag.name, flag.short) if name}


def _dispatch(root: Command, line: list[str]) -> None:
    try:
        command, rest = find(root, line)
    except UnknownCommand as error:
        print(f"Error: {error}\nRun '{root.name} --help' for usage.", file=sys.stderr)
        if error.word in (command.name for command in import_module("tools.musterctl.v2.table").COMMANDS):
            # articles about etcd up to 3.3, where version 2 is the default, name no version
            hint = f"{error.word} is a command of API version 2: say --api 2, or set ETCDCTL_API=2"
            print(hint, file=sys.stderr)
        raise Exit(1, str(error)) from None
    flags = Flags(command.all_flags())
    try:
        args = flags.parse(rest)
    except FlagError as error:
        print(f"Error: {error}", file=sys.stderr)
        sys.stdout.write(usage(command))
        print(file=sys.stderr)
        raise Exit(1, str(error)) from None
    if flags.switch("help") or not command.run:
        sys.stdout.write(usage(command))
        return
    module, function = command.run.split(":")
    invocation = Invocation(command, flags, args, line)
    getattr(import_module(f"tools.musterctl.commands.{module}"), function)(invocation)
