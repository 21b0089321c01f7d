"""The files of certificates, and the TLS context made of them: made again when a file changes.

Every handshake looks for changed files, four calls of ``stat``: a changed certificate, CA or revocation list
counts from the next connection on. While files do not fit together, the previous ones count.

There are no tickets to resume a session by: a resumed client's signer would not be looked at again. A session
of TLS 1.2 belongs to one context, so it ends when a file changes.
"""

from __future__ import annotations

import os
import ssl
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from cluster import gotext
from cluster.settings import PeerTls, Tls
from proxy.tls.addresses import Names
from proxy.tls.certified import Certificate, refusal, revoked_serials

_SETTLED_S = 2.0  # a file that was written so lately may be written again without another time stamp
_AGAIN_S = 1.0
_VERSIONS = {"TLS1.2": ssl.TLSVersion.TLSv1_2, "TLS1.3": ssl.TLSVersion.TLSv1_3}

# Go's names of TLS 1.2's cipher suites, as --cipher-suites has them, and OpenSSL's. Those of TLS 1.3 are
# always on, as in Go.
CIPHERS = {
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256": "ECDHE-ECDSA-AES128-GCM-SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384": "ECDHE-ECDSA-AES256-GCM-SHA384",
    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256": "ECDHE-RSA-AES128-GCM-SHA256",
    "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384": "ECDHE-RSA-AES256-GCM-SHA384",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256": "ECDHE-ECDSA-CHACHA20-POLY1305",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305": "ECDHE-ECDSA-CHACHA20-POLY1305",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256": "ECDHE-RSA-CHACHA20-POLY1305",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305": "ECDHE-RSA-CHACHA20-POLY1305",
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA": "ECDHE-ECDSA-AES128-SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA": "ECDHE-ECDSA-AES256-SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256": "ECDHE-ECDSA-AES128-SHA256",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA": "ECDHE-RSA-AES128-SHA",
    "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA": "ECDHE-RSA-AES256-SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256": "ECDHE-RSA-AES128-SHA256",
    "TLS_RSA_WITH_AES_128_GCM_SHA256": "AES128-GCM-SHA256",
    "TLS_RSA_WITH_AES_256_GCM_SHA384": "AES256-GCM-SHA384",
    "TLS_RSA_WITH_AES_128_CBC_SHA": "AES128-SHA",
    "TLS_RSA_WITH_AES_256_CBC_SHA": "AES256-SHA",
    "TLS_RSA_WITH_AES_128_CBC_SHA256": "AES128-SHA256",
}
# Go's choice: each has forward secrecy, and its preference stands in this order
_USUAL = [
    suite
    for name, suite in CIPHERS.items()
    if name.startswith("TLS_ECDHE_") and not name.endswith("_CBC_SHA256")
]
ALWAYS_ON = ("TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256")  # TLS 1.3's
# Go has these, OpenSSL in its distributions has not
NOT_HERE = (
    "TLS_RSA_WITH_RC4_128_SHA", "TLS_RSA_WITH_3DES_EDE_CBC_SHA", "TLS_ECDHE_ECDSA_WITH_RC4_128_SHA",
    "TLS_ECDHE_RSA_WITH_RC4_128_SHA", "TLS_ECDHE_RSA_WITH_3DES_EDE_CBC_SHA",
)

_Stamp = tuple[int, ...] | None


