"""One HTTP request to one endpoint, on a kept connection, with errors in the words of Go."""

from __future__ import annotations

import http.client
import os
import socket
import ssl
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import SplitResult, urljoin, urlsplit

from muster_client.wire.endpoints import trusting

from cluster import gotext
from tools.client.files import Renewed
from tools.muster.machine import silence

_REDIRECTS = 10


class RequestError(Exception):
    """No answer; ``connecting``: there was no connection."""

    def __init__(self, message: str, connecting: bool = False) -> None:
        super().__init__(message)
        self.connecting = connecting


class DeadlineExceeded(RequestError):
    """The whole command's time is over."""

    def __init__(self) -> None:
        super().__init__("context deadline exceeded", connecting=True)


class HeaderTimeout(RequestError):
    """An endpoint did not answer in the time of one request."""

    def __init__(self, endpoint: str) -> None:
        super().__init__(f"client: endpoint {endpoint} exceeded header timeout")


@dataclass(slots=True)
class Wait:
    """For the first event from an index on; 0: from now on."""

    index: int
    found: bool = False  # whether an attempt has told the index, not the caller

    def begun(self, status: int, index: str) -> None:
        """Whatever ends this attempt, the next one misses no event behind the store's index."""
        if not self.index and status == 200 and index.isdecimal() and int(index):
            self.index, self.found = int(index) + 1, True

    def outdated(self, index: int) -> bool:
        """The store has forgotten some events: whether the next attempt goes on, behind the store's index."""
        if self.found and index:
            self.index = index + 1
        return self.found and index > 0


@dataclass(slots=True, frozen=True)
class Request:
    """``path`` is escaped and begins with a slash."""

    method: str
    path: str
    query: str = ""
    body: bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    wait: Wait | None = None  # its answer may take any time

    def url(self, endpoint: str) -> str:
        query = self.query if self.wait is None else f"{self.query}&waitIndex={self.wait.index}"
        return f"{endpoint}{self.path}{'?' + query if query else ''}"


@dataclass(slots=True, frozen=True)
class Response:
    status: int
    headers: Mapping[str, str]  # names in lower case
    body: bytes


@dataclass(slots=True)
class Connections:
    """Kept connections, one for each server."""

    tls: Renewed | None
    server_name: str = ""
    debug: bool = False
    sent: bool = False  # the last request, at least in part
    _kept: dict[tuple[str, str], http.client.HTTPConnection] = field(default_factory=dict)

    def send(self, endpoint: str, request: Request, header_s: float, deadline: float | None) -> Response:
        """One endpoint's answer, redirects followed. ``header_s`` until its headers, 0: any time."""
        url, self.sent = request.url(endpoint), False
        for _ in range(_REDIRECTS):
            answer = self._once(endpoint, url, request, header_s, deadline)
            if answer.status // 100 != 3:
                return answer
            self.sent = False  # nobody has taken it
            if "location" not in answer.headers:
                raise RequestError("client: location header not set")
            url = urljoin(url, answer.headers["location"])
        raise RequestError("client: too many redirects")

    def _once(
        self, endpoint: str, url: str, request: Request, header_s: float, deadline: float | None
    ) -> Response:
        if self.debug:
            data = "" if request.body is None else f" -d {gotext.quote(request.body)}"
            print(f"cURL Command: curl -X {request.method} {url}{data}", file=sys.stderr)
        began = time.monotonic()
        until = began + header_s if header_s > 0 and request.wait is None else None
        ends = [at for at in (until, deadline) if at is not None]
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https"):
            raise RequestError(f"unsupported protocol scheme {gotext.quote(parts.scheme)}")
        try:
            connection, answer = self._headers(parts, request, min(ends, default=None))
            if connection.sock is not None:
                connection.sock.settimeout(None if deadline is None else _left(deadline))
            body = answer.read()
        except TimeoutError as error:
            self._forget(parts)
            raise _late(error, endpoint, until, deadline) from None
        except http.client.IncompleteRead:
            self._forget(parts)
            raise RequestError("unexpected EOF") from None
        except http.client.RemoteDisconnected:
            self._forget(parts)
            raise RequestError("EOF") from None
        except http.client.HTTPException as error:
            self._forget(parts)
            raise RequestError(
                f"net/http: HTTP/1.x transport connection broken: malformed HTTP response {_shown(error)}"
            ) from None
        except OSError as error:
            self._forget(parts)
            # with TLS 1.3 the server's refusal of a certificate comes after the handshake
            raise _not_secure(error, parts.netloc) from None
        if answer.will_close:
            self._forget(parts)
        return Response(answer.status, {k.lower(): v for k, v in answer.getheaders()}, body)

    def _headers(
        self, parts: SplitResult, request: Request, until: float | None
    ) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
        """Send on the kept connection, or on a new one if the server has ended it."""
        key = (parts.scheme, parts.netloc)
        kept = self._kept.get(key)
        for connection in (kept, None):
            if connection is None:
                if until is not None and until <= time.monotonic():
                    raise TimeoutError
                connection = self._kept[key] = self._open(parts, until)
            elif kept is None or kept.sock is None:
                continue
            try:
                connection.sock.settimeout(None if until is None else _left(until))
                path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
                self.sent = True
                connection.request(request.method, path, request.body, dict(request.headers))
                answer = connection.getresponse()
                if request.wait is not None:
                    request.wait.begun(answer.status, answer.getheader("X-Etcd-Index", ""))
                return connection, answer
            except (http.client.RemoteDisconnected, BrokenPipeError, ConnectionResetError):
                if connection is not kept or request.method != "GET":
                    raise
                self._forget(parts)
        raise AssertionError("a new connection is always tried")

    def _open(self, parts: SplitResult, until: float | None) -> http.client.HTTPConnection:
        if not parts.hostname:
            raise RequestError("http: no Host in request URL")
        try:
            host, port = parts.hostname, parts.port or (443 if parts.scheme == "https" else 80)
        except ValueError:
            shown = parts.netloc.rpartition(":")[2]
            raise RequestError(f"dial tcp: address {shown}: invalid port", connecting=True) from None
        connection = http.client.HTTPConnection(host, port)
        plain = _dial(host, port, until)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        silence.keep_alive(plain)  # a wait has no time limit, and its host may be gone
        if parts.scheme == "https":
            context = self.tls.context() if self.tls else trusting("")
            try:
                name = (self.server_name or host).removesuffix(".")  # which no certificate has
                connection.sock = context.wrap_socket(plain, server_hostname=name)
            except TimeoutError:
                raise
            except OSError as error:
                plain.close()
                raise _not_secure(error, host) from None
        else:
            connection.sock = plain
        connection.auto_open = 0
        return connection

    def _forget(self, parts: SplitResult) -> None:
        connection = self._kept.pop((parts.scheme, parts.netloc), None)
        if connection is not None:
            connection.close()


