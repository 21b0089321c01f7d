"""JSON web tokens: ``--auth-token=jwt,sign-method=M,priv-key=F[,pub-key=F][,ttl=10m]``, as etcd's.
``proxy.auth.tokens`` imports this only when needed: ``jwt`` and ``cryptography`` take 10 MB."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key
from cryptography.x509 import load_pem_x509_certificate

from cluster import errors
from cluster.errors import EtcdError
from cluster.features.auth.principal import INVALID, Kind, Principal
from cluster.gotext import parse_duration_ns

_METHODS = {
    "HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384",
    "ES512", "EdDSA",
}
_OPTIONS = {"sign-method", "priv-key", "pub-key", "ttl"}
_UNVERIFIED: Any = dict.fromkeys(("verify_exp", "verify_aud", "verify_sub", "verify_jti"), False)
_DEFAULT_TTL_S = 300.0


class WebTokens:
    def __init__(self, options: dict[str, str], now_s: Callable[[], float] = time.time) -> None:
        """ValueError: wrong options."""
        self._now_s = now_s
        self._method = options.get("sign-method", "")
        if self._method not in _METHODS:
            raise ValueError("auth: invalid auth options: unknown sign-method " + repr(self._method))
        if unknown := set(options) - _OPTIONS:
            raise ValueError(f"auth: invalid auth options: unknown {sorted(unknown)}")
        self._ttl_s = parse_duration_ns(options["ttl"]) / 1e9 if "ttl" in options else _DEFAULT_TTL_S
        self._verifies, self._signs = _keys(self._method, options)

    def give(self, user: str, revision: int) -> str:
        if self._signs is None:
            raise EtcdError(errors.VERIFY_ONLY_KEY)
        claims = {"username": user, "revision": revision, "exp": int(self._now_s() + self._ttl_s)}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a short key, the operator's choice as in etcd
            return jwt.encode(claims, self._signs, algorithm=self._method)

    def read(self, text: str, now_s: float) -> tuple[Principal, float]:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                claims = jwt.decode(text, self._verifies, algorithms=[self._method], options=_UNVERIFIED)
            user, revision = claims["username"], int(claims["revision"])
            until_s = float(claims.get("exp", "inf"))
        except (jwt.InvalidTokenError, KeyError, TypeError, ValueError, OverflowError):
            return INVALID, now_s
        if now_s >= until_s or not isinstance(user, str) or not 0 <= revision < 1 << 64:
            return INVALID, now_s
        return Principal(Kind.JWT, user, revision), until_s


def _keys(method: str, options: dict[str, str]) -> tuple[Any, Any]:
    """The key that verifies, and the one that signs or None."""
    private = Path(options["priv-key"]).read_bytes() if options.get("priv-key") else b""
    public = Path(options["pub-key"]).read_bytes() if options.get("pub-key") else b""
    if method.startswith("HS"):
        if not private:
            raise ValueError("auth: key is required")
        return private, private
    if not private and not public:
        raise ValueError("auth: missing public key" if method != "EdDSA" else "auth: key is required")
    signs: Any = load_pem_private_key(private, None) if private else None
    if not public:
        return signs.public_key(), signs
    if b"CERTIFICATE" in public:
        return load_pem_x509_certificate(public).public_key(), signs
    return load_pem_public_key(public), signs
