"""``--help`` and docs/flags.md, made from the flag table: ``python -m tools.muster.flag_docs >
docs/flags.md``."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping

from tools.muster.config.flags import SERVER_FLAGS, Flag, Kind, Support

HIDDEN = ("deprecated names", "accepted and ignored", "removed from etcd")  # only in the documentation


def groups(table: Mapping[str, Flag]) -> dict[str, list[Flag]]:
    """The flags by group, in the table's order."""
    found: dict[str, list[Flag]] = {}
    for flag in table.values():
        found.setdefault(flag.group, []).append(flag)
    return found


def usage(commands: Mapping[str, str]) -> str:
    """The text of ``--help``."""
    lines = ["Usage:", "", "  muster [flags]", "    Run a server: one host of a cluster.", ""]
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
    lines += ["Deprecated, ignored and removed names of etcd: see docs/flags.md."]
    return "\n".join(lines)


def flag_list(table: Mapping[str, Flag]) -> str:
    """The flags of a small table, for a subcommand's help."""
    return "\n".join(line for flag in table.values() for line in _entry(flag))


def _entry(flag: Flag) -> list[str]:
    default = "" if flag.kind is Kind.BOOL and flag.default == "false" else f" '{flag.default}'"
    note = "" if flag.support is Support.WORKS else f" [{flag.support.value}]"
    return [
        f"  --{flag.name}{default}",
        *textwrap.wrap(flag.help + note, 100, initial_indent="      ", subsequent_indent="      "),
    ]


def markdown() -> str:
    """docs/flags.md."""
    lines = [
        "# Server flags",
        "",
        "Made from the flag table by `make docs`. Names, defaults and file keys are etcd's; "
        "muster's own stand first.",
        "Precedence: `--config-file` alone, if given; else command line, `MUSTER_*`, `ETCD_*`, default.",
        "",
        "A flag that muster does not support is refused at start unless it has its default value:",
        "no setting is dropped in silence. In the file, durations written as numbers are nanoseconds.",
    ]
    for group, flags in groups(SERVER_FLAGS).items():
        lines += [
            "",
            f"## {group.capitalize()}",
            "",
            "| flag | default | file key | meaning | in muster |",
            "|---|---|---|---|---|",
        ]
        for f in flags:
            meaning = f.help.replace("|", "\\|")
            support = "" if f.support is Support.WORKS else f.support.name.replace("_", " ").lower()
            default = f"`{f.default}`" if f.default else ""
            key = f"`{'/'.join(f.yaml_path)}`" if f.yaml_path else ""
            lines.append(f"| `--{f.name}` | {default} | {key} | {meaning} | {support} |")
    lines += [
        "",
        *(f"- **{s.name.replace('_', ' ').lower()}**: {s.value}" for s in Support if s is not Support.WORKS),
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    print(markdown())
