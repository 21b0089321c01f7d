"""Flags of users and tokens, looked at before a process starts that would fall over them."""

from __future__ import annotations

from proxy.auth.tokens import tokens_of
from tools.muster.config.parse import ConfigError, Values

_LEAST_COST, _MOST_COST, _USUAL_COST = 4, 31, 10  # bcrypt's


def check_users(token: str) -> None:
    """ConfigError if ``--auth-token`` names no kind of token, or files that cannot be read."""
    try:
        tokens_of(token, 1.0)
    except (ValueError, OSError) as error:
        raise ConfigError(f"--auth-token: {error}") from None


def bcrypt_cost(values: Values) -> list[str]:
    """A cost that bcrypt does not know is the usual one, as in etcd; then there is a warning."""
    cost = values["bcrypt-cost"]
    if _LEAST_COST <= cost <= _MOST_COST:
        return []
    values.values["bcrypt-cost"] = _USUAL_COST
    return [f"--bcrypt-cost={cost} is not {_LEAST_COST} to {_MOST_COST}: {_USUAL_COST} it is"]
