"""``muster completion SHELL``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from tools.completion import SHELLS, Entry, Program
from tools.muster.config.flags import SERVER_FLAGS
from tools.muster.config.kinds import Flag, Support
from tools.muster.config.parse import UsageError
from tools.muster.console import FLAGS as CONSOLE_FLAGS
from tools.muster.gateway.cli import FLAGS as GATEWAY_FLAGS
from tools.muster.local.commands import FLAGS as LOCAL_FLAGS
from tools.muster.proxy_cli import FLAGS as PROXY_FLAGS


def _flags(flags: Iterable[Flag]) -> list[tuple[str, str]]:
    return [(flag.name, flag.help) for flag in flags if flag.support is Support.WORKS]


def program(commands: Mapping[str, str]) -> Program:
    """All of muster's commands, whose names and meanings are ``commands``."""
    local = [Entry(name, flags=_flags(LOCAL_FLAGS.values())) for name in ("status", "kill", "stop", "start")]
    of = {
        "local": Entry("local", commands["local"], _flags(LOCAL_FLAGS.values()), local),
        "proxy": Entry("proxy", commands["proxy"], _flags(PROXY_FLAGS.values())),
        "gateway": Entry(
            "gateway", commands["gateway"], (), [Entry("start", flags=_flags(GATEWAY_FLAGS.values()))]),
        "console": Entry("console", commands["console"], _flags(CONSOLE_FLAGS.values())),
        "peer-keys": Entry(
            "peer-keys", commands["peer-keys"], [(step, "") for step in ("add", "rotate", "drop")]),
        "completion": Entry("completion", commands["completion"], (), [Entry(shell) for shell in SHELLS]),
    }
    children = [of.get(name, Entry(name, short)) for name, short in commands.items()]
    return Program(Entry("muster", "", _flags(SERVER_FLAGS.values()), children))


def run(args: list[str], commands: Mapping[str, str]) -> int:
    """Print a script; the exit code. UsageError."""
    if len(args) != 1 or args[0] not in SHELLS:
        raise UsageError(f"usage: muster completion {'|'.join(SHELLS)}")
    print(SHELLS[args[0]](program(commands)), end="")
    return 0
