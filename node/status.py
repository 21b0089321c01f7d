"""What a node says of itself: JSON lines to its supervisor, structured logs to its operator."""

from __future__ import annotations

import json
import logging
import os
import sys
from typing import Any, TextIO

import structlog

from cluster import logline


class StatusPipe:
    """JSON lines to the supervisor; silent without one."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def say(self, event: str, **facts: Any) -> None:
        """One line; a supervisor that is gone is no error here (the node is being stopped)."""
        if self._fd < 0:
            return
        try:
            os.write(self._fd, json.dumps({"event": event, **facts}).encode() + b"\n")
        except OSError:
            self._fd = -1


class _Outputs:
    """What ``--log-outputs`` names, as one stream."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self._streams: list[TextIO] = []
        for name in names or ("default",):
            if name in ("default", "stderr", "systemd/journal"):  # under systemd, stderr is the journal
                self._streams.append(sys.stderr)
            elif name == "stdout":
                self._streams.append(sys.stdout)
            else:
                self._streams.append(open(name, "a", encoding="utf-8"))  # noqa: SIM115 (open for the life of the process)

    def write(self, data: str) -> None:
        for stream in self._streams:
            stream.write(data)

    def flush(self) -> None:
        for stream in self._streams:
            stream.flush()


def configure_logging(level: str, form: str, outputs: tuple[str, ...], **facts: Any) -> None:
    """Structured logs (one JSON object or console line each) with ``facts`` in every line, to every output."""
    renderer: Any = structlog.processors.JSONRenderer() if form == "json" else logline.text
    structlog.configure(
        processors=[
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="ts"),
            structlog.processors.format_exc_info,
            logline.shape("muster/node", **facts),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logline.LEVELS.get(level, logging.INFO)),
        logger_factory=structlog.PrintLoggerFactory(file=_Outputs(outputs)),  # type: ignore[arg-type]
        cache_logger_on_first_use=False,
    )
