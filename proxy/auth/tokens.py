"""Which tokens a front gives and takes: ``--auth-token``."""

from __future__ import annotations

from cluster import errors
from cluster.errors import EtcdError
from cluster.features.auth.principal import INVALID, Principal
from proxy.auth.shown import SimpleTokens, Tokens


class NoTokens:
    """``--auth-token=``: none is given, and none is one."""

    def give(self, user: str, revision: int) -> str:
        """See :class:`proxy.auth.shown.Tokens`."""
        raise EtcdError(errors.AUTH_FAILED)

    def read(self, text: str, now_s: float) -> tuple[Principal, float]:
        """See :class:`proxy.auth.shown.Tokens`."""
        return INVALID, now_s


def tokens_of(setting: str, ttl_s: float) -> Tokens:
    """What ``--auth-token`` says. ValueError if that is nothing."""
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
    from proxy.auth.jwt import WebTokens  # 10 MB of memory that others do not need

    return WebTokens(options)
