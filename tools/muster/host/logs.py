"""The supervisor's log: one line an event, JSON with etcd's keys, or text."""

from __future__ import annotations

import logging
import time
from collections.abc import MutableMapping, Sequence
from typing import Any, TextIO, cast

import structlog

from cluster import logline
from cluster.gotext import si_bytes
from tools.muster.config.settings import ServerConfig
from tools.muster.host.supervising.supervisor import Logger
from tools.muster.machine.logs import Outputs

_MOST_QUOTA_BYTES, _MOST_REQUEST_BYTES = 8 << 30, 10 << 20  # that etcd recommends


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


def warn(config: ServerConfig, log: Logger) -> None:
    """Say as a member starts what its settings lack, and which limits are above etcd's recommended ones."""
    for warning in config.warnings:
        log.warning(warning)
    if (request := config.values["max-request-bytes"]) > _MOST_REQUEST_BYTES:
        log.warning("exceeded recommended request limit", **{
            "max-request-bytes": request, "max-request-size": si_bytes(request),
            "recommended-request-bytes": _MOST_REQUEST_BYTES,
            "recommended-request-size": si_bytes(_MOST_REQUEST_BYTES)})
    if (quota := config.quota_backend_bytes) > _MOST_QUOTA_BYTES:
        log.warning("quota exceeds the maximum value", **{
            "quota-size-bytes": quota, "quota-size": si_bytes(quota),
            "quota-maximum-size-bytes": _MOST_QUOTA_BYTES, "quota-maximum-size": si_bytes(_MOST_QUOTA_BYTES)})
