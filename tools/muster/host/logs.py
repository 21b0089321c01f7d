"""The supervisor's log: one line an event, JSON with etcd's keys or text for people."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import MutableMapping, Sequence
from typing import Any, TextIO, cast

import structlog

from cluster import logline
from tools.muster.machine.logfile import LogFile


class _Outputs:
    """Every line to each output."""

    def __init__(self, files: Sequence[TextIO | LogFile]) -> None:
        self._files = files

    def msg(self, line: str) -> None:
        for f in self._files:
            f.write(line + "\n")
            f.flush()

    debug = info = warning = error = critical = msg


def open_outputs(names: Sequence[str]) -> list[TextIO | LogFile]:
    """The files that ``--log-outputs`` names; OSError if one cannot be opened."""
    files: list[TextIO | LogFile] = []
    for name in names:
        if name in ("default", "stderr", "systemd/journal"):  # under systemd, stderr is the journal
            files.append(sys.stderr)
        elif name == "stdout":
            files.append(sys.stdout)
        elif name != "/dev/null":
            files.append(LogFile(name))
    return files


def _stamp(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    now = time.time()
    event["ts"] = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{int(now * 1000) % 1000:03d}Z"
    return event


def configure(outputs: Sequence[str], level: str, form: str) -> structlog.stdlib.BoundLogger:
    """The logger of this process. OSError if an output cannot be opened."""
    sink = _Outputs(open_outputs(outputs))
    renderer = logline.in_json if form == "json" else logline.text
    logger = structlog.wrap_logger(
        sink,
        processors=[_stamp, logline.shape("muster/supervisor"), cast("structlog.typing.Processor", renderer)],
        wrapper_class=structlog.make_filtering_bound_logger(logline.LEVELS.get(level, logging.INFO)),
        cache_logger_on_first_use=True,
    )
    return cast("structlog.stdlib.BoundLogger", logger)
