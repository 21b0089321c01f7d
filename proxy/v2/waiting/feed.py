"""Waiters for changes of the v2 tree at this front, and the events that wake them.

While there are waiters, the front follows the tree at one node, and gets every event, in order, on that link.
A wait begins with a look back on the same link (``node.serving.v2``), so it misses nothing and gets nothing
twice. On another link, or after a gap at the node, all look back again. An event costs a look-up for each
part of its path; the waiters that it wakes get their turns in slices.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import islice

from cluster.faults import HANDLER_MISTAKES, faults
from cluster.features.v2.events import Brief, Event, Swept, concerns, decode_news, index_of
from cluster.features.v2.history import KEPT
from cluster.features.v2.requests import Answer, Kind, Scan, Who, read_body, split_read
from cluster.features.v2.shown import event_json
from cluster.features.v2.text import LONG_BYTES, in_steps
from cluster.features.v2.tree import AUTH, namespace
from cluster.wire.messages import HEAD, Method
from proxy.routing.links import Link
from proxy.routing.reads.shared import Shared
from proxy.routing.router import READ_ANY, SERIALIZABLE, SWEEP_S, Router, Waiting

_AT_ONCE = 200  # woken in a turn of the loop
_AT_ONCE_BYTES = 524_288  # of their lines, likewise; the last one may go beyond it
_MOST_DUE = 100  # events of a stream that wait for their turns, as in etcd; one more ends it
_MOST_BEHIND = KEPT // 2  # events to be sorted; then streams end, while nodes still keep their next events
_MOST_SORTED = 5000  # waiters of events, in a turn of a front that is behind: 10 ms
_LOOKS_AT_ONCE = 2000  # look back again in one frame: some 20 ms of a node
_PAUSE_S = 0.03  # before the next of these
_FOLLOW, _LEAVE = b"\1", b"\0"


class Fired:
    def __init__(self, row: bytes, asked: int = 0) -> None:
        """``asked``: the look back of its waiter that found it; 0: it came as news, for all."""
        self._row = row
        self.asked = asked
        self._parts: list[bytes] = []
        self.json = b""

    @cached_property
    def event(self) -> Event:
        return Event.decode(self._row)

    @cached_property
    def _steps(self) -> Iterator[bytes]:
        left: list[bytes] = []
        return in_steps(event_json(self.event, namespace(self.event.node.key), left), left)

    def made(self) -> bool:
        """Whether its JSON is made, after one more step."""
        if not self.json and (part := next(self._steps, None)) is not None:
            self._parts.append(part)
            if len(self._row) > LONG_BYTES:
                return False
        self.json = self.json or b"".join(self._parts)
        self._parts.clear()
        return True


Started = Callable[["Answer | None"], None]
Woken = Callable[["Fired | None"], None]


@dataclass(slots=True, eq=False)
class Waiter:
    path: bytes
    recursive: bool
    since: int  # the first index that wakes it; 0: the next one
    stream: bool
    started: Started | None
    woken: Woken
    who: Who | None
    slash: bool
    alive: bool = True
    hasty: bool = False  # its client has ended its side: until it begins, it waits for no link
    asked: int = 0  # looks back so far: only the last answer counts
    due: int = 0  # events that wait for their turns

    def start(self, answer: Answer | None) -> None:
        started, self.started = self.started, None
        if started is not None:
            started(answer)

    @property
    def begun(self) -> bool:
        return self.started is None


class Feed:
    def __init__(self, router: Router, shared: Shared | None = None) -> None:
        """``shared``: with what the host's other fronts have shown."""
        self._router = router
        self._shared = shared
        router.v2_news = self._news
        self.highest = 0  # the highest index of the tree that this front has shown
        self.term = 0  # of the replica, when it last answered a look back
        self._link: Link | None = None  # followed
        self._told = 0  # the index up to which it has told of each event since those ``_here`` looked back
        self._met = 0  # the index of the last event: one of a large directory comes again, with more paths
        self._epoch = 0  # of looks back: answers of an earlier one do not count
        self._all: dict[Waiter, None] = {}
        self._here: dict[bytes, dict[Waiter, None]] = {}  # by path: have looked back
        self._deep: dict[bytes, dict[Waiter, None]] = {}  # of these, recursive waits
        self._again: dict[Waiter, None] = {}  # to look back, once there is a link and no pause
        # to be sorted: an index, and events up to it; None: there is a gap
        self._frames: deque[tuple[int, Iterator[tuple[bytes, Swept]] | None]] = deque()
        self._firing: deque[tuple[Waiter, Fired | None]] = deque()
        self._news_due = 0  # of these, what came as news: lines of looks back hold no news back
        self._scheduled = self._pausing = False

    def shown(self, index: int) -> None:
        if index > self.highest:
            self.highest = index
            if self._shared is not None:
                self._shared.show_index(index)

    def needed(self) -> int:
        """The highest index that this host has shown: a read is to have it."""
        return self.highest if self._shared is None else max(self.highest, self._shared.index)

    def wait(self, path: bytes, recursive: bool, since: int, stream: bool, started: Started, woken: Woken,
             who: Who | None = None, slash: bool = False) -> Waiter:
        """Wait for the first event from an index on (0: from now on); ``stream``: for all. ``started`` is
        called once: with the answer that has the tree's index, or a refusal, which ends the wait, or None: it
        is unknown. ``woken`` then gets the events; None ends the wait, as further events are unknown."""
        waiter = Waiter(path, recursive, since, stream, started, woken, who, slash)
        router = self._router
        if since or router.recent.stands(router.routes[0].replica):
            self._begin(waiter)
        else:  # a replica of a host that has just started lacks what is past
            router.recent.when_caught_up((0,), lambda: self._begin(waiter))
        return waiter

    def _begin(self, waiter: Waiter) -> None:
        if waiter.alive:
            self._all[waiter] = None
            self._look_back(waiter)

    def cancel(self, waiter: Waiter) -> None:
        if waiter.alive:
            waiter.alive = False
            self._all.pop(waiter, None)
            self._again.pop(waiter, None)
            self._drop(waiter)
            if not self._all and self._link is not None:
                self._leave()

    def hurry(self, waiter: Waiter) -> None:
        """Its client has ended its side before it began: it has what a look back on its way brings."""
        waiter.hasty = True
        if waiter in self._again or not waiter.asked:
            self._later(waiter)

    def _later(self, waiter: Waiter) -> None:
        """It looks back once there is a link."""
        if waiter.hasty and not waiter.begun:
            self.cancel(waiter)
            waiter.start(Answer(0, b""))  # where it would begin is unknown
        else:
            self._again[waiter] = None

    def _leave(self) -> None:
        if self._link is not None and not self._link.closed:
            self._router.post(self._link, 0, Method.V2_FOLLOW, _LEAVE)
        self._link = None
        self._epoch += 1
        self._frames.clear()

    def _add(self, waiter: Waiter) -> None:
        self._here.setdefault(waiter.path, {})[waiter] = None
        if waiter.recursive:
            self._deep.setdefault(waiter.path, {})[waiter] = None

    def _drop(self, waiter: Waiter) -> None:
        for index in (self._here, self._deep):
            same = index.get(waiter.path)
            if same is not None and same.pop(waiter, self) is None and not same:
                del index[waiter.path]

    def _follow(self) -> Link | None:
        link = self._router.routes[0].replica
        if link is not self._link or (link is not None and link.closed):
            self._leave()
            if link is None or link.closed:
                return None
            self._link = link
            self._router.post(link, 0, Method.V2_FOLLOW, _FOLLOW)
            self._anew()
            self._told = self._met = 0
        return self._link

    def _anew(self) -> None:
        """All look back, from behind what was told: the node forgets events before the last 1,000."""
        for same in self._here.values():
            for waiter in same:
                waiter.since = max(waiter.since, self._told + 1)
        self._epoch += 1
        self._here.clear()
        self._deep.clear()
        self._again.update(self._all)

    def _anew_soon(self) -> None:
        """All look back in the next turn of the loop, or after a pause: users may change very often."""
        self._anew()
        if not self._pausing:
            self._pausing = True
            self._router.loop.call_soon(self._look_again)

    def tick(self, now: float) -> None:
        if not self._pausing:
            self._look_again()

    def _look_again(self) -> None:
        self._pausing = False
        if not self._all or self._follow() is None or not self._again:
            return
        self._pausing = True
        pause_s = _PAUSE_S if len(self._again) > _LOOKS_AT_ONCE else SWEEP_S  # all at once would hold a node
        self._router.loop.call_later(pause_s, self._look_again)
        for waiter in list(islice(self._again, _LOOKS_AT_ONCE)):
            if waiter.alive:
                self._look_back(waiter)

    def _look_back(self, waiter: Waiter) -> None:
        link = self._follow()
        if link is None:
            self._later(waiter)
            return
        self._again.pop(waiter, None)
        waiter.asked += 1
        router = self._router
        scan = Scan(waiter.path, waiter.recursive, waiter.since, waiter.who, waiter.slash)
        body = read_body(Kind.SCAN, self.needed(), scan.encode())
        router.send(
            link,
            Waiting(
                None, Method.V2_READ, body, 0, READ_ANY, router.loop.time(), router.limit_s, router.quiet,
            ).calls(self._looked_back, (waiter, waiter.asked, self._epoch), SERIALIZABLE),
        )  # fmt: skip

    def _looked_back(self, waiting: Waiting, status: int, body: bytes) -> None:
        waiter, asked, epoch = waiting.context
        if not waiter.alive or asked != waiter.asked:
            return  # it looks back again
        if status != 0:
            if waiter.begun:
                self._again[waiter] = None
            else:
                self.cancel(waiter)
                waiter.start(None)
            return
        link = self._link
        if epoch != self._epoch or link is None or link.closed:
            self._later(waiter)
            return
        self.term = HEAD.unpack_from(body)[1]
        answer = Answer.decode(body, HEAD.size)
        self.shown(answer.index)
        if answer.code:
            if waiter.begun:
                self._in_turn(waiter, None)
            else:
                self.cancel(waiter)
                waiter.start(answer)
            return
        if not waiter.since:
            # a replica that lags answers without what this host had shown: to the client, that is past
            answer.index = max(answer.index, split_read(waiting.body)[1])
            waiter.since = answer.index + 1
        waiter.start(answer)
        if not waiter.alive:
            return
        if not answer.body:
            waiter.since = max(waiter.since, answer.index + 1)
            self._add(waiter)
            return
        fired = Fired(answer.body, asked)
        waiter.since = fired.event.index + 1
        self._in_turn(waiter, fired)

    def _news(self, link: Link, body: bytes) -> None:
        if link is not self._link:
            return
        index, gap, events = decode_news(body)
        self.shown(index_of(events[-1][0]) if events else index)  # more of that one may be to come
        self._frames.append((index, None if gap else iter(events)))
        if len(self._frames) == 1:
            self._sort()
        if (self._firing or self._frames) and not self._scheduled:
            self._wake()

    def _sort(self) -> None:
        """Find who waits for the next events. While few events wait, it stops in time, so a burst ends no
        stream. A front that is behind finds more than it sends, and streams end."""
        frames, most = self._frames, self._news_due + _MOST_SORTED
        while frames and self._news_due < (
                most if frames[-1][0] - frames[0][0] > _MOST_BEHIND else _MOST_DUE):
            index, events = frames[0]
            if events is None:
                self._anew_soon()
            elif (event := next(events, None)) is not None:
                if self._sorted(*event):
                    continue
            else:
                self._told = index
            frames.popleft()

    def _sorted(self, row: bytes, swept: Swept) -> bool:
        """False: the rest of its frame comes by looks back."""
        brief = Brief.of(row)
        if brief.key.startswith(AUTH) and namespace(brief.key) == AUTH:
            self._judge_anew(brief.index)
            return False
        if brief.refresh:
            return True
        fired: Fired | None = None
        again, self._met = brief.index == self._met, brief.index
        for waiter in self._concerned(brief, swept, again):
            if brief.index < waiter.since or not waiter.alive:
                continue
            waiter.since = brief.index + 1
            fired = fired or Fired(row)
            ends = waiter.due >= _MOST_DUE
            self._put(waiter, None if ends else fired)
            if ends or not waiter.stream:
                self._drop(waiter)
        return True

    def _judge_anew(self, index: int) -> None:
        """Users or roles have changed: all look back, and are judged again. They have seen earlier events."""
        for waiter in self._all:
            if waiter in self._here.get(waiter.path, ()):
                waiter.since = max(waiter.since, index)
        self._anew_soon()

    def _concerned(self, brief: Brief, swept: Iterable[bytes], again: bool) -> list[Waiter]:
        key = brief.key
        found = [] if again else list(self._here.get(key, ()))
        if self._deep and not again:
            end = key.rfind(b"/")
            while end >= 0:
                path = key[:end] or b"/"
                if path in self._deep and concerns(path, True, brief, False):
                    found += self._deep[path]
                end = key.rfind(b"/", 0, end)
        for path in swept:
            if path != key and path in self._here:
                found += self._here[path]
        return found

    def _in_turn(self, waiter: Waiter, fired: Fired | None) -> None:
        if self._firing or not self._made(waiter, fired):
            self._put(waiter, fired)
            self._soon()
        elif waiter.alive:
            self._fire(waiter, fired)

    def _put(self, waiter: Waiter, fired: Fired | None) -> None:
        waiter.due += 1
        self._news_due += _is_news(fired)
        self._firing.append((waiter, fired))

    def _made(self, waiter: Waiter, fired: Fired | None) -> bool:
        try:
            return fired is None or fired.made()
        except HANDLER_MISTAKES as error:
            faults.met("showing an event of the v2 tree", error)
            self._fire(waiter, None)
            return True

    def _fire(self, waiter: Waiter, fired: Fired | None) -> None:
        if fired is None or not waiter.stream:
            self.cancel(waiter)
        try:
            waiter.woken(fired)
        except HANDLER_MISTAKES as error:  # of this client's answer alone
            faults.met("waking a wait for the v2 tree", error)
            self.cancel(waiter)
        if fired is not None and fired.asked == waiter.asked and waiter.alive:
            self._look_back(waiter)  # only now: answers may come faster than turns

    def _wake(self) -> None:
        self._scheduled = False
        firing, size = self._firing, 0
        for waiter, fired in list(islice(firing, _AT_ONCE)):
            if waiter.alive and not self._made(waiter, fired):
                break
            firing.popleft()
            waiter.due -= 1
            self._news_due -= _is_news(fired)
            if waiter.alive:
                self._fire(waiter, fired)
                size += len(fired.json) if fired is not None else 0
                if size >= _AT_ONCE_BYTES:
                    break
        self._sort()
        if firing or self._frames:
            self._soon()

    def _soon(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self._router.loop.call_soon(self._wake)


def _is_news(fired: Fired | None) -> bool:
    return fired is None or not fired.asked
