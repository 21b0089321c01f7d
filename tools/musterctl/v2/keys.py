"""/v2/keys: requests as etcd's client sends them, and the answers."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, quote_plus

from cluster import gotext
from tools.musterctl.v2.client import Client, Refused
from tools.musterctl.v2.exchange import Request, Response, Wait

_FORM = {"Content-Type": "application/x-www-form-urlencoded"}
NOT_A_FILE = 102
_CLEARED = 401
_UINT64 = (1 << 64) - 1
_NS = 10**9


class KeyRefused(Refused):
    """An error of the store."""

    def __init__(self, code: int, message: str, cause: str, index: int) -> None:
        super().__init__(f"{code}: {message} ({cause}) [{index}]")
        self.code, self.index = code, index


class NotJson(Refused):
    """The endpoint is no etcd."""

    def __init__(self) -> None:
        super().__init__(
            "client: response is invalid json. The endpoint is probably not valid etcd cluster endpoint")


class Empty(Refused):
    """An answer without a body: a wait that the server ended."""

    def __init__(self) -> None:
        super().__init__("client: response body is empty")


@dataclass(slots=True, frozen=True)
class Node:
    """A file or a directory."""

    key: str
    dir: bool
    value: str
    nodes: list[Node] | None
    created: int
    modified: int
    expiration: str
    ttl: int

    @classmethod
    def of(cls, found: dict[str, Any]) -> Node:
        nodes = found.get("nodes")
        return cls(
            _text(found.get("key")),
            bool(found.get("dir")),
            _text(found.get("value")),
            None if nodes is None else [cls.of(node) for node in nodes],
            int(found.get("createdIndex") or 0),
            int(found.get("modifiedIndex") or 0),
            _text(found.get("expiration")),
            int(found.get("ttl") or 0))


@dataclass(slots=True, frozen=True)
class Change:
    """An answer of the store: a read, a change, or an event."""

    action: str
    node: Node
    previous: Node | None
    index: int  # of the whole store


def _text(value: object) -> str:
    """A JSON string without halves of surrogate pairs, as in Go."""
    text = value if isinstance(value, str) else ""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def change(answer: Response) -> Change:
    """An answer's content. Refused."""
    if answer.status not in (200, 201):
        try:
            found = json.loads(answer.body)
            code, index = int(found.get("errorCode") or 0), int(found.get("index") or 0)
            raise KeyRefused(code, _text(found.get("message")), _text(found.get("cause")), index)
        except (ValueError, AttributeError, TypeError):
            raise NotJson from None
    if not answer.body:
        raise Empty
    try:
        found = json.loads(answer.body.decode("utf-8", "replace"))
        previous = found.get("prevNode")
        return Change(
            _text(found.get("action")),
            Node.of(found["node"]),
            None if previous is None else Node.of(previous),
            int(answer.headers.get("x-etcd-index") or 0))
    except (ValueError, AttributeError, TypeError, KeyError):
        raise NotJson from None


def _path(key: str) -> str:
    key = key if not key or key.startswith("/") else f"/{key}"
    return quote(gotext.raw(gotext.canonical_path(f"/v2/keys{key}")), safe="/$&+,:;=@")


def _pairs(**values: str | None) -> str:
    """What is not None, by name, as a query or a form."""
    return "&".join(
        f"{name}={quote_plus(gotext.raw(value))}"
        for name, value in sorted(values.items())
        if value is not None
    )


def _ttl(seconds: int) -> str | None:
    """As etcdctl sends it, whose nanoseconds wrap at 64 bits; None: none. A host's wrap, too: there a key
    could end at once."""
    ns = (seconds * _NS + (1 << 63)) % (1 << 64) - (1 << 63)
    return str(ns // _NS) if ns > 0 else None


def _flag(value: bool) -> str:
    return "true" if value else "false"


class Keys:
    """RequestError, Refused."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def get(self, key: str, recursive: bool = False, sort: bool = False, quorum: bool = False) -> Change:
        query = _pairs(recursive=_flag(recursive), sorted=_flag(sort), quorum=_flag(quorum))
        return change(self._client.ask(Request("GET", _path(key), query)))

    def put(
        self, key: str, value: str | None, ttl: int = 0, exist: bool | None = None, previous_value: str = "",
        previous_index: int = 0,
    ) -> Change:
        """Write a file, or a directory (``value`` None)."""
        query = _pairs(
            dir="true" if value is None else None,
            prevExist=None if exist is None else _flag(exist),
            prevValue=previous_value or None,
            prevIndex=str(previous_index & _UINT64) if previous_index else None)
        form = _pairs(value=value, ttl=_ttl(ttl))
        request = Request("PUT", _path(key), query, form.encode(), _FORM)
        return change(self._client.ask(request, once=exist is False))

    def create_in_order(self, directory: str, value: str, ttl: int = 0) -> Change:
        """Write a file whose name is the next index."""
        form = _pairs(value=value, ttl=_ttl(ttl))
        request = Request("POST", _path(directory), "", form.encode(), _FORM)
        return change(self._client.ask(request, sent_once=True))

    def delete(
        self, key: str, directory: bool = False, recursive: bool = False, previous_value: str = "",
        previous_index: int = 0,
    ) -> Change:
        query = _pairs(
            dir="true" if directory else None,
            recursive="true" if recursive else None,
            prevValue=previous_value or None,
            prevIndex=str(previous_index & _UINT64) if previous_index else None)
        return change(self._client.ask(Request("DELETE", _path(key), query), once=True))

    def wait(self, key: str, index: int, recursive: bool) -> Change:
        """The next event at or after an index (0: from now on), however long it takes. From now on it misses
        what the store forgets while no host lets it wait."""
        query = _pairs(recursive=_flag(recursive), wait="true")
        wait = Wait(index)
        request = Request("GET", _path(key), query, wait=wait)
        while True:
            try:
                return change(self._client.ask(request, bounded=False))
            except Empty:
                continue
            except KeyRefused as refused:
                if refused.code != _CLEARED or not wait.outdated(refused.index):
                    raise
