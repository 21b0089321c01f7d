"""Whether clients may watch a range: asked when a watch is created, and whenever users and roles change. A
watch ends when its user loses the permission, or when auth is enabled and it has no user. A changed password
or an expired token ends none: the user stays the same. From the news of a change until it is judged, a watch
gets nothing and lags. A node tells of a change before any event that comes after it."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from types import SimpleNamespace
from typing import Any

from cluster import errors
from cluster.errors import Code, EtcdError
from cluster.features.auth.principal import Kind, Principal
from cluster.features.auth.reads import RANGE, Show
from cluster.wire.messages import READ, Method
from proxy.auth.shown import Shown
from proxy.routing.router import READ_ANY, Router
from proxy.routing.waiting import MOVED, OK, SERIALIZABLE, PartWaiting, Waiting
from proxy.watch.cohort import ClientWatch
from proxy.watch.stream import Then, WatchStream

_AGAIN_S = 1.0
# After a change of users, until what is asked is answered: questions, and watches that they stand for
_PORTION, _LOOKS = 200, 2_000
_RELEASES = 200  # watches that a verdict releases in a turn
_LOST = (errors.PERMISSION_DENIED, errors.USER_EMPTY)
_ANY = b"\0", b"\0"
_One = Callable[[EtcdError | None, int], None]  # the verdict, and the last change of users that it covers
_Verdict = Callable[[EtcdError | None], None]
_Range = tuple[bytes, bytes]  # key, range_end
_Watches = dict[ClientWatch, WatchStream]


class Permissions:
    def __init__(self, router: Router, streams: Iterable[WatchStream]) -> None:
        self.changes = 0  # of users and roles, as this front has heard
        self._router = router
        self._streams = streams
        # watches to be asked for since a change, by user: one with very many holds up no other's
        self._unsure: OrderedDict[str | None, deque[tuple[ClientWatch, WatchStream]]] = OrderedDict()
        self._open = 0  # questions under way for a portion of them
        self._failed = False  # no node has judged some of the portion
        self._resting = False

    def ask(self, call: Any, key: bytes, range_end: bytes, then: _Verdict, *, local: bool = False) -> bool:
        """Whether a client may watch a range, told to ``then``; False, and nothing is asked, while users are
        not enabled. ``local``: this host's replica says so as it is."""
        if not self._router.principals.enabled:
            return False
        self.send(call, (key, range_end), lambda error, _: then(error), is_new=True, local=local)
        return True

    def may_watch(self, call: Any, ranges: Sequence[_Range], then: Then) -> bool:
        """:meth:`ask` for several ranges, until a node has judged each: clients take a refused watch for one
        that has ended for good, and resume theirs while there is no leader. News of users has all judged."""
        if not self._router.principals.enabled:
            _user(call)  # of then: its token may have ended
            return False
        _Together(self, self._router, call, ranges, then).ask(range(len(ranges)))
        return True

    def send(
        self, client: Any, asked: _Range, then: _One, *, is_new: bool = False, local: bool = False
    ) -> None:
        key, range_end = asked
        body = bytes((Show.MAY_WATCH,)) + RANGE.pack(len(key)) + key + range_end
        self._send(client, body, then, is_new, local, self._router.loop.time())

    def _send(self, client: Any, body: bytes, then: _One, is_new: bool, local: bool, started: float) -> None:
        router = self._router
        waiting = PartWaiting(
            client, Method.AUTH_SHOW, body, 0, READ_ANY, started, router.limit_s, router.quiet)
        context = then, is_new, local, self.changes
        if local:
            router.recent.read(waiting.calls(self._answered, context, SERIALIZABLE))
        else:
            router.read_index.add(waiting.calls(self._answered, context))

    def _answered(self, waiting: Waiting, status: int, body: bytes) -> None:
        then, is_new, local, changes = waiting.context
        if waiting.prefix and READ.unpack_from(waiting.prefix)[0] >= self._router.principals.order_index:
            changes = self.changes  # it waited for all that this front has heard of
        # Keys moved before it was sent (users stay at shard 0). Or the node may not know yet what has
        # changed: `changed` asks only for watches that are there
        if status == MOVED or (status == OK and is_new and changes != self.changes):
            self._send(waiting.client, waiting.body, then, is_new, local, waiting.began)
            return
        then(None if status == OK else EtcdError.decode(body), changes)

    def changed(self) -> None:
        """Ask for all watches, portion by portion: 5,000 at once held up everything else for seconds. First
        of a user come those that were not asked for since an earlier change: many changes put off none."""
        self.changes += 1
        left = {watch for waiting in self._unsure.values() for watch, _ in waiting}
        for stream in self._streams:
            stream.doubt(self.changes)
            self._ask_for(stream, [watch for watch in stream.watches.values() if watch not in left])
        self._go_on()

    def _ask_for(self, stream: WatchStream, watches: Sequence[ClientWatch]) -> None:
        if watches:
            waiting = self._unsure.setdefault(_user(stream.call), deque())
            waiting.extend([(watch, stream) for watch in watches])

    def _next(self) -> tuple[ClientWatch, WatchStream]:
        """Users take turns."""
        name, waiting = self._unsure.popitem(last=False)
        found = waiting.popleft()
        if waiting:
            self._unsure[name] = waiting
        return found

    def _go_on(self) -> None:
        if self._open or self._resting:
            return
        asked: dict[tuple[str | None, _Range], _Watches] = {}
        for _ in range(_LOOKS):
            if not self._unsure or len(asked) >= _PORTION:
                break
            watch, stream = self._next()
            if stream.watches.get(watch.id) is watch and not stream.closed:
                name, subscription = _user(stream.call), watch.cohort.subscription
                # without a user no range is permitted, or any
                wanted = (subscription.key, subscription.range_end) if name else _ANY
                asked.setdefault((name, wanted), {})[watch] = stream
        self._open = len(asked)
        self._failed = False
        for (name, wanted), watches in asked.items():
            named = Principal(Kind.CERTIFICATE, name) if name else None
            principal = None if named is None else Shown(self._router.principals, "", named)
            client = SimpleNamespace(  # named alone, and told nothing
                closed=False, deadline=None, principal=principal, finish=lambda code, text: None)
            self.send(client, wanted, partial(self._judged, watches))
        if not asked:
            self._end_portion()

    def _judged(self, watches: _Watches, error: EtcdError | None, changes: int) -> None:
        if error is None or error.kind in _LOST:
            self._carry_out(deque(watches.items()), error, changes)
        else:  # no node has judged
            self._ask_again(watches.items())

    def _carry_out(self, left: deque[tuple[ClientWatch, WatchStream]], error: EtcdError | None,
                   changes: int) -> None:
        """Some in each turn of the loop: each may be sent much that it has missed."""
        try:
            for _ in range(min(_RELEASES, len(left))):
                watch, stream = left[0]
                if not stream.closed and stream.watches.get(watch.id) is watch:
                    if error is None:
                        watch.cohort.permitted(changes)
                    else:
                        stream.cancel(watch, error)
                left.popleft()
        except BaseException:  # a fault of this program
            self._ask_again(left)
            raise
        if left:
            self._router.at_flush(partial(self._carry_out, left, error, changes))
        else:
            self._answered_one()

    def _ask_again(self, watches: Iterable[tuple[ClientWatch, WatchStream]]) -> None:
        for watch, stream in watches:
            self._ask_for(stream, [watch])
        self._failed = True
        self._answered_one()

    def _answered_one(self) -> None:
        self._open -= 1
        if not self._open:
            self._end_portion()

    def _end_portion(self) -> None:
        """Go on with the next one, unless all are judged."""
        if not self._unsure:
            for stream in self._streams:
                stream.doubt(0)
        elif self._failed:
            self._resting = True
            self._router.loop.call_later(_AGAIN_S, self._rested)
        else:
            self._router.at_flush(self._go_on)

    def _rested(self) -> None:
        self._resting = False
        self._go_on()


