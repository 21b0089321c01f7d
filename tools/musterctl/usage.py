"""Help texts in etcdctl's layout, and the short form of a txn's commands."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from cluster.gotext import quote
from tools.musterctl import API_VERSION
from tools.musterctl.command import Command, Flag
from tools.musterctl.printing.layout import align_tabs


def version() -> str:
    """muster's version."""
    from importlib import metadata

    try:
        return metadata.version("muster")
    except metadata.PackageNotFoundError:  # run from a source tree
        return "0.0.0"


def usage(command: Command) -> str:
    blocks = [f"NAME:\n\t{command.path(with_root=False)} - {command.short}\n"]
    blocks.append(f"\nUSAGE:\n\t{_use_line(command)}\n")
    if command.parent is None:
        blocks.append(f"\nVERSION:\n\t{version()}\n")
    if command.children:
        blocks.append(f"\nAPI VERSION:\n\t{API_VERSION}\n")
        listed = sorted(_runnable(command), key=lambda c: c.path())
        skip = len(command.path().split())
        rows = [f"\t{' '.join(c.path().split()[skip:])}\t{c.short}\n" for c in listed]
        blocks.append("\n\nCOMMANDS:\n" + "".join(rows))
    if command.long:
        blocks.append("\nDESCRIPTION:\n" + "".join(f"\t{line}\n" for line in command.long.split("\n")))
    local = command.local_flags()
    blocks.append("\nOPTIONS:\n" + flag_lines([flag for flag in local if not (flag.newer or flag.own)]))
    if newer := [flag for flag in local if flag.newer]:
        blocks.append("\nOPTIONS OF ETCDCTL 3.6 AND LATER:\n" + flag_lines(newer))
    if own := [flag for flag in local if flag.own]:
        blocks.append("\nOPTIONS OF MUSTERCTL:\n" + flag_lines(own))
    if command.parent is not None:
        above = command.global_flags()
        blocks.append("\nGLOBAL OPTIONS:\n" + flag_lines([flag for flag in above if not flag.newer]))
        if newer := [flag for flag in above if flag.newer]:
            blocks.append("\nGLOBAL OPTIONS OF ETCDCTL 3.6 AND LATER:\n" + flag_lines(newer))
    return align_tabs("".join(blocks) + "\n")


def _use_line(command: Command) -> str:
    before = command.parent.path() + " " if command.parent else ""
    return f"{before}{command.use} [flags]"


def _runnable(command: Command) -> Iterator[Command]:
    for child in command.children:
        if child.run:
            yield child
        yield from _runnable(child)


def flag_lines(flags: Sequence[Flag]) -> str:
    """A line for each flag; tabs are still to be aligned."""
    lines = []
    for flag in flags:
        name = f"  -{flag.short}, --{flag.name}" if flag.short else f"      --{flag.name}"
        default = flag.shown_default
        if flag.kind == "string":
            default = quote(default)
        lines.append(f"{name}[={default}]" if flag.kind == "bool" else f"{name}={default}")
        lines.append(f"\t{flag.usage}\n")
    return "".join(lines)


def short_usage(command: Command) -> str:
    """For a bad line of a txn: no global flags, only etcdctl 3.5's, plain alignment."""
    rows = []
    for flag in (flag for flag in command.local_flags() if not (flag.newer or flag.own)):
        name = f"  -{flag.short}, --{flag.name}" if flag.short else f"      --{flag.name}"
        kind = "" if flag.kind == "bool" else f" {flag.kind}"
        default = ""
        if flag.default not in ("", "0", "false") or (flag.kind == "string" and flag.default):
            default = f" (default {quote(flag.default)})"
        rows.append((name + kind, flag.usage + default))
    width = max(len(name) for name, _ in rows)
    lines = "".join(f"{name.ljust(width)}   {text}\n" for name, text in rows)
    return f"Usage:\n   {command.use} [flags]\n\nFlags:\n{lines}\n"
