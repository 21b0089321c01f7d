"""``/v2/keys``: a request becomes a question to the tree (``cluster.features.v2``), its answer etcd's. Writes
go to the leader of shard 0, reads to the own host's replica unless they say ``quorum``. A replica waits until
it has what this host has shown: clients read what they wrote."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from functools import partial

import orjson
from prometheus_client.core import Metric

from cluster import errors
from cluster.errors import EtcdError
from cluster.features.v2.refusals import Code, V2Error, http_status
from cluster.features.v2.requests import LEFT, PROVE, Answer, Get, Kind, Op, Who, Write, read_body, taken
from cluster.features.v2.shown import short_json
from cluster.features.v2.tree import KEYS
from cluster.version import MADE
from cluster.wire.messages import HEAD, Method
from proxy.http.requests import JSON, HttpRequest
from proxy.routing.router import MethodStats
from proxy.routing.waiting import PARTIAL, Waiting
from proxy.shared.context import Context
from proxy.v2.call import HttpCall, InTurns, said, told
from proxy.v2.request import KeyRequest, parse_key_request
from proxy.v2.traffic import Traffic, totals
from proxy.v2.users.credentials import Credentials
from proxy.v2.waiting.feed import Feed
from proxy.v2.waiting.waits import Waits

_WRITES = frozenset(("PUT", "POST", "DELETE"))
_LEAST_BYTES = 4 << 20  # of a value, whatever --max-request-bytes says; etcd's form has 10 MiB
MOST_PATH = 4096  # as etcd's request line; a deleted directory logs the paths of all below
_NAME_IN_ORDER = 21  # what a POST adds to the path: a slash and 20 digits


class Keys:
    def __init__(self, context: Context, now_ns: Callable[[], int] = time.time_ns) -> None:
        settings = context.settings
        self._context = context
        self._router = context.router
        self._in_turns = InTurns(context.router.loop.call_soon)
        self._now_ns = now_ns
        self._stats = MethodStats()
        self._cluster = [("X-Etcd-Cluster-Id", f"{context.common.cluster_id:x}")]
        self.traffic = Traffic()
        self.feed = Feed(context.router, context.router.shared)
        self.credentials = Credentials(context.passwords)
        context.on_tick.append(self.feed.tick)
        self.waits = Waits(self.feed, settings.max_v2_waits, settings.max_untaken_bytes)
        self.traffic.waiting = lambda: len(self.waits)
        context.principals.changed.append(self._guarded)

    def serve(self, request: HttpRequest) -> None:
        if not request.allowed("HEAD", "GET", "PUT", "POST", "DELETE"):
            return
        now_ns = self._now_ns()
        try:
            asked = _parsed(request, now_ns)
        except V2Error as wrong:
            self._refused(request, wrong)
            return
        size = len(_bytes(asked.value)) + len(_bytes(asked.prev_value))
        length = len(asked.path) + (_NAME_IN_ORDER if request.method == "POST" else 0)
        if size > max(self._context.common.max_request_bytes, _LEAST_BYTES) or length > MOST_PATH:
            self._refused(request, V2Error(Code.RAFT_INTERNAL, errors.REQUEST_TOO_LARGE.text))
        elif self._context.principals.enabled:  # these users are none of version 2's
            self._refused(request, _nobody_may())
        else:
            self._ask(request, asked, now_ns, self.credentials.of(request))

    def _ask(self, request: HttpRequest, asked: KeyRequest, now_ns: int, who: Who | None) -> None:
        if request.method in _WRITES:
            self._write(request, asked, now_ns, who)
        elif asked.wait:
            self._wait(request, asked, who)
        else:
            self._read(request, asked, now_ns, who)

    def _prove(self, request: HttpRequest, answer: Answer, asked: KeyRequest, now_ns: int) -> None:
        before = request.context if isinstance(request.context, int) else 0
        request.context = before + 1
        self.credentials.prove(
            request, answer.body, before, lambda who: self._ask(request, asked, now_ns, who),
            lambda error: self._unavailable(request, error))

    def _write(self, request: HttpRequest, asked: KeyRequest, now_ns: int, who: Who | None) -> None:
        if asked.written:
            wish = Write.decode(request.body)
            wish.who = who
        else:
            wish = Write(
                op=operation(asked), path=path_of(asked), value=_bytes(asked.value),
                directory=asked.directory, prev_value=_bytes(asked.prev_value), prev_index=asked.prev_index,
                expires_ns=asked.expiration_ns, refresh=bool(asked.refresh), recursive=asked.recursive,
                now_ns=now_ns, who=who, slash=_slash(request))
        # all that holds the value while this waits for its turn: its text may take four times as much
        request.body, asked.written = wish.encode(), True
        asked.value = asked.prev_value = ""
        came = self.traffic.now()

        def answer(waiting: Waiting, status: int, body: bytes) -> None:
            self._answered(request, status, body, asked, now_ns, came)

        self._router.write(HttpCall(request), Method.V2_WRITE, request.body, 0, self._stats, answer)

    def _read(self, request: HttpRequest, asked: KeyRequest, now_ns: int, who: Who | None) -> None:
        get = Get(path_of(asked), asked.recursive, asked.sort, now_ns, who, _slash(request))
        question = get.encode()
        came = self.traffic.now()

        def answer(waiting: Waiting, status: int, body: bytes) -> None:
            if status != PARTIAL:  # a long list goes on
                self._answered(request, status, body, asked, now_ns, came, read=True)

        self._router.read(
            HttpCall(request), Method.V2_READ, read_body(Kind.GET, self.feed.needed(), question), 0,
            request.method == "HEAD" or not asked.quorum, self._stats, answer)

    def counts(self, request: HttpRequest) -> None:
        if not request.allowed("GET"):
            return

        def answer(waiting: Waiting, status: int, body: bytes) -> None:
            if request.closed:
                return
            if status != 0:
                said(request, 500, "Internal Server Error")
                return
            writes = orjson.loads(Answer.decode(body, HEAD.size).body)
            self.traffic.gather(partial(_counted, request, writes))

        question = read_body(Kind.COUNTS, 0, b"")
        self._router.local(HttpCall(request), Method.V2_READ, question, 0, self._stats, answer)

    def _wait(self, request: HttpRequest, asked: KeyRequest, who: Who | None) -> None:
        if self.waits.full:
            self._refused(request, V2Error(Code.RAFT_INTERNAL, b"etcdserver: too many requests"))
        elif self._context.stopping:
            self._refused(request, V2Error(Code.RAFT_INTERNAL, b"etcdserver: server stopped"))
        else:
            begun = partial(self._begun, request, asked)
            path, slash = path_of(asked), _slash(request)
            self.waits.add(request, path, asked.recursive, asked.stream, asked.since, begun, who, slash)

    def _begun(self, request: HttpRequest, asked: KeyRequest, answer: Answer | None) -> bool:
        if answer is None or answer.code not in _DENIED:
            self.traffic.received(asked)
        if self._context.principals.enabled:
            self._refused(request, _nobody_may())
            return False
        if answer is None:
            self._refused(request, V2Error(Code.RAFT_INTERNAL, errors.TIMEOUT.text))
            return False
        if answer.code == PROVE:
            def left(request: HttpRequest) -> bool:
                if request.closed:
                    self._begun(request, asked, None)
                return True

            request.on_close = left
            self._prove(request, answer, asked, 0)
            return False
        if answer.code:
            self._refused(request, answer)
            return False
        term = self.feed.term  # as reads show it, not the known leader's
        if not answer.raft_index:  # it begins without a look back: the last one may be long ago
            term = max(term, self._router.term)
        fields = self._indexes(answer.index, answer.raft_index, term)
        request.start(200, [*fields, ("content-type", JSON)])
        return True

    def _guarded(self) -> None:
        """There are users of version 3 now: waits would show what no guest may see."""
        if self._context.principals.enabled:
            self.waits.end()

    def answered(self, request: HttpRequest, status: int, body: bytes, now_ns: int, came: float) -> None:
        """The answer to a request of ``proxy.v2.plain.requests``, if it is not plain."""
        asked = _parsed(request, now_ns)
        self._answered(request, status, body, asked, now_ns, came, read=request.method == "GET")

    def _answered(self, request: HttpRequest, status: int, body: bytes, asked: KeyRequest, now_ns: int,
                  came: float, *, read: bool = False) -> None:
        if status != 0:
            self.traffic.received(asked)
            self.traffic.ended(asked, came, 500)
            self._unavailable(request, EtcdError.decode(body))
            return
        answer = Answer.decode(body, HEAD.size)
        parts = None
        if answer.code == LEFT:
            answer.code, parts = taken(answer)
        if answer.code not in _DENIED:  # a denied request does not count, as at etcd
            self.traffic.received(asked)
            self.traffic.ended(asked, came, _refusal(answer))
            if read:
                self.traffic.read(asked, not answer.code)
        if request.closed:
            return
        self.feed.shown(answer.index)
        if answer.code == PROVE:
            self._prove(request, answer, asked, now_ns)
            return
        if not answer.code and asked.no_value and answer.action in _SHORT:
            answer.body, parts = short_json(answer.action), None
        term = HEAD.unpack_from(body)[1]
        if parts is None:
            self._respond(request, answer, term)
            return

        def made(body: bytes) -> None:
            answer.body = body
            self._respond(request, answer, term)

        self._in_turns.begin(request, parts, made)

    def _respond(self, request: HttpRequest, answer: Answer, term: int) -> None:
        if answer.code:
            self._refused(request, answer)
            return
        fields = self._indexes(answer.index, answer.raft_index, term)
        request.respond(201 if answer.created else 200, answer.body, fields, JSON)

    def _indexes(self, index: int, raft_index: int, term: int) -> list[tuple[str, str]]:
        if not raft_index:
            link = self._router.routes[0].leader_link
            raft_index = link.commit if link is not None else 0
        return [
            *self._cluster, ("X-Etcd-Index", str(index)), ("X-Raft-Index", str(raft_index)),
            ("X-Raft-Term", str(term + MADE)),
        ]

    def _refused(self, request: HttpRequest, answer: Answer | V2Error) -> None:
        if isinstance(answer, V2Error):
            body = answer.json()
        else:
            body = answer.body
            if answer.code == Code.UNAUTHORIZED:
                self.credentials.tell_denied(request)
        headers = [*self._cluster, ("X-Etcd-Index", str(answer.index))]
        request.respond(http_status(answer.code), body, headers, JSON)

    def _unavailable(self, request: HttpRequest, error: EtcdError) -> None:
        if not request.closed:
            # denied: by a wrong password, or by users that this front did not know yet
            denied = error.kind is errors.PERMISSION_DENIED
            self._refused(request, _nobody_may() if denied else V2Error(Code.RAFT_INTERNAL, told(error)))


_SHORT = frozenset((1, 2, 3, 4))
_DENIED = frozenset((PROVE, int(Code.UNAUTHORIZED)))


def _counted(request: HttpRequest, writes: dict[str, int], families: Iterable[Metric]) -> None:
    if not request.closed:
        reads, watchers = totals(families)
        request.respond(200, orjson.dumps({**reads, **writes, "watchers": watchers}), (), JSON)


def _refusal(answer: Answer) -> int:
    return http_status(answer.code) if answer.code else 0


def _nobody_may() -> V2Error:
    return V2Error(Code.UNAUTHORIZED, b"Insufficient credentials")


def _parsed(request: HttpRequest, now_ns: int) -> KeyRequest:
    kind = request.headers.get("content-type", "")
    return parse_key_request(request.method, request.path, request.query, request.body, kind, now_ns)


def operation(asked: KeyRequest) -> Op:
    compared = bool(asked.prev_index or asked.prev_value)
    if asked.method == "POST":
        return Op.CREATE_IN_ORDER
    if asked.method == "DELETE":
        return Op.COMPARE_AND_DELETE if compared else Op.DELETE
    if asked.prev_exist is False:
        return Op.CREATE
    if compared:
        return Op.COMPARE_AND_SWAP
    return Op.UPDATE if asked.prev_exist else Op.SET


def path_of(asked: KeyRequest) -> bytes:
    return KEYS if asked.path == "/" else KEYS + _bytes(asked.path)


def _slash(request: HttpRequest) -> bool:
    """Whether the path ends with a slash, as sent: patterns of roles see it."""
    return request.path.endswith("/")


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