def _late(
    error: TimeoutError, endpoint: str, until: float | None, deadline: float | None
) -> RequestError:
    if error.errno:  # the kernel's: the host is gone
        return _broken(error)
    if deadline is not None and (until is None or deadline <= until or time.monotonic() >= deadline):
        return DeadlineExceeded()
    return HeaderTimeout(endpoint)


def _left(until: float) -> float:
    return max(until - time.monotonic(), 0.001)


def _dial(host: str, port: int, until: float | None) -> socket.socket:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:  # a label that is empty or too long
        no_host = isinstance(error, UnicodeError) or (
            isinstance(error, socket.gaierror) and error.errno != socket.EAI_AGAIN)
        why = "no such host" if no_host else "server misbehaving"
        raise RequestError(f"dial tcp: lookup {host}{_name_server()}: {why}", connecting=True) from None
    first: RequestError | None = None
    for family, kind, protocol, _, address in found:
        sock = socket.socket(family, kind, protocol)
        try:
            sock.settimeout(None if until is None else _left(until))
            sock.connect(address)
            return sock
        except OSError as error:
            sock.close()
            if isinstance(error, TimeoutError) and not error.errno:  # the time of this request
                raise
            shown = f"[{address[0]}]" if family == socket.AF_INET6 else address[0]
            reason = os.strerror(error.errno or 0).lower()
            first = first or RequestError(f"dial tcp {shown}:{port}: connect: {reason}", connecting=True)
    assert first is not None
    raise first


def _name_server() -> str:
    """" on 10.0.0.2:53": the resolver's first server, in Go's words."""
    try:
        lines = Path("/etc/resolv.conf").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    servers = [
        words[1] for line in lines if (words := line.split()) and words[0] == "nameserver" and len(words) > 1
    ]
    return f" on {servers[0]}:53" if servers else ""


def _broken(error: OSError) -> RequestError:
    reason = os.strerror(error.errno).lower() if error.errno else str(error)
    return RequestError(f"read tcp: read: {reason}", connecting=True)


def _not_secure(error: OSError, host: str) -> RequestError:
    """Go's words for a connection that failed, in or after the TLS handshake."""
    if isinstance(error, ssl.SSLCertVerificationError):
        if error.verify_code in (62, 64):  # the name, the address
            return RequestError(f"x509: certificate is not valid for {host}")
        if error.verify_code == 10:
            return RequestError("x509: certificate has expired or is not yet valid")
        return RequestError("x509: certificate signed by unknown authority")
    if isinstance(error, ssl.SSLError):
        if error.reason in ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "PACKET_LENGTH_TOO_LONG"):
            return RequestError("http: server gave HTTP response to HTTPS client")
        if isinstance(error, (ssl.SSLEOFError, ssl.SSLZeroReturnError)) or "EOF" in str(error):
            return RequestError("EOF")
        reason = error.reason or str(error)
        words = gotext.tls_alert(reason) or reason.lower().replace("_", " ")
        return RequestError(f"remote error: tls: {words}")
    return _broken(error)


def _shown(error: http.client.HTTPException) -> str:
    return gotext.quote(str(error.args[0]).rstrip("\r\n") if error.args else "")
