"""JSON web tokens: ``--auth-token=jwt,sign-method=M,priv-key=F[,pub-key=F][,ttl=10m]``, as etcd's.
``proxy.auth.tokens`` imports this only when needed: ``jwt`` and ``cryptography`` take 10 MB."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key
from cryptography.x509 import load_pem_x509_certificate
from jwt.algorithms import HMACAlgorithm

from cluster import errors
from cluster.errors import EtcdError
from cluster.features.auth.principal import INVALID, Kind, Principal
from cluster.gotext import parse_duration_ns
from proxy.gateway.go_json import whole_text

_METHODS = {
    "HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384",
    "ES512", "EdDSA",
}
OPTIONS = frozenset(("sign-method", "priv-key", "pub-key", "ttl"))  # others have no effect, as in etcd
# "iat" of a clock that is ahead is no fault, as at etcd since 3.6
_UNVERIFIED: Any = dict.fromkeys(
    ("verify_exp", "verify_iat", "verify_aud", "verify_sub", "verify_jti"), False)
_DEFAULT_TTL_S = 300.0


class _AnyFile(HMACAlgorithm):
    """As at etcd, a shared secret is a file's bytes. PyJWT refuses what looks like a key of a pair, for
    servers where tokens choose the method. Here the host chooses it."""

    def prepare_key(self, key: Any) -> Any:
        return key


for _bits in (256, 384, 512):
    jwt.unregister_algorithm(f"HS{_bits}")
    jwt.register_algorithm(f"HS{_bits}", _AnyFile(getattr(HMACAlgorithm, f"SHA{_bits}")))


class WebTokens:
    def __init__(self, options: dict[str, str], now_s: Callable[[], float] = time.time) -> None:
        """ValueError: wrong options."""
        self._now_s = now_s
        self._method = options.get("sign-method", "")
        if self._method not in _METHODS:
            raise ValueError("auth: invalid auth options: unknown sign-method " + repr(self._method))
        # 0 stands for the default (in etcd such tokens never count); a negative one's never count, as in etcd
        self._ttl_s = parse_duration_ns(options.get("ttl") or "0") / 1e9 or _DEFAULT_TTL_S
        self._verifies, self._signs = _keys(self._method, options)
        _check(self._method, self._verifies, self._signs)

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
            user, revision = claims["username"], int(_number(claims["revision"]))
            until_s = float(_number(claims["exp"])) if "exp" in claims else math.inf
        except (jwt.InvalidTokenError, KeyError, TypeError, ValueError, OverflowError):
            return INVALID, now_s
        if now_s >= until_s or not isinstance(user, str) or not 0 <= revision < 1 << 64:
            return INVALID, now_s
        return Principal(Kind.JWT, whole_text(user), revision), until_s


def _number(claim: object) -> float:
    """A claim that is one, as JSON has numbers. TypeError."""
    if isinstance(claim, bool) or not isinstance(claim, int | float) or not math.isfinite(claim):
        raise TypeError("the claim is no number")
    return claim


def _keys(method: str, options: dict[str, str]) -> tuple[Any, Any]:
    """The key that verifies, and the one that signs or None. ValueError."""
    private, public = _file(options, "priv-key"), _file(options, "pub-key")
    if method.startswith("HS"):
        if not private:
            raise ValueError("auth: key is required")
        return private, private
    if not private and not public:
        raise ValueError("auth: missing public key" if method != "EdDSA" else "auth: key is required")
    signs: Any = None
    if private:
        signs = _loaded(options, "priv-key", lambda: load_pem_private_key(private, None))
    if not public:
        return signs.public_key(), signs
    if b"CERTIFICATE" in public:
        return _loaded(options, "pub-key", lambda: load_pem_x509_certificate(public).public_key()), signs
    return _loaded(options, "pub-key", lambda: load_pem_public_key(public)), signs


def _file(options: dict[str, str], name: str) -> bytes:
    path = options.get(name)
    try:
        return Path(path).read_bytes() if path else b""
    except OSError as error:
        raise ValueError(f"auth: {name}: open {path}: {(error.strerror or str(error)).lower()}") from None


def _loaded(options: dict[str, str], name: str, load: Callable[[], Any]) -> Any:
    try:
        return load()
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:  # TypeError: it is encrypted
        reason = str(error).partition(". See http")[0]
        raise ValueError(f"auth: {name} {options[name]} holds no usable key: {reason}") from None


def _check(method: str, verifies: Any, signs: Any) -> None:
    """Whether these keys fit the method: else each login, or each token that comes, would meet a fault."""
    algorithm = jwt.get_algorithm_by_name(method)
    try:
        signed = b"" if signs is None else algorithm.sign(b"", algorithm.prepare_key(signs))
        are_a_pair = algorithm.verify(b"", algorithm.prepare_key(verifies), signed)
    except (jwt.PyJWTError, TypeError, ValueError) as error:
        raise ValueError(f"auth: the key does not fit sign-method {method}: {error}") from None
    if signs is not None and not are_a_pair:
        raise ValueError("auth: public and private keys don't match")
