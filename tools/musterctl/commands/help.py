"""``help``."""

from __future__ import annotations

import sys

from tools.musterctl.command import FlagError, Invocation, find
from tools.musterctl.printing.layout import align_tabs
from tools.musterctl.usage import flag_lines, usage


def help_command(invocation: Invocation) -> None:
    root = invocation.command.parent
    assert root is not None
    try:
        command, _ = find(root, invocation.args)
    except FlagError:
        topics = " ".join(f"`{arg}`" for arg in invocation.args)
        print(f"Unknown help topic [{topics}]", file=sys.stderr)
        command = root
    sys.stdout.write(usage(command))


def options(invocation: Invocation) -> None:
    """The global flags, as etcdctl's since 3.7."""
    flags = invocation.command.global_flags()
    print("The following options can be passed to any command:\n")
    sys.stdout.write(align_tabs(flag_lines(flags)))
