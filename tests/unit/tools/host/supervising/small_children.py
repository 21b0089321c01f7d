"""A supervisor whose children are ten lines of Python."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tools.muster.host.supervising.children import ChildSpec
from tools.muster.host.supervising.supervisor import StopLimits, Supervisor

LIMIT_S = 60.0
LIMITS = StopLimits(front_s=30.0, node_s=30.0)
PRELUDE = """
import json, os, signal, sys, time
fd, log = int(sys.argv[1]), sys.argv[2]
def say(**event): os.write(fd, json.dumps(event).encode() + b"\\n")
def note(text): os.write(os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT), (text + "\\n").encode())
def until_term():
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM]); note("up"); say(event="ready")
    signal.sigwait([signal.SIGTERM])
"""
GOOD = "until_term(); note('down')"


class Log:
    """Keeps what was logged."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str, dict[str, Any]]] = []

    def info(self, event: str, **fields: Any) -> None:
        self.lines.append(("info", event, fields))

    def warning(self, event: str, **fields: Any) -> None:
        self.lines.append(("warn", event, fields))

    def error(self, event: str, **fields: Any) -> None:
        self.lines.append(("error", event, fields))

    def all(self, event: str) -> list[dict[str, Any]]:
        return [fields for _, e, fields in self.lines if e == event]


class Host:
    """Children by name, their notes in one file, and a supervisor over them."""

    def __init__(self, folder: Path, *, serving: str = "", shared_fd: int = -1, **bodies: str) -> None:
        self.notes = folder / "notes"
        self.log = Log()
        specs = []
        for name, body in bodies.items():
            kind, index = name.split("_")
            code = PRELUDE.replace('(text + "', f'("{name} " + text + "') + body
            specs.append(ChildSpec(
                kind, int(index), -1, self._argv(code), serves=name == serving, shared_fd=shared_fd))
        self.grown: list[int] = []
        self.served = 0
        self.supervisor = Supervisor(specs, self.log, LIMITS, self._grown, self, self._served)
        self.dropped: list[int] = []
        self.full = 0  # so many directories of born shards cannot be made

    def make(self, shard: int, voters: Sequence[int], cpus: Sequence[int]) -> ChildSpec:
        if self.full:
            self.full -= 1
            raise OSError("no space left")
        return ChildSpec("node", shard, -1, self._argv(PRELUDE + GOOD))

    def drop(self, shard: int) -> None:
        self.dropped.append(shard)

    def _grown(self, level: int) -> None:
        if level > 1:
            raise OSError("no space left")
        self.grown.append(level)

    def _served(self) -> None:
        self.served += 1
        if self.full:
            raise OSError("no space left")

    def _argv(self, code: str) -> Callable[[int], list[str]]:
        return lambda fd: [sys.executable, "-S", "-c", code, str(fd), str(self.notes)]

    def noted(self) -> list[str]:
        return self.notes.read_text(encoding="utf-8").splitlines() if self.notes.exists() else []

    def pid(self, index: int) -> int:
        return self.supervisor.children[index].pid

    async def until(self, condition: Callable[[], Any]) -> None:
        deadline = time.monotonic() + LIMIT_S
        while not condition():
            assert time.monotonic() < deadline, (self.noted(), self.log.lines)
            await asyncio.sleep(0.01)

    def run(self, scenario: Callable[[], Any]) -> int:
        async def main() -> int:
            task = asyncio.create_task(self.supervisor.run())
            try:
                await scenario()
            finally:
                self.supervisor.stop()
            return await task

        return asyncio.run(main())
