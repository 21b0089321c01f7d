"""The files of TLS that the flags name."""

from __future__ import annotations

import contextlib
import os
import re
import ssl
import stat
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from cluster import gotext
from tools.client.exits import Exit

_CERTIFICATE, _PRIVATE_KEY = b"CERTIFICATE-----", b"PRIVATE KEY-----"
_AUTHORITY = re.compile(rb"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)


@dataclass(slots=True, frozen=True)
class Tls:
    """Files of the connection's TLS; "" where there is none."""

    cert: str = ""
    key: str = ""
    cacert: str = ""
    unchecked: bool = False  # whatever the server's certificate


class Renewed:
    """A context that is made anew once its files are renewed. What ``make`` raises at first is raised."""

    def __init__(self, names: Sequence[str], make: Callable[[], ssl.SSLContext]) -> None:
        self._names, self._make = [name for name in names if name], make
        self._stamps = _stamps(self._names)
        self._context = make()

    def context(self) -> ssl.SSLContext:
        """For the next connection."""
        if (stamps := _stamps(self._names)) and stamps != self._stamps:
            with contextlib.suppress(Exception):  # they do not fit together yet: those before serve
                self._context, self._stamps = self._make(), stamps
        return self._context


def _stamps(names: Sequence[str]) -> list[tuple[int, ...]]:
    """By which a file differs from the one before; none where one cannot be read again, as a pipe."""
    try:
        found = [os.stat(name) for name in names]
    except OSError:
        return []
    if not all(stat.S_ISREG(one.st_mode) for one in found):
        return []
    return [(one.st_ino, one.st_size, one.st_mtime_ns) for one in found]


class Files(Renewed):
    """TLS for the library, or for another ``protocol`` than HTTP/2. Files are read once until they are
    renewed, as one may be a pipe. Exit if one cannot be used: the endpoint would be blamed."""

    def __init__(self, tls: Tls, server_name: str = "", protocol: str = "h2") -> None:
        self.server_name = server_name
        if bool(tls.cert) != bool(tls.key):
            raise Exit(128, f"KeyFile and CertFile must both be present[key: {tls.key}, cert: {tls.cert}]")
        super().__init__((tls.cert, tls.key, tls.cacert), partial(_made, tls, protocol))


def _made(tls: Tls, protocol: str) -> ssl.SSLContext:
    contents = {name: _content(name) for name in (tls.cert, tls.key, tls.cacert) if name}
    _check_pem(tls, contents)
    context = _context(tls, contents)
    context.set_alpn_protocols([protocol])
    return context


def _content(name: str) -> bytes:
    try:
        return Path(name).read_bytes()
    except OSError as error:
        raise Exit(128, f"open {name}: {(error.strerror or '').lower()}") from None


def _check_pem(tls: Tls, contents: Mapping[str, bytes]) -> None:
    """Exit if a file has no PEM data, in Go's words."""
    for name, what, words in ((tls.cert, "certificate", _CERTIFICATE), (tls.key, "key", _PRIVATE_KEY)):
        if name and words not in contents[name]:
            raise Exit(128, f"{name}: tls: failed to find any PEM data in {what} input")
    if tls.cacert and _CERTIFICATE not in contents[tls.cacert]:
        raise Exit(128, f"{tls.cacert}: failed to find any certificate in PEM")


def _context(tls: Tls, contents: Mapping[str, bytes]) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.hostname_checks_common_name = False  # as Go: a user's may be a host's name
    if tls.cacert:
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # as Go, trust each certificate of the file
        authorities = _AUTHORITY.findall(contents[tls.cacert])  # what is written around them may be no ASCII
        try:
            context.load_verify_locations(cadata=b"\n".join(authorities).decode("ascii"))
        except (ValueError, ssl.SSLError):
            raise Exit(128, f"{tls.cacert}: holds a certificate that cannot be read") from None
    else:
        context.load_default_certs()
    if tls.unchecked:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if tls.cert:
        cert, key = (_readable(name, contents[name]) for name in (tls.cert, tls.key))
        try:
            context.load_cert_chain(cert, key, password="")
        except (OSError, ssl.SSLError) as error:
            named = getattr(error, "reason", "") or str(error)
            reason = refused_pair(error) or named.replace("_", " ").lower()
            raise Exit(128, f"{tls.cert}, {tls.key}: tls: {reason}") from None
    return context


def refused_pair(error: Exception) -> str:
    """Why OpenSSL takes no certificate with its key, in Go's words; "": another reason."""
    if not isinstance(error, ssl.SSLError):
        return ""
    if not error.reason:  # it needs a pass phrase, say
        return "failed to parse private key"
    return gotext.tls_pair(error.reason)


def _readable(name: str, content: bytes) -> str:
    """Where Python's library finds a content: of a pipe, in memory, since it was read already."""
    if os.path.isfile(name):
        return name
    held = os.memfd_create("tls")
    os.write(held, content)
    return f"/proc/self/fd/{held}"
