"""What a front says of itself, and how its process is set up: logs, status lines, CPU, garbage collection."""

from __future__ import annotations

import gc
import json
import logging
import os
import sys
from typing import Any, TextIO

import psutil
import structlog

_LEVELS = {"debug": 10, "info": 20, "warn": 30, "error": 40, "panic": 50, "dpanic": 50, "fatal": 50}
# A front makes few cycles and many short-lived objects: collecting the young seldom, the old almost never
_GC_THRESHOLDS = (50_000, 20, 100)


class StatusPipe:
    """JSON lines to the supervisor; silent without one."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def say(self, event: str, **facts: Any) -> None:
        """One line; a supervisor that is gone is no error (the front is being stopped)."""
        if self._fd < 0:
            return
        try:
            os.write(self._fd, json.dumps({"event": event, **facts}).encode() + b"\n")
        except OSError:
            self._fd = -1


def configure_logging(level: str, form: str, outputs: tuple[str, ...], **facts: Any) -> None:
    """Structured logs (one JSON object or console line each) with ``facts`` in every line."""
    stream: TextIO = sys.stdout if outputs == ("stdout",) else sys.stderr
    if outputs and outputs[0] not in ("default", "stderr", "stdout", "systemd/journal"):
        stream = open(outputs[0], "a", buffering=1)  # noqa: SIM115 (open for the life of the process)
    renderer: Any = (
        structlog.processors.JSONRenderer() if form == "json" else structlog.dev.ConsoleRenderer(colors=False)
    )
    structlog.configure(
        processors=[
            lambda logger, name, event: {**facts, **event},  # context variables do not reach every callback
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="ts"),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS.get(level, logging.INFO)),
        logger_factory=structlog.PrintLoggerFactory(file=stream),
        cache_logger_on_first_use=False,
    )


def pin(cpu: int) -> None:
    """Run on one CPU, if that is wanted and there is such a one."""
    if cpu >= 0 and cpu in (psutil.Process().cpu_affinity() or []):
        psutil.Process().cpu_affinity([cpu])


def settle_memory() -> None:
    """What has been loaded stays: take it out of every later collection."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_GC_THRESHOLDS)
