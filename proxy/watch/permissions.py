"""Whether clients may watch a range: asked when a watch is created, and whenever users and roles change. A
watch ends when its user loses the permission, or when auth is enabled and it has no user. A changed password
or an expired token ends none: the user stays the same."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from types import SimpleNamespace
from typing import Any

from cluster import errors
from cluster.errors import Code, EtcdError
from cluster.features.auth.principal import Kind, Principal
from cluster.features.auth.reads import RANGE, Show
from cluster.wire.messages import Method, Status
from proxy.auth.shown import Shown
from proxy.routing.router import READ_ANY, Router
from proxy.routing.waiting import SERIALIZABLE, PartWaiting, Waiting
from proxy.watch.cohort import ClientWatch
from proxy.watch.stream import Then, WatchStream

_OK, _MOVED = int(Status.OK), int(Status.MOVED)
_AGAIN_S = 1.0
_LOST = (errors.PERMISSION_DENIED, errors.USER_EMPTY)
_Question = tuple[str | None, bytes, bytes]  # user, key, range_end
_Watches = dict[ClientWatch, WatchStream]
_Asked = dict[_Question, _Watches]


class Permissions:
    def __init__(self, router: Router, streams: Iterable[WatchStream]) -> None:
        self._router = router
        self._streams = streams
        self._left: _Asked = {}  # to be asked again
        self._changes = 0  # of users and roles, as this front has heard

    def ask(self, call: Any, key: bytes, range_end: bytes, then: Then, *, local: bool = False) -> bool:
        """Whether a client may watch a range, told to ``then``; False, and nothing is asked, if its requests
        are not judged. ``local``: this host's replica says so as it is."""
        if not self._router.principals.judged(call):
            return False
        self._ask(call, key, range_end, then, is_new=True, local=local)
        return True

    def may_watch(self, call: Any, key: bytes, range_end: bytes, then: Then) -> bool:
        """:meth:`ask` until a node has judged: clients take a refused watch for one that has ended for good,
        and resume theirs while there is no leader."""
        return self.ask(call, key, range_end, partial(self._told, call, key, range_end, then))

    def _told(self, call: Any, key: bytes, range_end: bytes, then: Then, error: EtcdError | None) -> None:
        if error is not None and (error.code == Code.UNAVAILABLE or error.kind is errors.TOO_MANY_REQUESTS):
            self._router.loop.call_later(_AGAIN_S, partial(self._retry, call, key, range_end, then))
        else:
            then(error)

    def _retry(self, call: Any, key: bytes, range_end: bytes, then: Then) -> None:
        if not (call.closed or self.may_watch(call, key, range_end, then)):
            then(None)

    def _ask(self, client: Any, key: bytes, range_end: bytes, then: Then, *, is_new: bool = False,
             local: bool = False) -> None:
        body = bytes((Show.MAY_WATCH,)) + RANGE.pack(len(key)) + key + range_end
        self._send(client, body, then, is_new, local, self._router.loop.time())

    def _send(
        self, client: Any, body: bytes, then: Then, is_new: bool, local: bool, started: float
    ) -> None:
        router = self._router
        waiting = PartWaiting(
            client, Method.AUTH_SHOW, body, 0, READ_ANY, started, router.limit_s, router.quiet)
        context = then, is_new, local, self._changes
        if local:
            router.recent.read(waiting.calls(self._answered, context, SERIALIZABLE))
        else:
            router.read_index.add(waiting.calls(self._answered, context))

    def _answered(self, waiting: Waiting, status: int, body: bytes) -> None:
        then, is_new, local, changes = waiting.context
        # Keys moved before it was sent (users stay at shard 0). Or the node may not know yet what has
        # changed: `changed` asks only for watches that are there
        if status == _MOVED or (status == _OK and is_new and changes != self._changes):
            self._send(waiting.client, waiting.body, then, is_new, local, waiting.began)
            return
        then(None if status == _OK else EtcdError.decode(body))

    def changed(self) -> None:
        self._changes += 1
        asked: _Asked = {}
        for stream in self._streams:
            shown = getattr(stream.call, "principal", None)
            name = None if shown is None else shown.user()
            for watch in stream.watches.values():
                subscription = watch.cohort.subscription
                asked.setdefault((name, subscription.key, subscription.range_end), {})[watch] = stream
        self._ask_for(asked)

    def _ask_for(self, asked: _Asked) -> None:
        for question, watches in asked.items():
            name, key, range_end = question
            named = Principal(Kind.CERTIFICATE, name) if name else None
            principal = None if named is None else Shown(self._router.principals, "", named)
            client = SimpleNamespace(closed=False, deadline=None, principal=principal)  # named alone
            self._ask(client, key, range_end, partial(self._judged, question, watches))

    def _judged(self, question: _Question, watches: _Watches, error: EtcdError | None) -> None:
        if error is None:
            return
        if error.kind not in _LOST:  # no node has judged: ask again
            if not self._left:
                self._router.loop.call_later(_AGAIN_S, self._again)
            # after two changes one question is asked twice, for watches of different times
            self._left.setdefault(question, {}).update(watches)
            return
        for watch, stream in watches.items():
            if not stream.closed:
                stream.cancel(watch, error)

    def _again(self) -> None:
        left, self._left = self._left, {}
        there = {
            question: {w: stream for w, stream in watches.items() if stream.watches.get(w.id) is w}
            for question, watches in left.items()
        }
        self._ask_for({question: watches for question, watches in there.items() if watches})