def _user(call: Any) -> str | None:
    shown = getattr(call, "principal", None)
    return None if shown is None else shown.user()


class _Together:
    """Ranges that a client asks for together. It is told of all at once, when each is judged and no users
    have changed since the first question."""

    __slots__ = ("_changes", "_client", "_errors", "_open", "_permissions", "_ranges", "_router", "_then")

    def __init__(self, permissions: Permissions, router: Router, client: Any, ranges: Sequence[_Range],
                 then: Then) -> None:
        self._permissions = permissions
        self._router = router
        self._client = client
        self._ranges = ranges
        self._then = then
        self._errors: list[EtcdError | None] = [None] * len(ranges)
        self._changes = permissions.changes
        self._open = 0

    def ask(self, places: Sequence[int]) -> None:
        self._open = len(places)
        for place in places:
            self._permissions.send(
                self._client, self._ranges[place], partial(self._told, place), is_new=True)

    def _told(self, place: int, error: EtcdError | None, changes: int) -> None:
        self._errors[place] = error
        self._open -= 1
        if self._open:
            return
        again = [place for place, error in enumerate(self._errors) if error is not None and (
            error.code == Code.UNAVAILABLE or error.kind is errors.TOO_MANY_REQUESTS)]
        if again:
            self._router.loop.call_later(_AGAIN_S, partial(self._retry, again))
        elif self._changes != self._permissions.changes:
            self._changes = self._permissions.changes
            self.ask(range(len(self._ranges)))
        else:
            self._then(self._errors)

    def _retry(self, places: Sequence[int]) -> None:
        if self._client.closed:
            return
        if self._router.principals.enabled:
            self.ask(places)
        else:
            self._then([None] * len(self._ranges))
