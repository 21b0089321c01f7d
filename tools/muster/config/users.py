"""Flags of users and tokens, looked at before a process starts that would fall over them."""

from __future__ import annotations

from proxy.auth.tokens import tokens_of
from tools.muster.config.parse import ConfigError

_LEAST_COST, _MOST_COST = 4, 31  # bcrypt's


def check_users(token: str, cost: int) -> None:
    """ConfigError if ``--auth-token`` names no kind of token, or files that cannot be read."""
    try:
        tokens_of(token, 1.0)
    except (ValueError, OSError) as error:
        raise ConfigError(f"--auth-token: {error}") from None
    if not _LEAST_COST <= cost <= _MOST_COST:
        raise ConfigError(f"--bcrypt-cost must be {_LEAST_COST} to {_MOST_COST}")
