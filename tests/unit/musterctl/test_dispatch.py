"""The table of commands names functions by words; each of them is there."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module

import pytest

from tools.musterctl.command import Command
from tools.musterctl.commands import table


def runs(command: Command) -> Iterator[str]:
    if command.run:
        yield command.run
    for child in command.children:
        yield from runs(child)


@pytest.mark.parametrize("run", sorted(set(runs(table.root()))))
def test_a_commands_function_is_there(run: str) -> None:
    module, function = run.split(":")
    assert callable(getattr(import_module(f"tools.musterctl.commands.{module}"), function))
