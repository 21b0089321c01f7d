"""What happens to every HTTP request of a client before its handler: old path prefixes, the host whitelist
against DNS rebinding, CORS headers, OPTIONS, and 404."""

from __future__ import annotations

import re
from collections.abc import Callable
from urllib.parse import quote, unquote_to_bytes

from cluster import errors
from cluster.errors import EtcdError
from cluster.gotext import canonical_path
from cluster.machine import Tracer
from proxy.grpc.registry import Registry
from proxy.grpc.timed_calls import Ended
from proxy.http.requests import TEXT, HttpHandler, HttpRequest, not_found
from proxy.shared.cors import cors_fields
from proxy.shared.warnings import Warnings

_BROKEN = re.compile("%(?![0-9A-Fa-f]{2})")
_BRACKETED = re.compile(r"\[([^][]*:[^][]*)\]")
_WITH_PORT = re.compile(r"(?:\[([^][]*)\]|([^][:]*)):[^][:]*")
_NOT_ASCII = re.compile(r"[^\0-\x7f]")
_IN_HTML = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&#34;", "'": "&#39;"})
_UNKNOWN_HOST = """
etcd received your request, but the Host header was unrecognized.

To fix this, choose one of the following options:
- Enable TLS, then any HTTPS request will be allowed.
- Add the hostname you want to use to the whitelist in settings.
  - e.g. etcd --host-whitelist "{host}"

This requirement has been added to help prevent "DNS Rebinding" attacks (CVE-2018-5702).

"""
_NAME_IGNORED = (
    b"CommonName of client sending a request against gateway will be ignored and not used as expected\n"
)


class FilteredRegistry(Registry):
    """A registry whose HTTP handlers are behind the filter; gRPC is not touched."""

    def __init__(
        self, cors: tuple[str, ...], host_whitelist: tuple[str, ...], *, timed: bool = False,
        tracer: Tracer | None = None, read_only: bool = False, slow: Ended | None = None,
    ) -> None:
        super().__init__(timed=timed, tracer=tracer, slow=slow)
        self._read_only = read_only
        self._warnings = Warnings()
        self._cors = frozenset(cors)
        self._hosts = frozenset(() if "*" in host_whitelist else host_whitelist)  # none: any
        self.auth_enabled: Callable[[], bool] = lambda: False  # whether there are users
        # of a proxy: what happens instead of the handler's call
        self.passed_on: Callable[[HttpRequest, HttpHandler], None] | None = None

    def plain_path(self, path: str) -> str | None:
        """Without escapes and old prefixes."""
        found = decoded(path)
        return None if found is None else _modern(found)

    def find_http(self, path: str) -> HttpHandler | None:
        """The handler of a path, filtered; an unknown path has one too."""
        plain = self.plain_path(path)
        if plain is None:
            return malformed
        handler = elsewhere(plain) or super().find_http(plain) or not_found
        return lambda request: self._filter(request, handler)

    def added(self, headers: dict[str, str]) -> list[tuple[str, str]] | None:
        """The fields before an answer's own, for such a GET. None: the filter may refuse it."""
        refused = self._hosts and self._refuses(host_name(headers.get("host", "")))
        return None if refused else self._cors_fields(headers)

    def filtered(self, request: HttpRequest) -> HttpRequest:
        """What the handler of such a request gets."""
        request.added = self._cors_fields(request.headers)
        return request

    def _refuses(self, host: str) -> bool:
        """An address of IPv6 is known with and without its brackets."""
        if not self._hosts or host in self._hosts:
            return False
        address = _BRACKETED.fullmatch(host)
        return address is None or address[1] not in self._hosts

    def _cors_fields(self, headers: dict[str, str]) -> list[tuple[str, str]]:
        return cors_fields(self._cors, headers.get("origin", ""))

    def _filter(self, request: HttpRequest, handler: HttpHandler) -> None:
        if self._read_only and request.method != "GET":
            request.respond(501)
            return
        request.path = self.plain_path(request.path) or ""
        host = host_name(request.headers.get("host", ""))
        if self._refuses(host) and not request.secure:
            self._warnings.tell("rejecting HTTP request to prevent DNS rebinding attacks", host=host)
            request.error(421, _UNKNOWN_HOST.format(host=host).encode())
            return
        if request.peer_name and request.path.startswith("/v3/") and self.auth_enabled():
            request.error(400, _NAME_IGNORED)
            return
        answered = self.filtered(request)
        if request.method == "OPTIONS":
            answered.respond(200)
        elif self.passed_on is not None:
            self.passed_on(answered, handler)
        else:
            handler(answered)


def refused_read_only(path: bytes, version: bytes = b"") -> EtcdError | None:
    return EtcdError(errors.UNKNOWN_METHOD, "this proxy is read-only: it serves the v2 API alone")


def malformed(request: HttpRequest) -> None:
    """A path with a broken escape: Go's servers answer it before any handler."""
    request.respond(400, b"400 Bad Request", [("Connection", "close")], TEXT)


def decoded(path: str) -> str | None:
    """A path without escapes, None where one is broken. ``path`` has a character for each byte; bytes that
    are not UTF-8 become surrogates."""
    if "%" in path and _BROKEN.search(path):
        return None
    return unquote_to_bytes(path.encode("latin-1", "replace")).decode("utf-8", "surrogateescape")


def elsewhere(path: str) -> HttpHandler | None:
    """Of a path that is not in its shortest form."""
    clean = canonical_path(path) if path.startswith("/") else path
    return None if clean == path else lambda request: redirect(request, clean)


def redirect(request: HttpRequest, path: str) -> None:
    """The same elsewhere: Go's servers send ``//a`` and ``/b/../a`` to ``/a``."""
    target = quote(path, safe="/$&+,:;=@", errors="surrogateescape")
    target += f"?{request.query}" if request.query else ""
    location = ("Location", _NOT_ASCII.sub(lambda octet: f"%{ord(octet[0]):x}", target))
    if request.method in ("GET", "HEAD"):
        body = f'<a href="{target.translate(_IN_HTML)}">Moved Permanently</a>.\n\n'.encode("latin-1")
        request.respond(301, body, [location], "text/html; charset=utf-8")
    else:
        request.respond(301, b"", [location])


def host_name(host: str) -> str:
    """Without its port, by Go's rules: what is no host with a port stands as it is."""
    found = _WITH_PORT.fullmatch(host)
    return (found[1] or found[2] or "") if found else host


def _modern(path: str) -> str:
    return "/v3/" + path[8:] if path.startswith("/v3beta/") else path
