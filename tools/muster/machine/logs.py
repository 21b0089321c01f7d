"""Logs of nodes and fronts: one line per event (``cluster.logline``), to all of ``--log-outputs``."""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Sequence
from typing import Any, TextIO

import structlog

from cluster import logline
from tools.muster.machine.logfile import LogFile


class Outputs:
    """All of ``--log-outputs`` as one file: each of them once, and none with ``/dev/null`` among them, as in
    etcd. OSError if one cannot be opened. Later a full disk, or a terminal that has gone, loses lines: a
    log's trouble is not the store's."""

    def __init__(self, names: Sequence[str]) -> None:
        self._streams: list[TextIO | LogFile] = []
        usual = ("default", "systemd/journal")  # under systemd, stderr is the journal
        merged = dict.fromkeys("stderr" if name in usual else name for name in names or ("stderr",))
        for name in () if "/dev/null" in merged else merged:
            if name == "stderr":
                self._streams.append(sys.stderr)
            elif name == "stdout":
                self._streams.append(sys.stdout)
            else:
                self._streams.append(LogFile(name))

    def write(self, data: str) -> None:
        for stream in self._streams:
            with contextlib.suppress(OSError):
                stream.write(data)

    def flush(self) -> None:
        for stream in self._streams:
            with contextlib.suppress(OSError):
                stream.flush()


def configure(caller: str, level: str, form: str, outputs: tuple[str, ...], **facts: Any) -> None:
    """Make structlog write JSON or console lines (``form``) of ``caller``, each with ``facts``."""
    renderer: Any = logline.in_json if form == "json" else logline.text
    structlog.configure(
        processors=[
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="ts"),
            structlog.processors.format_exc_info,
            logline.shape(caller, **facts),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logline.LEVELS.get(level, logging.INFO)),
        logger_factory=structlog.PrintLoggerFactory(file=Outputs(outputs)),  # type: ignore[arg-type]
        cache_logger_on_first_use=False,
    )
