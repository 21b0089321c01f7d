"""``completion``: scripts that complete commands and flags."""

from __future__ import annotations

from tools.completion import SHELLS, Entry, Program
from tools.musterctl.command import Command, Exit, Invocation


def _entry(command: Command) -> Entry:
    flags = command.local_flags() if command.parent is not None else []
    return Entry(
        command.name, command.short, [(flag.name, flag.usage) for flag in flags],
        [_entry(child) for child in command.children])


def completion(invocation: Invocation) -> None:
    from tools.musterctl.commands.table import root

    shell = SHELLS.get(invocation.command.name)
    if shell is None or invocation.args:
        raise Exit(128, "completion command needs one shell and no argument")
    top = root()
    print(shell(Program(_entry(top), [(flag.name, flag.usage) for flag in top.local_flags()])), end="")
