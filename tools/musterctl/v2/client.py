"""The cluster as a v2 client sees it: its endpoints, and which one answers.

A failing endpoint is passed over. Creations and deletions are tried at one endpoint only, since a second try
could meet the result of the first. One in order is tried until an endpoint may have taken it. Before a
command the endpoints are replaced by those that the members publish.
"""

from __future__ import annotations

import base64
import http.client
import json
import os
import random
import ssl
import sys
import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import urlsplit

from muster_client.wire.endpoints import trusting

from cluster import gotext
from proxy.gateway.go_json import Mistake, loads
from tools.client.files import Renewed, refused_pair
from tools.musterctl import passwords
from tools.musterctl.command import Exit
from tools.musterctl.v2.exchange import Connections, DeadlineExceeded, Request, RequestError, Response
from tools.musterctl.v2.line import Values
from tools.musterctl.v2.table import DEFAULT_ENDPOINTS

BAD_CONNECTION, SERVER_ERROR, NOT_HEALTHY, BAD_ARGS = 2, 4, 5, 128
_NS = 1e9


class ClusterError(RequestError):
    """No endpoint answered; one reason for each."""

    def __init__(self, errors: list[RequestError]) -> None:
        reasons = "".join(f"; error #{i}: {error}\n" for i, error in enumerate(errors))
        connecting = all(error.connecting for error in errors)
        super().__init__(f"client: etcd cluster is unavailable or misconfigured{reasons}", connecting)
        self.detail = "".join(f"error #{i}: {error}\n" for i, error in enumerate(errors))


class Refused(Exception):
    """A refusal, or an unreadable answer."""


def fail(code: int, error: Exception | str) -> NoReturn:
    """Print an error as commands on keys do, and end."""
    print(f"Error:  {error}", file=sys.stderr)
    if isinstance(error, ClusterError):
        print(error.detail, file=sys.stderr)
    raise Exit(code)


def refuse(text: Exception | str) -> NoReturn:
    """Print an error as all other commands do, and end."""
    print(text, file=sys.stderr)
    raise Exit(1)


@dataclass(slots=True)
class Client:
    endpoints: list[str]
    connections: Connections
    header_s: float
    total_s: float
    authorization: str = ""
    pinned: int = 0

    def another(self) -> Client:
        """For another thread, with connections of its own."""
        tls, server_name = self.connections.tls, self.connections.server_name
        return replace(
            self, endpoints=random.sample(self.endpoints, len(self.endpoints)), pinned=0,
            connections=Connections(tls, server_name, self.connections.debug))

    def ask(
        self, request: Request, bounded: bool = True, once: bool = False, sent_once: bool = False
    ) -> Response:
        """The first endpoint's answer, beginning with the one that answered last. RequestError."""
        if self.authorization:
            request = replace(request, headers={**request.headers, "Authorization": self.authorization})
        deadline = time.monotonic() + self.total_s if bounded else None
        if bounded and self.total_s <= 0:
            raise DeadlineExceeded
        errors: list[RequestError] = []
        for step in range(len(self.endpoints)):
            at = (self.pinned + step) % len(self.endpoints)
            endpoint = self.endpoints[at]
            try:
                answer = self.connections.send(endpoint, request, self.header_s, deadline)
            except DeadlineExceeded:
                raise
            except RequestError as error:
                errors.append(error)
            else:
                if answer.status // 100 != 5:
                    self.pinned = at
                    return answer
                errors.append(_server_error(endpoint, answer.status))
            if once or (sent_once and self.connections.sent):
                self.pinned = (at + 1) % len(self.endpoints)
                raise errors[-1]
        raise ClusterError(errors)

    def members(self, bounded: bool = True) -> list[Member]:
        """RequestError, Refused."""
        answer = self.ask(Request("GET", "/v2/members"), bounded)
        expect(answer, 200)
        return [Member.of(found) for found in parsed(answer.body).get("members") or []]

    def sync(self) -> None:
        """Take the endpoints that the members publish."""
        try:
            found = [url for member in self.members() for url in member.client_urls]
        except RequestError as error:
            if error.connecting:
                fail(BAD_CONNECTION, error)
            return
        except Refused:
            return
        if not found:
            listed = ",".join(self.endpoints)
            print("etcd cluster has no published client endpoints.", file=sys.stderr)
            print(
                f"Try '--no-sync' if you want to access non-published client endpoints({listed}).",
                file=sys.stderr)
            fail(SERVER_ERROR, "client: no endpoints available")
        if sorted(found) != sorted(self.endpoints):
            random.shuffle(found)
            self.endpoints, self.pinned = found, 0


@dataclass(slots=True, frozen=True)
class Member:
    id: str
    name: str
    peer_urls: list[str]
    client_urls: list[str]

    @classmethod
    def of(cls, found: dict[str, Any]) -> Member:
        return cls(
            str(found.get("id", "")),
            str(found.get("name", "")),
            [str(url) for url in found.get("peerURLs") or []],
            [str(url) for url in found.get("clientURLs") or []])


def _server_error(endpoint: str, status: int) -> RequestError:
    if status in (500, 503):
        return RequestError(f"client: etcd member {endpoint} has no leader")
    name = http.client.responses.get(status, "")
    return RequestError(f"client: etcd member {endpoint} returns server error [{name}]")


def expect(answer: Response, *statuses: int) -> None:
    """Refused unless the answer has one of these."""
    if answer.status not in statuses:
        raise Refused(f"unexpected status code {answer.status}")


