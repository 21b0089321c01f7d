"""Flags of distributed tracing."""

from __future__ import annotations

from importlib.util import find_spec

from cluster.settings import Tracing
from tools.muster.config.parse import ConfigError, Values

_MOST = 1_000_000  # spans of a million


def tracing_of(values: Values) -> Tracing | None:
    """None without tracing. ConfigError in etcd's words."""
    if not values["enable-distributed-tracing"]:
        return None
    rate = values["distributed-tracing-sampling-rate"]
    if rate < 0:
        raise ConfigError("tracing sampling rate must be positive")
    if rate > _MOST:
        raise ConfigError(f"tracing sampling rate must be less than {_MOST}")
    if find_spec("opentelemetry") is None or find_spec("opentelemetry.exporter.otlp") is None:
        raise ConfigError("--enable-distributed-tracing needs more packages: pip install 'muster[tracing]'")
    return Tracing(
        values["distributed-tracing-address"], values["distributed-tracing-service-name"],
        values["distributed-tracing-instance-id"], rate)
