"""``--auth-token=jwt,...``: which options and keys a host starts with, and which tokens follow."""

from __future__ import annotations

import base64
import hmac
from pathlib import Path

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from cluster.features.auth.principal import INVALID, Kind, Principal, split
from proxy.auth.jwt import WebTokens
from proxy.auth.tokens import options_of, tokens_of
from tools.muster.config.checks import check_users
from tools.muster.config.parse import ConfigError

NOW_S = 1_000.0
_OPEN = NoEncryption()


@pytest.fixture
def keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    def private(
        name: str,
        key: ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey,
        by: KeySerializationEncryption = _OPEN,
    ) -> None:
        Path(name).write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, by))

    p256 = ec.generate_private_key(ec.SECP256R1())
    private("p256", p256)
    private("sealed", p256, BestAvailableEncryption(b"secret"))
    private("ed", ed25519.Ed25519PrivateKey.generate())
    Path("p256.pub").write_bytes(
        p256.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    )
    Path("other.pub").write_bytes(
        ec.generate_private_key(ec.SECP256R1())
        .public_key()
        .public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    )
    Path("ssh.pub").write_bytes(p256.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH))
    Path("jwk").write_bytes(b'{"kty":"oct","k":"a2tr"}')
    Path("secret").write_bytes(b"k" * 64)
    Path("junk").write_bytes(b"junk")


@pytest.mark.usefixtures("keys")
@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("jwt,sign-method=ES384,priv-key=p256", "does not fit sign-method ES384"),  # a login ended the host
        ("jwt,sign-method=RS256,priv-key=p256", "does not fit sign-method RS256"),
        ("jwt,sign-method=RS256,pub-key=p256.pub", "does not fit sign-method RS256"),
        ("jwt,sign-method=ES256,priv-key=ed", "does not fit sign-method ES256"),
        ("jwt,sign-method=ES256,priv-key=sealed", "priv-key sealed holds no usable key: Password was not"),
        ("jwt,sign-method=ES256,priv-key=junk", "priv-key junk holds no usable key: Unable to load PEM file"),
        ("jwt,sign-method=ES256,priv-key=p256,pub-key=junk", "pub-key junk holds no usable key"),
        # no token that it gave would count
        ("jwt,sign-method=ES256,priv-key=p256,pub-key=other.pub", "public and private keys don't match"),
        ("jwt,sign-method=ES256,priv-key=/nowhere", "priv-key: open /nowhere: no such file or directory"),
        ("jwt,sign-method=none,priv-key=p256", "unknown sign-method 'none'"),
        ("jwt,sign-method=HS256,priv-key=secret,ttl=5", "missing unit in duration"),
        ("jwt,sign-method=HS256,priv-key=secret,", "each is name=value, once"),
        ("jwt,", "each is name=value, once"),
        ("simple,", "each is name=value, once"),
        ("simple,a=b,a=c", "each is name=value, once"),
        ("Simple", "--auth-token is simple, jwt,... or empty"),
    ],
)
def test_a_host_does_not_start_with_it(setting: str, message: str) -> None:
    with pytest.raises(ConfigError) as refused:
        check_users(setting)
    assert message in str(refused.value)


@pytest.mark.usefixtures("keys")
@pytest.mark.parametrize(
    ("ttl", "lasts_s"),
    [("", 300), (",ttl=", 300), (",ttl=0", 300), (",ttl=0s", 300), (",ttl=1h", 3600), (",ttl=-5m", -300)],
)
def test_a_token_lasts_as_long_as_its_options_say(ttl: str, lasts_s: int) -> None:
    now = NOW_S
    _, options = options_of(f"jwt,sign-method=ES256,priv-key=p256{ttl}")
    tokens = WebTokens(options, lambda: now)
    text = tokens.give("u", 5)
    assert (tokens.read(text, NOW_S + lasts_s - 1)[0] == INVALID) is False
    assert tokens.read(text, NOW_S + lasts_s)[0] == INVALID


@pytest.mark.parametrize(
    ("claims", "counts"),
    [
        ({}, True), ({"iat": 1 << 40}, True), ({"exp": NOW_S + 1.5}, True), ({"revision": 5.0}, True),
        ({"nbf": 1 << 40}, False), ({"revision": "5"}, False), ({"revision": True}, False),
        ({"exp": "x"}, False), ({"exp": float("nan")}, False), ({"username": 5}, False),
        ({"exp": 10**400}, False),
    ],
)  # fmt: skip
def test_a_token_of_another_issuer_counts_as_at_etcd(
    claims: dict[str, object], counts: bool, tmp_path: Path
) -> None:
    secret = b"s" * 64
    (tmp_path / "secret").write_bytes(secret)
    tokens = WebTokens({"sign-method": "HS256", "priv-key": str(tmp_path / "secret")}, lambda: NOW_S)
    text = jwt.encode({"username": "u", "revision": 5} | claims, secret, algorithm="HS256")
    assert (tokens.read(text, NOW_S)[0] == Principal(Kind.JWT, "u", 5)) is counts


@pytest.mark.usefixtures("keys")
@pytest.mark.parametrize("method", ["HS256", "HS384", "HS512"])
@pytest.mark.parametrize("file", ["p256", "p256.pub", "ssh.pub", "jwk", "secret"])
def test_a_shared_secret_may_be_any_file_as_at_etcd(method: str, file: str) -> None:
    """Such a host did not start: PyJWT refuses keys of a pair as a secret."""
    tokens = WebTokens({"sign-method": method, "priv-key": file}, lambda: NOW_S)
    text = tokens.give("u", 5)
    assert tokens.read(text, NOW_S)[0] == Principal(Kind.JWT, "u", 5)
    head, _, signature = text.rpartition(".")
    mac = hmac.digest(Path(file).read_bytes(), head.encode(), f"sha{method[2:]}")  # over the file's bytes
    assert signature == base64.urlsafe_b64encode(mac).decode().rstrip("=")
    Path("other").write_bytes(b"o" * 64)
    other = WebTokens({"sign-method": method, "priv-key": "other"}, lambda: NOW_S)
    assert other.read(text, NOW_S)[0] == INVALID


def test_half_a_surrogate_pair_in_a_name_is_replaced_as_at_etcd(tmp_path: Path) -> None:
    """Such a name cannot be encoded: its request hung, and others' reads of its batch with it."""
    secret = b"s" * 64
    (tmp_path / "secret").write_bytes(secret)
    tokens = WebTokens({"sign-method": "HS256", "priv-key": str(tmp_path / "secret")}, lambda: NOW_S)
    text = jwt.encode({"username": "a\ud800", "revision": 5}, secret, algorithm="HS256")
    principal = tokens.read(text, NOW_S)[0]
    assert principal == Principal(Kind.JWT, "a\ufffd", 5)
    assert split(principal.encode()) == (principal, b"")


@pytest.mark.usefixtures("keys")
def test_options_that_jwt_does_not_have_are_passed_over_as_in_etcd() -> None:
    setting = "jwt,sign-method=ES256,priv-key=p256,tll=1m"
    assert tokens_of(setting, 1.0).give("u", 5)
    assert check_users(setting) == ["--auth-token: tll is no option of jwt, and has no effect"]
    assert check_users("jwt,sign-method=ES256,priv-key=p256,pub-key=p256.pub") == []
    assert check_users("simple,a=b") == check_users("jwt,sign-method=ES256,priv-key=p256") == []
