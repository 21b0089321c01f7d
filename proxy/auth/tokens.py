"""The tokens that a front gives and takes: ``--auth-token``."""

from __future__ import annotations

from cluster import errors
from cluster.errors import EtcdError
from cluster.features.auth.principal import INVALID, Principal
from proxy.auth.shown import SimpleTokens, Tokens


class NoTokens:
    def give(self, user: str, revision: int) -> str:
        raise EtcdError(errors.AUTH_FAILED)

    def read(self, text: str, now_s: float) -> tuple[Principal, float]:
        return INVALID, now_s


def options_of(setting: str) -> tuple[str, dict[str, str]]:
    """The kind of tokens, and its options. ValueError: they are no options."""
    kind, *parts = setting.split(",")
    options: dict[str, str] = {}
    for part in parts:
        name, equals, value = part.partition("=")
        if not equals or name in options:
            raise ValueError("auth: invalid auth options: each is name=value, once")
        options[name] = value
    return kind, options


def tokens_of(setting: str, ttl_s: float) -> Tokens:
    """ValueError: ``--auth-token`` has no such value."""
    kind, options = options_of(setting)
    if kind == "simple":
        return SimpleTokens(ttl_s)
    if kind == "":
        return NoTokens()
    if kind != "jwt":
        raise ValueError("auth: invalid auth options: --auth-token is simple, jwt,... or empty")
    from proxy.auth.jwt import WebTokens  # 10 MB of memory

    return WebTokens(options)
