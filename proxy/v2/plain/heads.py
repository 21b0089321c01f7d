"""How answers to plain requests begin and end, as bytes (``reads``, ``requests``).

What a block of header fields means is kept by its bytes: clients send the same one again and again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from proxy.http.http1_plain import Plain, date
from proxy.v2.call import JSON, MADE

_NS = 10**9
_FORM = "application/x-www-form-urlencoded"
_KEPT, _KEPT_BYTES = 512, 1024  # blocks of header fields, and the largest

Added = Callable[[dict[str, str]], list[tuple[str, str]] | None]


class Block(NamedTuple):
    """A block of header fields."""

    begin: bytes  # of an answer 200
    created: bytes  # of an answer 201
    named: bool  # it says who asks
    form: bool  # a form follows
    bare: bool  # no body follows: a set may have had these fields, and a read with them has one, too
    length: int  # of the body


class Heads:
    """Of one front."""

    def __init__(self, cluster_id: int, added: Added) -> None:
        """``added``: what an answer to such fields has before its own; None: it may be refused."""
        self._cluster = f"X-Etcd-Cluster-Id: {cluster_id:x}\r\n".encode()
        self._added = added
        self.blocks: dict[bytes, Block | None] = {}  # None: such a request is not plain
        self._made: tuple[bytes, int, int, int] = b"", 0, 0, 0  # what this was made of:
        self._head = b""
        self._place: tuple[int, int] = -1, -1  # of the order, and its term; what an answer says of them
        self._placed = b""
        self._second = 0
        self._tail = b""

    def look(self, plain: Plain | None, block: bytes) -> Block | None:
        """What a block says that is not in ``blocks``. ``plain``: the request with it, if it is plain."""
        if len(block) > _KEPT_BYTES:
            return None
        found = None
        if plain is not None and (added := self._added(plain.headers)) is not None:
            fields = "".join([f"{name}: {value}\r\n" for name, value in added]).encode("latin-1")
            rest = fields + self._cluster
            found = Block(
                b"HTTP/1.1 200 OK\r\n" + rest,
                b"HTTP/1.1 201 Created\r\n" + rest,
                bool(plain.headers.get("authorization")),
                plain.headers.get("content-type") == _FORM,
                not plain.body,
                len(plain.body),
            )
        if len(self.blocks) >= _KEPT:
            self.blocks.clear()
        self.blocks[block] = found
        return found

    def answer(self, begin: bytes, index: int, raft_index: int, term: int, body: bytes, now_ns: int) -> bytes:
        """A whole answer, now."""
        made = (begin, index, raft_index, term)
        if made != self._made:
            self._made = made
            self._head = begin + (
                f"X-Etcd-Index: {index}\r\nX-Raft-Index: {raft_index}\r\nX-Raft-Term: {term + MADE}\r\n"
                f"content-type: {JSON}\r\ncontent-length: "
            ).encode()
        second = now_ns // _NS
        if second != self._second:
            self._dated(second)
        return b"%b%d%b%b" % (self._head, len(body), self._tail, body)

    def changed(
        self, begin: bytes, index: int, raft_index: int, term: int, body: bytes, now_ns: int
    ) -> bytes:
        """The same, to one of many changes, each of which has an index of its own."""
        if (raft_index, term) != self._place:
            self._place = raft_index, term
            self._placed = (
                f"\r\nX-Raft-Index: {raft_index}\r\nX-Raft-Term: {term + MADE}\r\n"
                f"content-type: {JSON}\r\ncontent-length: "
            ).encode()
        second = now_ns // _NS
        if second != self._second:
            self._dated(second)
        return b"%bX-Etcd-Index: %d%b%d%b%b" % (begin, index, self._placed, len(body), self._tail, body)

    def _dated(self, second: int) -> None:
        self._second = second
        self._tail = f"\r\ndate: {date(second)}\r\n\r\n".encode()
