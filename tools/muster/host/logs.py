"""The supervisor's log: one line an event, JSON with etcd's keys, or text."""

from __future__ import annotations

import logging
import time
from collections.abc import MutableMapping, Sequence
from typing import Any, TextIO, cast

import structlog

from cluster import logline
from tools.muster.machine.logs import Outputs


def _stamp(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    now = time.time()
    event["ts"] = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{int(now * 1000) % 1000:03d}Z"
    return event


def configure(outputs: Sequence[str], level: str, form: str) -> structlog.stdlib.BoundLogger:
    """The logger of this process. OSError."""
    sink = structlog.WriteLogger(cast(TextIO, Outputs(outputs)))
    renderer = logline.in_json if form == "json" else logline.text
    logger = structlog.wrap_logger(
        sink,
        processors=[_stamp, logline.shape("muster/supervisor"), cast("structlog.typing.Processor", renderer)],
        wrapper_class=structlog.make_filtering_bound_logger(logline.LEVELS.get(level, logging.INFO)),
        cache_logger_on_first_use=True)
    return cast("structlog.stdlib.BoundLogger", logger)
