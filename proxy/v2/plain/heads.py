"""How answers to plain requests begin and end, as bytes. Parsed blocks of header fields are kept by their
bytes: clients repeat them."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from cluster.version import MADE
from proxy.http.http1_plain import Plain, date
from proxy.http.requests import FORM, JSON

_NS = 10**9
_KEPT, _KEPT_BYTES = 512, 1024  # blocks of header fields, and the largest

Added = Callable[[dict[str, str]], list[tuple[str, str]] | None]


class Block(NamedTuple):
    begin: bytes  # of answer 200
    created: bytes  # of answer 201
    named: bool  # has credentials
    form: bool  # a form follows
    bare: bool  # no body follows
    length: int  # of the body


class Heads:
    def __init__(self, cluster_id: int, added: Added) -> None:
        """``added``: the fields that a filter puts first in an answer to such fields; None: it may refuse."""
        self._cluster = f"X-Etcd-Cluster-Id: {cluster_id:x}\r\n".encode()
        self._added = added
        self.blocks: dict[bytes, Block | None] = {}  # None: not plain
        self._place: tuple[int, int] = -1, -1  # order index and term of ``_placed``
        self._placed = b""
        self._second = 0
        self._tail = b""

    def look(self, plain: Plain | None, block: bytes) -> Block | None:
        if len(block) > _KEPT_BYTES:
            return None
        found = None
        if plain is not None and (added := self._added(plain.headers)) is not None:
            fields = "".join([f"{name}: {value}\r\n" for name, value in added]).encode("latin-1")
            rest = fields + self._cluster
            found = Block(
                b"HTTP/1.1 200 OK\r\n" + rest, b"HTTP/1.1 201 Created\r\n" + rest,
                bool(plain.headers.get("authorization")), plain.headers.get("content-type") == FORM,
                not plain.body, len(plain.body))
        if len(self.blocks) >= _KEPT:
            self.blocks.clear()
        self.blocks[block] = found
        return found

    def answer(self, begin: bytes, index: int, raft_index: int, term: int, body: bytes, now_ns: int) -> bytes:
        if (raft_index, term) != self._place:
            self._place = raft_index, term
            self._placed = (
                f"\r\nX-Raft-Index: {raft_index}\r\nX-Raft-Term: {term + MADE}\r\n"
                f"Content-Type: {JSON}\r\nContent-Length: "
            ).encode()
        second = now_ns // _NS
        if second != self._second:
            self._second = second
            self._tail = f"\r\nDate: {date(second)}\r\n\r\n".encode()
        return b"%bX-Etcd-Index: %d%b%d%b%b" % (begin, index, self._placed, len(body), self._tail, body)
