"""Plain requests for keys that ask a node: reads of a node of the tree, sets of a file.

Hot path: a set takes 12 us from its bytes to the node's frame, and from the node's answer to its bytes; by
``proxy.v2.keys``, which answers refusals, 32. A request is plain if its key is spelt as etcd cleans it,
without escapes, it has no credentials, and it is a GET with at most ``quorum``, or a PUT without a query,
whose form is a value, and perhaps a TTL. A read with ``quorum=true`` shares rounds of read-index questions
(H2). If the node of this host's replica is in this process and has applied the index, it is read at once.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable

from cluster.features.v2.requests import answer_at, get_of, set_of
from cluster.features.v2.tree import KEYS
from cluster.pacing.resting import LARGE_BYTES
from cluster.wire.messages import HEAD, READ, READ_INDEX_ANSWER, Method
from proxy.http.http1_plain import Plain, PlainRequest
from proxy.http.requests import HttpHandler, HttpRequest
from proxy.routing.router import READ_ANY, SERIALIZABLE, MethodStats, Waiting
from proxy.routing.waiting import OK, PARTIAL
from proxy.shared.context import Context
from proxy.v2.call import HttpCall
from proxy.v2.form import unescaped
from proxy.v2.keys import MOST_PATH, Keys
from proxy.v2.plain.heads import Block, Heads
from proxy.v2.plain.reads import PLAIN_KEY

_READ = re.compile(rf"/v2/keys({PLAIN_KEY})(\?quorum=(?:true|false))?")
_WRITE = re.compile(rf"/v2/keys({PLAIN_KEY})")
VALUE = b"value="
_TTL = re.compile(rb"ttl=([0-9]{1,9})")
_NS = 10**9


class PlainRequests:
    def __init__(self, context: Context, keys: Keys, heads: Heads,
                 filtered: Callable[[HttpRequest], HttpRequest],
                 now_ns: Callable[[], int] = time.time_ns) -> None:
        """``filtered``: the request whose answer gets what the filter adds."""
        self.router = context.router
        self.keys = keys
        self.heads = heads
        self.filtered = filtered
        self.now_ns = now_ns
        self.stats = MethodStats()
        self.principals = context.principals
        self.most_bytes = min(LARGE_BYTES // 2, context.common.max_request_bytes)  # of a value
        self.serves_writes = not context.settings.read_only

    def find(self, plain: Plain) -> HttpHandler | None:
        method = plain.method
        if method == "GET":
            if (found := _READ.fullmatch(plain.target)) is None or plain.body:
                return None
        elif method == "PUT" and self.serves_writes and plain.body.startswith(VALUE):
            if (found := _WRITE.fullmatch(plain.target)) is None:
                return None
        else:
            return None
        block = self.heads.blocks.get(plain.block) or self.heads.look(plain, plain.block)
        if block is None or block.named or self.principals.enabled or len(plain.target) > MOST_PATH:
            return None
        path = KEYS + found[1].encode()
        if method == "GET":
            return PlainRead(self, block, path, found[2] == "?quorum=true")
        form = form_of(plain.body[len(VALUE) :], self.most_bytes) if block.form else None
        return None if form is None else PlainSet(self, block, path, *form)


def form_of(form: bytes, most_bytes: int) -> tuple[bytes, int | None] | None:
    """The value and the TTL in seconds of a form with nothing else, from behind ``value=`` on."""
    value, more, rest = form.partition(b"&")
    if len(value) > most_bytes or b";" in value:
        return None
    ttl = _TTL.fullmatch(rest) if more else None
    if more and ttl is None:
        return None
    if b"+" in value:
        value = value.replace(b"+", b" ")
    if b"%" in value:
        octets = unescaped(value)
        if octets is None:
            return None
        value = octets
    return value, int(ttl[1]) if ttl is not None else None


class PlainRequestCall(HttpCall):
    __slots__ = ("block", "came", "now_ns", "path", "ways")

    kind = ""  # in the statistics

    def __init__(self, ways: PlainRequests, block: Block, path: bytes) -> None:
        self.ways = ways
        self.block = block
        self.path = path
        self.came = ways.keys.traffic.now()
        self.now_ns = ways.now_ns()
        self.request: PlainRequest

    def answered(self, waiting: Waiting, status: int, body: bytes) -> None:
        if status == PARTIAL:  # a long list goes on
            return
        request = self.request
        if status == OK and not request.closed and not request.closes:
            index, raft_index, code, _, created, text = answer_at(body, HEAD.size)
            if not code:
                self.tell(index, raft_index, HEAD.unpack_from(body)[1], text, created=bool(created))
                return
        ways = self.ways
        ways.keys.answered(ways.filtered(request), status, body, self.now_ns, self.came)

    def tell(self, index: int, raft_index: int, term: int, text: bytes, *, created: bool = False) -> None:
        ways, keys = self.ways, self.ways.keys
        keys.traffic.done(self.kind, self.came)
        keys.feed.shown(index)
        if not raft_index:
            link = ways.router.routes[0].leader_link
            raft_index = link.commit if link is not None else 0
        begin = self.block.created if created else self.block.begin
        self.request.whole(ways.heads.answer(begin, index, raft_index, term, text, ways.now_ns()))


class PlainSet(PlainRequestCall):
    __slots__ = ("ttl_s", "value")

    kind = "PUT"

    def __init__(self, ways: PlainRequests, block: Block, path: bytes, value: bytes,
                 ttl_s: int | None) -> None:
        super().__init__(ways, block, path)
        self.value = value
        self.ttl_s = ttl_s

    def __call__(self, request: HttpRequest) -> None:
        assert isinstance(request, PlainRequest)
        self.request = request
        expires_ns = 0 if self.ttl_s is None else self.now_ns + self.ttl_s * _NS
        wish = set_of(self.path, self.value, self.now_ns, expires_ns)
        self.ways.router.write(self, Method.V2_WRITE, wish, 0, self.ways.stats, self.answered)


class PlainRead(PlainRequestCall):
    __slots__ = ("kind",)

    def __init__(self, ways: PlainRequests, block: Block, path: bytes, quorum: bool) -> None:
        super().__init__(ways, block, path)
        self.kind = "QGET" if quorum else "GET"

    def __call__(self, request: HttpRequest) -> None:
        assert isinstance(request, PlainRequest)
        self.request = request
        router = self.ways.router
        now = router.loop.time()
        if self.kind == "GET":
            router.recent.read(self._of_replica(SERIALIZABLE, now))
        else:
            waiting = Waiting(
                self, Method.READ_INDEX, b"", 0, READ_ANY, now, router.limit_s, self.ways.stats)
            waiting.then = self._indexed
            router.read_index.add(waiting)

    def _of_replica(self, prefix: bytes, began: float) -> Waiting:
        ways = self.ways
        question = get_of(self.path, ways.keys.feed.needed(), self.now_ns)
        waiting = Waiting(
            self, Method.V2_READ, question, 0, READ_ANY, began, ways.router.limit_s, ways.stats)
        waiting.then, waiting.prefix = self.answered, prefix
        return waiting

    def _indexed(self, waiting: Waiting, status: int, body: bytes) -> None:
        """H2: the order's index after the read had come."""
        if status != OK:
            self.answered(waiting, status, body)
            return
        order_index, _, _ = READ_INDEX_ANSWER.unpack(body)
        router, request = self.ways.router, self.request
        link = router.routes[0].replica
        near = link.near if link is not None else None
        if (
            near is not None
            and near.order_index >= order_index
            and not near.guarded
            and not request.closed
            and not request.closes
            and (found := near.v2_file(self.path, self.ways.keys.feed.highest, self.now_ns)) is not None
        ):
            self.tell(*found)
        else:
            router.to_replica(self._of_replica(READ.pack(order_index, 0), waiting.started))
