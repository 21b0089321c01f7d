"""Structured logs of nodes and fronts: one line per event (``cluster.logline``), to everything ``--log-outputs`` names."""

from __future__ import annotations

import logging
import sys
from typing import Any, TextIO

import structlog

from cluster import logline
from cluster.faults import faults
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
    """From now on structlog writes JSON or console lines (``form``) of ``caller``, with ``facts`` in every one."""
    renderer: Any = structlog.processors.JSONRenderer() if form == "json" else logline.text
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


class Repeats:
    """Which complaints are news: the same cause is told once in ``interval_s``, and few causes are told apart, since a
    stranger may name any number of them."""

    def __init__(self, interval_s: float = 60.0, causes: int = 64) -> None:
        self._interval_s = interval_s
        self._causes = causes
        self._told: dict[object, float] = {}  # cause -> when

    def news(self, cause: object, now: float) -> bool:
        """Whether to tell it. ``now``: seconds of any one clock."""
        if now - self._told.get(cause, float("-inf")) < self._interval_s:
            return False
        if len(self._told) >= self._causes:
            self._told = {cause: at for cause, at in self._told.items() if now - at < self._interval_s}
            if len(self._told) >= self._causes:
                return False
        self._told[cause] = now
        return True


def log_faults(log: Any) -> None:
    """Log the faults that requests have met since the last time: each place's first one with its stack."""
    for where, error in faults.take():
        log.error("a request met a fault of this program", where=where, exc_info=error)
