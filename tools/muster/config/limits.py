"""Limits to what clients may do: values that would shut out everybody are refused."""

from __future__ import annotations

from tools.muster.config.parse import ConfigError, Values

_LEAST_MS = 1000
_LEAST = {"max-client-snapshots": 1, "max-control-frames": 100, "max-stream-resets": 100}
# the largest one leaves room in a block of 33 frames of HTTP/2
_LEAST_HEADER_BYTES, _MOST_HEADER_BYTES = 4096, 524_288


def check_limits(values: Values) -> None:
    """ConfigError."""
    for name in ("client-head-timeout", "http1-idle-timeout", "lease-checkpoint-interval"):
        if values[name] < _LEAST_MS:
            raise ConfigError(f"--{name} must be at least 1s")
    for name, least in _LEAST.items():
        if values[name] < least:
            raise ConfigError(f"--{name} must be at least {least}")
    if not _LEAST_HEADER_BYTES <= values["max-header-bytes"] <= _MOST_HEADER_BYTES:
        raise ConfigError(
            f"--max-header-bytes must be at least {_LEAST_HEADER_BYTES} and at most {_MOST_HEADER_BYTES}")
