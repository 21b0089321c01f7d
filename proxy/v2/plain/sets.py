"""Sets of files of the v2 tree, taken as their bytes come: one object is the request and the router's call.
Hot path: 5.5 us a set, by ``requests`` 11. A set is taken if it is all that a read of the socket gave, and
``requests`` would take it. All else, and an answer that is a refusal, goes the usual way."""

from __future__ import annotations

import re
import struct

from cluster.features.v2.requests import ANSWER, set_of
from cluster.features.v2.tree import KEYS
from cluster.wire.messages import HEAD, Method
from proxy.http.http1_plain import TakenRequest, Taker
from proxy.http.requests import HttpRequest
from proxy.routing.router import Waiting
from proxy.routing.waiting import OK
from proxy.v2.call import said
from proxy.v2.keys import MOST_PATH
from proxy.v2.plain.heads import Block
from proxy.v2.plain.reads import PLAIN_KEY
from proxy.v2.plain.requests import VALUE, PlainRequests, form_of

_LINE = re.compile(rf"PUT /v2/keys({PLAIN_KEY}) HTTP/1\.1\r\n".encode())
_BLANK = b"\r\n\r\n"
_NS = 10**9
_V2_WRITE = int(Method.V2_WRITE)
# revision, term; then an Answer: index, raft index, error code, action, whether the key is new
_ANSWERED = struct.Struct(HEAD.format + ANSWER.format[1:])


class PlainSets:
    def __init__(self, ways: PlainRequests) -> None:
        self._ways = ways
        self._blocks = ways.heads.blocks

    def take(self, owner: Taker, data: bytes) -> TakenSet | None:
        line = _LINE.match(data)
        if line is None:
            return None
        begin = line.end()
        blank = data.find(_BLANK, begin)
        if blank < 0:
            return None
        block = self._blocks.get(data[begin : blank + 2])  # ``requests`` looks at those that are new
        body = blank + 4
        ways = self._ways
        if (
            block is None
            or not block.form
            or block.named
            or body + block.length != len(data)
            or begin > MOST_PATH
            or ways.principals.enabled
            or not ways.serves_writes
            or not data.startswith(VALUE, body)
        ):
            return None
        form = form_of(data[body + len(VALUE) :], ways.most_bytes)
        return None if form is None else TakenSet(ways, owner, data, block, KEYS + line[1], form)


class TakenSet(TakenRequest):
    __slots__ = ("_block", "_came", "_data", "_form", "_now_ns", "_owner", "_path", "_ways")

    deadline = None
    principal = None

    def __init__(self, ways: PlainRequests, owner: Taker, data: bytes, block: Block, path: bytes,
                 form: tuple[bytes, int | None]) -> None:
        self.closed = self.started = False
        self._ways = ways
        self._owner = owner
        self._data = data
        self._block = block
        self._path = path
        self._form = form
        self._came = ways.keys.traffic.now()
        self._now_ns = ways.now_ns()

    def go(self) -> None:
        value, ttl_s = self._form
        expires_ns = 0 if ttl_s is None else self._now_ns + ttl_s * _NS
        ways = self._ways
        wish = set_of(self._path, value, self._now_ns, expires_ns)
        ways.router.write(self, _V2_WRITE, wish, 0, ways.stats, self._answered)

    def usual(self) -> HttpRequest:
        """The request in the usual form, for an answer that is not plain. This one has ended."""
        closed = self.closed
        self.closed = self.started = True
        return self._owner.usual(self._data, closed)

    def finish(self, code: int, text: str) -> None:
        if not self.started:
            said(self.usual(), 500, "Internal Server Error")

    def _answered(self, waiting: Waiting, status: int, body: bytes) -> None:
        ways, owner = self._ways, self._owner
        if status == OK and not self.closed and not owner.closes:
            _, term, index, raft_index, code, _, created = _ANSWERED.unpack_from(body)
            if not code:
                keys = ways.keys
                keys.traffic.done("PUT", self._came)
                keys.feed.shown(index)
                if not raft_index:
                    link = ways.router.routes[0].leader_link
                    raft_index = link.commit if link is not None else 0
                self.closed = self.started = True
                block = self._block
                begin = block.created if created else block.begin
                text = body[_ANSWERED.size :]
                owner.write_now(ways.heads.answer(begin, index, raft_index, term, text, ways.now_ns()))
                owner.answered()
                return
        self.usual().serve(  # reports bugs to the client
            lambda request: ways.keys.answered(
                ways.filtered(request), status, body, self._now_ns, self._came))
