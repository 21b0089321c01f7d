"""``--help`` and docs/know/flags.md from the flag table: ``python -m tools.muster.flag_docs``."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping

from tools.muster.config.flags import SERVER_FLAGS
from tools.muster.config.kinds import Flag, Kind, Support

HIDDEN = ("deprecated names", "accepted and ignored", "removed from etcd")  # only in the documentation


def groups(table: Mapping[str, Flag]) -> dict[str, list[Flag]]:
    found: dict[str, list[Flag]] = {}
    for flag in table.values():
        found.setdefault(flag.group, []).append(flag)
    return found


SERVER_USAGE = "Usage:\n\n  muster [flags]\n    Run a server: one host of a cluster."
"""Behind a message, with which it is the five lines that ``last_lines`` of a log shows."""


def usage(commands: Mapping[str, str]) -> str:
    lines = [SERVER_USAGE, ""]
    for command, what in commands.items():
        lines += [f"  muster {command}", f"    {what[0].upper()}{what[1:]}."]
    for group, flags in groups(SERVER_FLAGS).items():
        if group in HIDDEN:
            continue
        lines += ["", f"{group.capitalize()}:", ""]
        for flag in flags:
            lines += _entry(flag)
    lines += [
        "",
        "Every flag has a variable, MUSTER_NAME or ETCD_NAME: the command line wins, "
        "then MUSTER_, then ETCD_.",
    ]
    lines += ["Deprecated, ignored and removed names of etcd: see docs/know/flags.md."]
    return "\n".join(lines)


def flag_list(table: Mapping[str, Flag]) -> str:
    """The flags of a small table, for a subcommand's help."""
    return "\n".join(line for flag in table.values() for line in _entry(flag))


def _entry(flag: Flag) -> list[str]:
    default = "" if flag.kind is Kind.BOOL and flag.default == "false" else f" '{flag.default}'"
    note = "" if flag.support is Support.WORKS else f" [{flag.support.value}]"
    return [
        f"  --{flag.name}{default}",
        *textwrap.wrap(flag.help + note, 100, break_on_hyphens=False,
                       initial_indent="      ", subsequent_indent="      "),
    ]


_HEAD = """# Server flags

Every flag of `muster`, with default and meaning, for operators. `make docs` makes this page; `muster --help`
prints the same.

- Names and defaults are etcd's; muster's own come first.
- Each flag has two variables, `MUSTER_NAME` and `ETCD_NAME`. The command line wins, then `MUSTER_`, then
  `ETCD_`. With `--config-file` only the file counts.
- A key of the file is the flag's name, or is [nested](#keys-of-the-file). There, durations may be
  numbers of nanoseconds.
- muster refuses a flag that it cannot honour, unless the flag has its default value."""


def markdown() -> str:
    """docs/know/flags.md."""
    lines = [_HEAD]
    for group, flags in groups(SERVER_FLAGS).items():
        work = [flag for flag in flags if flag.support is Support.WORKS]
        if group not in HIDDEN and work:
            lines += ["", f"## {group.capitalize()}", "", "|flag|default|meaning|", "|---|---|---|"]
            lines += [_row(flag) for flag in work]
    return "\n".join([*lines, *_keys(), *_without()])


def _row(flag: Flag) -> str:
    default = f"`{flag.default}`" if flag.default else ""
    return f"|`--{flag.name}`|{default}|{flag.help.replace('|', BAR)}|"


BAR = "\\|"


def _keys() -> list[str]:
    """The file's keys that differ from the flag's name."""
    others: dict[str, list[str]] = {}
    for flag in SERVER_FLAGS.values():
        if flag.yaml_path and flag.yaml_path != (flag.name,):
            prefix = "/".join(flag.yaml_path[:-1])
            others.setdefault(prefix, []).append(flag.yaml_path[-1])
    none = [f"`--{flag.name}`" for flag in SERVER_FLAGS.values() if _only_a_flag(flag)]
    return [
        "",
        "## Keys of the file",
        "",
        "These are nested, here with `/`; etcd's names:",
        "",
        *(_item(f"`{prefix}/`", keys) for prefix, keys in others.items()),
        _item("in no file", none),
    ]


def _item(what: str, names: list[str]) -> str:
    return "\n".join(textwrap.wrap(
        f"- {what}: {', '.join(names)}", 110, subsequent_indent="  ", break_on_hyphens=False,
        break_long_words=False))


def _only_a_flag(flag: Flag) -> bool:
    return not flag.yaml_path and flag.support is Support.WORKS and flag.group != "meta"


def _without() -> list[str]:
    """A line for each kind of flag without an effect."""

    def named(support: Support) -> list[str]:
        return [f"`--{flag.name}`" for flag in SERVER_FLAGS.values() if flag.support is support]

    aliases = [flag for flag in SERVER_FLAGS.values() if flag.support is Support.ALIAS]
    gates = [flag for flag in aliases if ":" in flag.alias]
    same = [flag.alias for flag in aliases if f"experimental-{flag.alias}" == flag.name]
    rest = [flag for flag in aliases if flag not in gates and flag.name != f"experimental-{flag.alias}"]
    return [
        "",
        "## Flags that do nothing of their own",
        "",
        _item("Accepted, without effect in muster", named(Support.NO_EFFECT)),
        _item("Accepted and ignored, as by etcd", named(Support.IGNORED)),
        _item("Refused, unless empty", named(Support.REFUSED)),
        _item("Deprecated: `--experimental-X` stands for `--X`, where X is", same),
        _item("Deprecated: the name of another flag", [f"`--{flag.name}` (`{flag.alias}`)" for flag in rest]),
        _item(
            "Deprecated: the name of a feature gate",
            [f"`--{flag.name}` (`{flag.alias.partition(':')[2]}`)" for flag in gates]),
    ]


if __name__ == "__main__":
    print(markdown())
