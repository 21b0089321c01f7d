"""Structured logs of nodes and fronts: one line per event (``cluster.logline``), to everything
``--log-outputs`` names."""

from __future__ import annotations

import logging
import sys
from typing import Any, TextIO

import structlog

from cluster import logline
from tools.muster.machine.logfile import LogFile


class _Outputs:
    """What ``--log-outputs`` names, as one stream."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self._streams: list[TextIO | LogFile] = []
        for name in names or ("default",):
            if name in ("default", "stderr", "systemd/journal"):  # under systemd, stderr is the journal
                self._streams.append(sys.stderr)
            elif name == "stdout":
                self._streams.append(sys.stdout)
            else:
                self._streams.append(LogFile(name))

    def write(self, data: str) -> None:
        for stream in self._streams:
            stream.write(data)

    def flush(self) -> None:
        for stream in self._streams:
            stream.flush()


def configure(caller: str, level: str, form: str, outputs: tuple[str, ...], **facts: Any) -> None:
    """From now on structlog writes JSON or console lines (``form``) of ``caller``, with ``facts`` in every
    one."""
    renderer: Any = logline.in_json if form == "json" else logline.text
    structlog.configure(
        processors=[
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="ts"),
            structlog.processors.format_exc_info,
            logline.shape(caller, **facts),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logline.LEVELS.get(level, logging.INFO)),
        logger_factory=structlog.PrintLoggerFactory(file=_Outputs(outputs)),  # type: ignore[arg-type]
        cache_logger_on_first_use=False,
    )