class Credentials:
    """What this side shows clients, and what it asks of theirs."""

    def __init__(
        self, settings: Tls, failed: Callable[[str], object] = lambda reason: None, *,
        by_address: Names | None = None,
    ) -> None:
        """``failed`` is told why changed files cannot be used. ValueError if the first cannot.
        ``by_address``: a client must come from where its certificate is for, by these names."""
        self._settings = settings
        self.by_address = by_address
        self._failed = failed
        self._files = tuple(
            f
            for f in (settings.cert_file, settings.key_file, settings.trusted_ca_file, settings.crl_file)
            if f
        )
        self._stamps: tuple[_Stamp, ...] = ()
        self._look_again_at = 0.0  # of time.monotonic(): 0.0 when the files have settled
        self._revoked: frozenset[int] = frozenset()
        self.made = 0  # contexts
        self._context = self._load()

    @property
    def names_clients(self) -> bool:
        return self._settings.client_cert_auth

    def context(self) -> ssl.SSLContext:
        """For a handshake that begins now."""
        stamps = self._look()
        if stamps != self._stamps or (self._look_again_at and time.monotonic() >= self._look_again_at):
            try:
                self._context = self._load()
            except (ValueError, OSError) as error:  # the latter: a file goes between two looks at it
                if stamps != self._stamps:
                    self._failed(str(error))
                self._stamps = stamps
                self._look_again_at = time.monotonic() + _AGAIN_S
        return self._context

    def refusal(self, certificates: Sequence[Certificate]) -> str:
        return refusal(
            certificates, self._revoked, self._settings.allowed_cns, self._settings.allowed_hostnames,
            time.time()
        )

    def _look(self) -> tuple[_Stamp, ...]:
        return tuple(_stamp(path) for path in self._files)

    def _load(self) -> ssl.SSLContext:
        stamps = self._look()  # from before the files are read: a change meanwhile shows
        settings = self._settings
        revoked = frozenset[int]()
        if settings.crl_file:
            revoked = _list_of(settings.crl_file)
        context = make_context(settings)
        self._revoked = revoked
        self._stamps = stamps
        now_s = time.time()  # behind some file's for long, where another machine's clock is ahead
        unsettled = any(abs(now_s - stamp[-1] / 1e9) < _SETTLED_S for stamp in stamps if stamp is not None)
        self._look_again_at = time.monotonic() + _AGAIN_S if unsettled else 0.0
        self.made += 1
        return context


def make_context(settings: Tls) -> ssl.SSLContext:
    """The context that settings and their files describe. ValueError, in words for an operator."""
    for path in (settings.cert_file, settings.key_file, settings.trusted_ca_file):
        if path:
            read(path)  # whose error names the file, as OpenSSL's does not
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    bound(context, settings)
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION | ssl.OP_NO_TICKET
    context.num_tickets = 0
    try:
        # a key that wants a password must not ask for it on a terminal
        context.load_cert_chain(settings.cert_file, settings.key_file, password=lambda: b"")
    except ssl.SSLError as error:
        raise ValueError(
            f"certificate {settings.cert_file} and key {settings.key_file}: {_reason(error)}"
        ) from None
    if settings.client_cert_auth or settings.trusted_ca_file:
        context.verify_mode = ssl.CERT_REQUIRED
        # whatever stands in the file is trusted, as Go does
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        if settings.trusted_ca_file:
            try:
                context.load_verify_locations(settings.trusted_ca_file)
            except ssl.SSLError as error:
                raise ValueError(
                    f"certificate authorities {settings.trusted_ca_file}: {_reason(error)}"
                ) from None
        else:
            context.load_default_certs(ssl.Purpose.CLIENT_AUTH)
    context.set_alpn_protocols(["h2", "http/1.1"])
    return context


def bound(context: ssl.SSLContext, settings: Tls | PeerTls) -> None:
    """Have it speak the versions and cipher suites of the settings, and no others."""
    context.minimum_version = _VERSIONS[settings.min_version or "TLS1.2"]
    if settings.max_version:
        context.maximum_version = _VERSIONS[settings.max_version]
    names = [CIPHERS[name] for name in settings.cipher_suites if name in CIPHERS]
    context.set_ciphers(":".join(dict.fromkeys(names or _USUAL)))


def read(path: str) -> bytes:
    """What a file holds; ValueError in Go's words where it cannot be read."""
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ValueError(f"open {path}: {(error.strerror or str(error)).lower()}") from None


def _list_of(path: str) -> frozenset[int]:
    try:
        return revoked_serials(read(path))
    except ValueError as error:
        raise ValueError(f"revocation list {path}: {error}") from None


def _reason(error: ssl.SSLError) -> str:
    if pair := gotext.tls_pair(error.reason or ""):
        return f"tls: {pair}"
    return (error.reason or "no PEM of the kind that is wanted").lower().replace("_", " ")


def _stamp(path: str) -> _Stamp:
    """Differs once the file is another one; last, when its content was changed, in ns."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_ctime_ns, found.st_mtime_ns
