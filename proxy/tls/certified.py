"""What a client's certificate says, and why one may be refused although its CA vouches for it (rules:
``server.go`` and ``listener_tls.go`` of etcd's transport package).

A revocation list counts by serial numbers alone, as in etcd.
"""

from __future__ import annotations

import ipaddress
import math
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

_REMEMBERED = 1024  # certificates: a client dials again with the one it had
_DER = 2  # _ssl.ENCODING_DER


@dataclass(slots=True, frozen=True)
class Certificate:
    common_name: str
    serial: int
    dns_names: tuple[str, ...]
    addresses: tuple[str, ...]
    ends: float = math.inf  # seconds since 1970

    def is_of(self, host: str) -> bool:
        """Whether it is valid for a name or an address, as Go's ``VerifyHostname``: by alternative names."""
        bare = host[1:-1] if host[:1] == "[" and host[-1:] == "]" else host
        try:
            return str(ipaddress.ip_address(bare)) in self.addresses
        except ValueError:
            return any(_fits(pattern, host) for pattern in self.dns_names)


@lru_cache(_REMEMBERED)
def read(der: bytes) -> Certificate:
    """A certificate out of its bytes. ValueError if these are none."""
    try:
        return _read(der)
    except Exception as error:  # InvalidVersion, DuplicateExtension and more are no ValueErrors
        raise ValueError(str(error) or type(error).__name__) from None


def _read(der: bytes) -> Certificate:
    from cryptography import x509  # 8 MB of memory that a front without client certificates does not need
    from cryptography.x509.oid import NameOID

    found = x509.load_der_x509_certificate(der)
    names = found.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    try:
        others = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        others = x509.SubjectAlternativeName([])
    return Certificate(
        str(names[-1].value) if names else "",  # of several the last one counts, in Go
        found.serial_number,
        tuple(others.get_values_for_type(x509.DNSName)),
        tuple(str(address) for address in others.get_values_for_type(x509.IPAddress)),
        found.not_valid_after_utc.timestamp(),
    )


def shown(tls: ssl.SSLObject | ssl.SSLSocket) -> list[Certificate]:
    """What the client of a finished handshake has shown, its own first; empty if not asked. ValueError."""
    own = tls.getpeercert(binary_form=True)
    if own is None:
        return []
    return [read(own), *(read(der) for der in _chain(tls) if der != own)]


def _chain(tls: ssl.SSLObject | ssl.SSLSocket) -> list[bytes]:
    of_newer_pythons: Any = getattr(tls, "get_unverified_chain", None)  # 3.13
    if of_newer_pythons is not None:
        return list(of_newer_pythons())
    inner: Any = getattr(tls, "_sslobj", None)
    return [c.public_bytes(_DER) for c in inner.get_unverified_chain() or ()] if inner is not None else []


def revoked_serials(text: bytes) -> frozenset[int]:
    """Serial numbers of a revocation list, in PEM or DER. ValueError if it is none."""
    from cryptography import x509  # see ``read``

    load = x509.load_pem_x509_crl if text.lstrip().startswith(b"-----") else x509.load_der_x509_crl
    return frozenset(entry.serial_number for entry in load(text))


def refusal(
    certificates: Sequence[Certificate], revoked: frozenset[int], common_names: Sequence[str],
    hosts: Sequence[str], now: float
) -> str:
    """Why a client with these certificates is refused; "" if it is not. OpenSSL checks expiry, but not of a
    resumed session of TLS 1.2."""
    if any(certificate.ends < now for certificate in certificates[:1]):
        return "tls: failed to verify certificate: certificate has expired"
    if (common_names or hosts) and not (
        certificates
        and (certificates[0].common_name in common_names or any(certificates[0].is_of(h) for h in hosts))
    ):
        return "client certificate authentication failed"
    for certificate in certificates:
        if certificate.serial in revoked:
            return f"transport: certificate serial {certificate.serial:x} revoked"
    return ""


def _fits(pattern: str, host: str) -> bool:
    """Go's ``matchHostnames``: a star stands for the whole first label."""
    pattern, host = pattern.lower().rstrip("."), host.lower().rstrip(".")
    if not pattern or not host:
        return False
    wanted, given = pattern.split("."), host.split(".")
    if len(wanted) != len(given) or "" in given:
        return False
    first = wanted[0] == given[0] or (wanted[0] == "*" and len(wanted) > 1)
    return first and wanted[1:] == given[1:]


def refusal_of(tls: ssl.SSLObject | ssl.SSLSocket, judge: Callable[[Sequence[Certificate]], str]) -> str:
    try:
        return judge(shown(tls))
    except ValueError as error:
        return f"the client's certificate cannot be read: {error}"
