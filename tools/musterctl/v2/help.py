"""Help texts in the layout of etcdctl's v2 commands."""

from __future__ import annotations

from collections.abc import Sequence

from cluster import gotext
from tools.musterctl.usage import version
from tools.musterctl.v2.line import HELP, Option
from tools.musterctl.v2.table import COMMANDS, GLOBAL, HELP_COMMAND, Command

PROGRAM = "musterctl"
_ABOUT = "A simple command line client for etcd."


def of_help(parent: Command | None) -> str:
    """``help help``, ``member help help``."""
    path = f"{PROGRAM} {parent.name} help" if parent else ""
    name, use = (f"   {path}", f"   {path} [command]") if parent else ("   ", "    [command]")
    return f"NAME:\n{name} - {HELP_COMMAND.usage}\n\nUSAGE:\n{use}\n"


def whole() -> str:
    return _app(PROGRAM, _ABOUT, COMMANDS, GLOBAL, HELP_COMMAND)


def group(parent: Command) -> str:
    """``member --help``."""
    listed = "".join(
        f"   {row}\n" for row in _columns([(child.name, child.usage) for child in parent.children])
    )
    return (
        f"NAME:\n   {PROGRAM} {parent.name} - {parent.usage}\n\n"
        f"USAGE:\n   {PROGRAM} {parent.name} command [command options] [arguments...]\n\n"
        f"COMMANDS:\n{listed}\nOPTIONS:\n{_options([HELP])}   \n")


def group_as_program(parent: Command) -> str:
    """``member help``."""
    return _app(f"{PROGRAM} {parent.name}", parent.usage, parent.children, [HELP], None)


def command(of: Command, parent: Command | None = None) -> str:
    path = f"{PROGRAM} {parent.name} {of.name}" if parent else f"{PROGRAM} {of.name}"
    shown = [option for option in of.options if option.usage]
    if of.name == "backup":
        use = "[deprecated] offline backup an etcd directory."
    else:
        use = f"{path}{' [command options]' if shown else ''} {of.args or '[arguments...]'}"
    text = f"NAME:\n   {path} - {of.usage}\n\nUSAGE:\n   {use}\n"
    if of.description:
        text += f"\nDESCRIPTION:\n   {of.description}\n"
    if shown:
        text += f"\nOPTIONS:\n{_options(shown)}   \n"
    return text


def _app(
    name: str, usage: str, commands: Sequence[Command], options: Sequence[Option], last: Command | None
) -> str:
    rows = [(c.name, c.usage) for c in commands if not c.hidden]
    if last:
        rows.append((f"{last.name}, h", last.usage))
    listed = "".join(f"   {row}\n" for row in _columns(rows))
    return (
        f"NAME:\n   {name} - {usage}\n\n"
        f"USAGE:\n   {name} [global options] command [command options] [arguments...]\n\n"
        f"VERSION:\n   {version()}\n\n"
        f"COMMANDS:\n{listed}\nGLOBAL OPTIONS:\n{_options(options)}")


def _options(options: Sequence[Option]) -> str:
    return "".join(f"   {row}\n" for row in _columns([_option(option) for option in options]))


def _option(option: Option) -> tuple[str, str]:
    usage, word = option.usage, "" if option.kind == "bool" else " value"
    if usage.count("`") >= 2:
        before, named, after = usage.split("`", 2)
        usage, word = before + named + after, f" {named}"
    names = ", ".join(f"{'-' if len(name) == 1 else '--'}{name}{word}" for name in option.names)
    if option.default:
        default = gotext.quote(option.default) if option.kind == "string" else option.default
        usage += f" (default: {default})"
    return names, usage


def _columns(rows: Sequence[tuple[str, str]]) -> list[str]:
    width = max((len(left) for left, _ in rows), default=0) + 2
    return [f"{left.ljust(width)}{right}" for left, right in rows]
