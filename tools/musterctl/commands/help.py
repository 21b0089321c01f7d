"""``help``."""

from __future__ import annotations

import sys

from tools.musterctl.command import FlagError, Invocation, find
from tools.musterctl.usage import usage


def help_command(invocation: Invocation) -> None:
    """``help [command]``."""
    root = invocation.command.parent
    assert root is not None
    try:
        command, _ = find(root, invocation.args)
    except FlagError:
        topics = " ".join(f"`{arg}`" for arg in invocation.args)
        print(f"Unknown help topic [{topics}]", file=sys.stderr)
        command = root
    sys.stdout.write(usage(command))
