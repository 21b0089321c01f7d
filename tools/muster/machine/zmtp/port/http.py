"""Plain HTTP at a peer port without keys: ``GET /members`` and ``/version``, as etcd's peers and proxies ask.

The first octets decide: no HTTP request begins as ZMTP does. The members are those of frame JOIN, in etcd's
form; the client port tells as much. With a peer key a stranger learns nothing.

One request, one answer, then the connection ends; it is a stranger's (``router``). Pure.
"""

from __future__ import annotations

import json
import re
from email.utils import formatdate
from typing import Any

from cluster.version import CLUSTER_VERSION, ETCD_VERSION
from cluster.wire.frames import PeerKind

QUESTION = PeerKind.JOIN.byte
_METHODS = (b"GET ", b"HEAD ", b"POST ", b"PUT ", b"DELETE ", b"OPTIONS ", b"PATCH ")
_LONGEST_HEAD = 4096
_LINE = re.compile(rb"([A-Z]+) (/[!-~]*) HTTP/1\.[01]\r?\n")
_END = re.compile(rb"\r?\n\r?\n")
_JSON, _TEXT = "application/json", "text/plain; charset=utf-8"
_REASONS = {200: "OK", 400: "Bad Request", 404: "Not Found", 405: "Method Not Allowed"}
_VERSION = f'{{"etcdserver":"{ETCD_VERSION}","etcdcluster":"{CLUSTER_VERSION}"}}'


def is_http(data: bytes) -> bool:
    """Whether a connection begins with a request. Clients send a whole method at once."""
    return data.startswith(_METHODS)


class Request:
    """``wants_members``: the request is complete, and :meth:`members` answers it."""

    __slots__ = ("_done", "_head", "wants_members")

    def __init__(self) -> None:
        self._head = bytearray()
        self._done = False
        self.wants_members = False

    def take(self, data: bytes) -> bytes:
        """The answer, or nothing yet."""
        if self._done:
            return b""
        self._head += data
        if _END.search(self._head) is None:
            if len(self._head) <= _LONGEST_HEAD:
                return b""
            self._head.clear()
        self._done = True
        line = _LINE.match(self._head)
        if line is None:
            return _answer(400, b"400 Bad Request", kind=_TEXT)
        method, path = line.group(1), line.group(2).partition(b"?")[0]
        if path not in (b"/members", b"/version"):
            return _refused(404, b"404 page not found\n", method)
        if method != b"GET":
            return _refused(405, b"Method Not Allowed\n", method, "Allow: GET")
        if path == b"/version":
            return _answer(200, _VERSION.encode())
        self.wants_members = True
        return b""

    def members(self, told: bytes) -> bytes:
        """The answer to ``/members`` from the frame JOIN."""
        raw: dict[str, Any] = json.loads(told.removeprefix(QUESTION))
        shown = [_member(member) for member in sorted(raw["members"], key=lambda m: int(m["id"], 16))]
        body = json.dumps(shown, separators=(",", ":"), ensure_ascii=False) + "\n"
        return _answer(200, body.encode(), f"X-Etcd-Cluster-Id: {int(raw['cluster_id'], 16):x}")


def _member(told: dict[str, Any]) -> dict[str, Any]:
    """In etcd's form, which leaves out empty values."""
    found: dict[str, Any] = {"id": int(told["id"], 16), "peerURLs": told["peer_urls"]}
    rest = {"isLearner": told["learner"], "name": told["name"], "clientURLs": told["client_urls"]}
    return found | {name: value for name, value in rest.items() if value}


def _refused(status: int, body: bytes, method: bytes, *fields: str) -> bytes:
    return _answer(
        status, body, *fields, "X-Content-Type-Options: nosniff", kind=_TEXT, bodiless=method == b"HEAD")


def _answer(status: int, body: bytes, *fields: str, kind: str = _JSON, bodiless: bool = False) -> bytes:
    head = [
        f"HTTP/1.1 {status} {_REASONS[status]}",
        f"Content-Type: {kind}",
        *fields,
        f"Date: {formatdate(usegmt=True)}",
        f"Content-Length: {len(body)}",
        "Connection: close",
    ]
    return "\r\n".join([*head, "", ""]).encode() + (b"" if bodiless else body)
