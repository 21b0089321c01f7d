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


def tokens_of(setting: str, ttl_s: float) -> Tokens:
    """ValueError: ``--auth-token`` has no such value."""
    kind, _, rest = setting.partition(",")
    if kind == "simple":
        return SimpleTokens(ttl_s)
    if kind == "":
        return NoTokens()
    if kind != "jwt":
        raise ValueError("auth: invalid auth options: --auth-token is simple, jwt,... or empty")
    options: dict[str, str] = {}
    for part in rest.split(",") if rest else ():
        name, equals, value = part.partition("=")
        if not equals or name in options:
            raise ValueError("auth: invalid auth options: each is name=value, once")
        options[name] = value
    from proxy.auth.jwt import WebTokens  # 10 MB of memory

    return WebTokens(options)
