"""A command line of the v2 API: find the command and run it."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from importlib import import_module

from tools.musterctl.command import Exit
from tools.musterctl.usage import version
from tools.musterctl.v2 import help as helps
from tools.musterctl.v2.line import HELP, DoubledError, LineError, Values, options_first, parse
from tools.musterctl.v2.table import COMMANDS, GLOBAL, Command, find

_NO_TOPIC = 3
_HELP = ("help", "h")
_DEEPEST = 20_000  # calls: a key of 4096 bytes has 2,047 levels, and JSON of it twice that


@dataclass(slots=True)
class Run:
    globals: Values
    options: Values
    args: list[str]


def start(words: list[str]) -> None:
    """Run a line without the program's name. Exit."""
    try:
        given, rest = parse(GLOBAL, words)
    except DoubledError as error:
        raise _wrong("", error, helps.whole(), gap="") from None
    except LineError as error:
        raise _wrong("Incorrect Usage. ", error, helps.whole()) from None
    if given.switch("help"):
        return _show(helps.whole())
    if given.switch("version"):
        return _show(f"{helps.PROGRAM} version: {version()}\nAPI version: 2\n")
    name = rest[0] if rest else ""
    if name in ("", *_HELP):
        return _topic(rest[1:], COMMANDS, None)
    command = find(COMMANDS, name)
    if command is None:
        raise _no_topic(name)
    if command.children:
        return _group(command, given, rest[1:])
    _one(command, None, given, rest[1:])


def _group(parent: Command, given: Values, words: list[str]) -> None:
    try:
        options, rest = parse([HELP], words)
    except LineError as error:
        raise _wrong("Incorrect Usage. ", error, helps.group(parent)) from None
    if options.switch("help") or not rest or not rest[0]:
        return _show(helps.group(parent))
    if rest[0] in _HELP:
        return _topic(rest[1:], parent.children, parent)
    command = find(parent.children, rest[0])
    if command is None:
        raise _no_topic(rest[0])
    _one(command, parent, given, rest[1:])


def _one(command: Command, parent: Command | None, given: Values, words: list[str]) -> None:
    text = helps.command(command, parent)
    known = [*command.options, HELP]
    try:
        options, args = parse(known, options_first(known, words))
    except LineError as error:
        raise _wrong("Incorrect Usage: ", error, text) from None
    if options.switch("help"):
        return _show(text)
    module, function = command.run.split(":")
    sys.setrecursionlimit(max(sys.getrecursionlimit(), _DEEPEST))
    getattr(import_module(f"tools.musterctl.v2.commands.{module}"), function)(Run(given, options, args))


def _topic(words: list[str], commands: tuple[Command, ...], parent: Command | None) -> None:
    try:
        options, words = parse([HELP], words)
    except LineError as error:
        raise _wrong("Incorrect Usage: ", error, helps.of_help(parent)) from None
    if options.switch("help"):
        return _show(helps.of_help(parent))
    if not words:
        return _show(helps.group_as_program(parent) if parent else helps.whole())
    if words[0] in _HELP:
        return _show(helps.of_help(parent))
    if parent and not words[0]:
        return _show(helps.group(parent))
    command = find(commands, words[0])
    if command is None:
        raise _no_topic(words[0])
    _show(helps.command(command, parent))


def _show(text: str) -> None:
    sys.stdout.write(text)


def _no_topic(name: str) -> Exit:
    print(f"No help topic for '{name}'", file=sys.stderr)
    return Exit(_NO_TOPIC)


def _wrong(prefix: str, error: LineError, text: str, gap: str = "\n") -> Exit:
    sys.stdout.write(f"{prefix}{error}\n{gap}{text}")
    sys.stdout.flush()
    print(error, file=sys.stderr)
    return Exit(1)
