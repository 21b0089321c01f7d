"""The HTTP service of a discovery URL, a v2 directory of etcd or muster. Https is checked by the machine's
authorities."""

from __future__ import annotations

import base64
import http.client
import json
import ssl
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import IO, Any, NamedTuple
from urllib.parse import quote, unquote, urlencode, urlsplit

_REQUEST_S = 5.0  # as etcd's client
WAIT_S = 60.0  # then look again: a dead connection may be silent
_MOST_BYTES = 16 << 20
_SECRET = "Authorization"


class Unreachable(Exception):
    """No answer, or a server's failure."""


class NotJson(Exception):
    """The server has no v2 API."""


class Refused(Exception):
    """An error of the v2 API."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


class Node(NamedTuple):
    """One entry of the directory."""

    name: str
    value: str
    created: int


@dataclass(slots=True, frozen=True)
class Answer:
    """A node with its children, and the store's index."""

    value: str
    created: int
    index: int
    nodes: tuple[Node, ...]


class _Redirects(urllib.request.HTTPRedirectHandler):
    """The same request goes to the other place, as from etcd's client; urllib sends GET alone there. A name
    and a password stay at their host, and go by http only where they were meant to."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str,
        headers: http.client.HTTPMessage, newurl: str,
    ) -> urllib.request.Request:
        before, after = urlsplit(req.full_url), urlsplit(newurl)
        kept = before.hostname == after.hostname and after.scheme in ("https", before.scheme)
        sent = {name: value for name, value in req.headers.items() if kept or name != _SECRET}
        return urllib.request.Request(newurl, req.data, sent, method=req.get_method())


class Service:
    """The directory of one discovery URL. ``proxy``: for HTTP, "": none, whatever the environment says."""

    def __init__(self, url: str, proxy: str = "") -> None:
        parts = urlsplit(url)
        self.base = f"{parts.scheme}://{_host(url)}"
        self.path = "/" + parts.path.strip("/")
        self._headers: dict[str, str] = {}
        if parts.username is not None:
            told = f"{unquote(parts.username)}:{unquote(parts.password or '')}".encode()
            self._headers[_SECRET] = "Basic " + base64.b64encode(told).decode()
        if proxy and "://" not in proxy:
            proxy = f"http://{proxy}"
        proxies = {"http": proxy, "https": proxy} if proxy else {}
        secured = urllib.request.HTTPSHandler(context=_trusting())
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler(proxies), secured, _Redirects)

    def get(self, name: str = "") -> Answer:
        """A node below the directory, or the directory. Unreachable, NotJson, Refused."""
        return _read(self._ask("GET", name))

    def create(self, name: str, value: str) -> Answer:
        """A new node below it; Refused with code 105 if it exists."""
        return _read(self._ask("PUT", name, {"prevExist": "false"}, urlencode({"value": value}).encode()))

    def wait(self, name: str, index: int, limit_s: float = WAIT_S) -> None:
        """Until a change after an index: of a node, or of anything below the directory (""). It may return
        sooner."""
        query = {"wait": "true", "recursive": "false" if name else "true", "waitIndex": str(index)}
        try:
            self._ask("GET", name, query, limit_s=limit_s)
        except (Unreachable, Refused):
            return

    def _ask(
        self, method: str, name: str, query: dict[str, str] | None = None, body: bytes | None = None,
        limit_s: float = _REQUEST_S,
    ) -> tuple[int, bytes, str]:
        """Status, body and X-Etcd-Index."""
        path = quote(f"{self.path}/{name}" if name else self.path, safe="/%")
        url = self.base + path + (f"?{urlencode(query)}" if query else "")
        request = urllib.request.Request(url, body, self._headers, method=method)
        try:
            try:
                with self._opener.open(request, timeout=limit_s) as answer:
                    found = answer.status, answer.read(_MOST_BYTES), answer.headers.get("X-Etcd-Index", "0")
            except urllib.error.HTTPError as e:
                with e:
                    found = e.code, e.read(_MOST_BYTES), e.headers.get("X-Etcd-Index", "0")
        except urllib.error.URLError as e:
            raise Unreachable(_because(e.reason)) from None
        except (OSError, http.client.HTTPException, ValueError) as e:
            raise Unreachable(_because(e)) from None
        if found[0] >= 500:
            raise Unreachable(f"{self.base} returns server error [{found[0]}]")
        return found


def _trusting() -> ssl.SSLContext:
    """As Go: a server's alternative names count, and its common name does not."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.hostname_checks_common_name = False
    context.load_default_certs()
    context.set_alpn_protocols(["http/1.1"])
    return context


def shown(url: str) -> str:
    """A URL for logs: without user and password."""
    return urlsplit(url)._replace(netloc=_host(url)).geturl()


def _host(url: str) -> str:
    return urlsplit(url).netloc.rpartition("@")[2]


def _because(error: object) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return str(error) or type(error).__name__


def _read(found: tuple[int, bytes, str]) -> Answer:
    status, body, index = found
    try:
        raw = json.loads(body)
        if status in (200, 201):
            node = raw["node"]
            return Answer(
                str(node.get("value", "")),
                int(node["createdIndex"]),
                int(index),
                tuple(_node(n) for n in node.get("nodes", ())))
        code = int(raw.get("errorCode", 0))  # none where the client lacks a password
        text = f"{code}: {raw['message']} ({raw.get('cause', '')}) [{raw.get('index', 0)}]"
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as e:
        raise NotJson(repr(e)) from None
    raise Refused(code, text)


def _node(raw: dict[str, Any]) -> Node:
    return Node(str(raw["key"]).rpartition("/")[2], str(raw.get("value", "")), int(raw["createdIndex"]))