def parsed(body: bytes) -> dict[str, Any]:
    """A JSON object; Refused with Go's words otherwise."""
    try:
        value = json.loads(body.decode("utf-8", "replace"))
    except ValueError:
        try:
            value = loads(body.decode("latin-1"))
        except Mistake as mistake:
            raise Refused(str(mistake)) from None
    return value if isinstance(value, dict) else {}


def connect(given: Values, sync: bool = True) -> Client:
    """A client by global options and environment, with the cluster's endpoints."""
    try:
        client = _client(given)
    except Refused as error:
        refuse(error)
    debug = given.switch("debug")
    if sync and not given.switch("no-sync"):
        _say(debug, f"start to sync cluster using endpoints({','.join(client.endpoints)})")
        client.sync()
        _say(debug, f"got endpoints({','.join(client.endpoints)}) after sync")
    tell_endpoints(client, given)
    return client


def tell_endpoints(client: Client, given: Values) -> None:
    """Print the endpoints, if asked to."""
    _say(given.switch("debug"), f"Cluster-Endpoints: {', '.join(client.endpoints)}")


def _say(debug: bool, text: str) -> None:
    if debug:
        print(text, file=sys.stderr)


def _client(given: Values) -> Client:
    domain = variable(given, "discovery-srv")
    insecure = given.switch("insecure-discovery") or bool(_environment("INSECURE_DISCOVERY"))
    endpoints = _endpoints(given, domain, insecure)
    tls = _tls(*(variable(given, name) for name in ("cert-file", "key-file", "ca-file")))
    connections = Connections(tls, "" if insecure else domain, given.switch("debug"))
    client = Client(
        endpoints, connections, given.number("timeout") / _NS, given.number("total-timeout") / _NS
    )
    if user := variable(given, "username"):
        name, password = credentials(user, "Password: ")
        token = base64.b64encode(gotext.raw(f"{name}:{password}")).decode()
        client.authorization = f"Basic {token}"
    random.shuffle(client.endpoints)
    return client


def variable(given: Values, name: str) -> str:
    """A global option, or its variable."""
    return given.string(name) or _environment(name.upper().replace("-", "_"))


def _environment(key: str) -> str:
    return os.environ.get(f"MUSTERCTL_{key}", "") or os.environ.get(f"ETCDCTL_{key}", "")


def _endpoints(given: Values, domain: str, insecure: bool) -> list[str]:
    found: list[str] = []
    if domain:
        from tools.musterctl.discovery import endpoints_of

        try:
            found = endpoints_of(domain, _environment("DISCOVERY_SRV_NAME"), insecure=True)
        except Exit as end:
            raise Refused(end.message or "") from None
        if not insecure:
            for endpoint in found:
                if endpoint.startswith("http://"):
                    print(f"ignoring discovered insecure endpoint {gotext.quote(endpoint)}", file=sys.stderr)
            found = [endpoint for endpoint in found if not endpoint.startswith("http://")]
    if not found:
        listed = next(
            (text for name in ("endpoints", "endpoint", "peers") if (text := variable(given, name))), ""
        )
        found = (listed or DEFAULT_ENDPOINTS).split(",")
    return [_checked(endpoint.strip()) for endpoint in found]


def _checked(endpoint: str) -> str:
    """An endpoint as a URL without its query; ``host:port`` means http, as in older builds of etcdctl.
    Refused."""
    if endpoint.startswith(":"):
        raise Refused(f"parse {gotext.quote(endpoint)}: missing protocol scheme")
    url = (endpoint if "://" in endpoint else f"http://{endpoint}").partition("#")[0].partition("?")[0]
    try:
        parts = urlsplit(url)
    except ValueError:
        raise Refused(f"parse {gotext.quote(endpoint)}: missing ']' in host") from None
    try:
        _ = parts.port
    except ValueError:
        port = parts.netloc.rpartition(":")[2]
        if port.isascii() and port.isdecimal():  # 99999 fails when dialled
            return url.rstrip("/")
        raise Refused(
            f"parse {gotext.quote(endpoint)}: invalid port {gotext.quote(':' + port)} after host") from None
    return url.rstrip("/")


def _tls(cert: str, key: str, ca: str) -> Renewed | None:
    """Credentials of https; None for none. Refused."""
    if not (cert or key or ca):
        return None
    if bool(cert) != bool(key):
        raise Refused(f"KeyFile and CertFile must both be present[key: {key}, cert: {cert}]")
    return Renewed((cert, key, ca), partial(_context, cert, key, ca))


def _context(cert: str, key: str, ca: str) -> ssl.SSLContext:
    for name in (cert, key, ca):
        try:
            if name:
                Path(name).read_bytes()
        except OSError as error:
            raise Refused(f"open {name}: {(error.strerror or '').lower()}") from None
    try:
        context = trusting(ca)
        if cert:
            context.load_cert_chain(cert, key, password="")
    except (ssl.SSLError, ValueError) as error:
        reason = refused_pair(error)
        raise Refused(f"tls: {reason or f'failed to load {cert or ca}: {error}'}") from None
    return context


def credentials(text: str, prompt: str) -> tuple[str, str]:
    """``name:password``, or a name whose password is asked for."""
    name, colon, password = text.partition(":")
    return name, password if colon else ask_password(prompt)


def ask_password(prompt: str) -> str:
    password = passwords.ask(prompt, gap="")
    if not sys.stdin.isatty():
        print(flush=True)
    return password
