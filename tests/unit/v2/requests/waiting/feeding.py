"""A router for feeds that sends nothing; events of one key; and from where a feed looked back last."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from cluster.features.v2.changes import evaluate
from cluster.features.v2.events import encode_news, index_of
from cluster.features.v2.requests import Answer, Op, Scan, Write, split_read
from cluster.features.v2.tree import KEYS, Tree
from cluster.wire.messages import HEAD
from proxy.routing.router import Waiting
from proxy.v2.waiting.feed import Waiter


class Router:
    """What a feed asks of its router. Sends nothing, and keeps what is sent."""

    limit_s = 7.0
    quiet = None
    v2_news: Any = None

    def __init__(self) -> None:
        self.routes = [SimpleNamespace(replica=self.link())]
        self.recent = SimpleNamespace(stands=lambda link: True)
        self.later: list[Callable[[], object]] = []
        self.soon: list[Callable[[], object]] = []
        self.loop = SimpleNamespace(
            time=lambda: 0.0, call_later=lambda _, then: self.later.append(then), call_soon=self.soon.append)
        self.sent: list[tuple[Any, Waiting]] = []
        self.posted: list[tuple[Any, int, bytes]] = []

    @staticmethod
    def link() -> Any:
        return SimpleNamespace(closed=False)

    def turn(self) -> None:
        """A turn of the loop."""
        soon = self.soon[:]
        del self.soon[:]
        for callback in soon:
            callback()

    def send(self, link: Any, waiting: Waiting) -> None:
        self.sent.append((link, waiting))

    def answer(self, waiter: Waiter, answer: Answer) -> None:
        """To the last look back of this one."""
        waiting = [waiting for _, waiting in self.sent if waiting.context[0] is waiter][-1]
        assert waiting.then is not None
        waiting.then(waiting, 0, bytes(HEAD.size) + answer.encode())

    def post(self, link: Any, rid: int, method: int, body: bytes) -> None:
        self.posted.append((link, method, body))


def events_of(values: list[bytes]) -> list[bytes]:
    """The rows of the events of these sets of one key."""
    tree, found = Tree(), []
    for value in values:
        rows = evaluate(tree, Write(Op.SET, KEYS + b"/k", value)).rows
        tree.take(rows)
        found += [row for name, row in rows if name[:1] == b"h" and row is not None]
    return found


def news(rows: list[bytes]) -> bytes:
    """A frame of these events."""
    return encode_news(index_of(rows[-1]), False, [(row, ()) for row in rows])


def looked(router: Router, waiter: Waiter | None = None) -> int:
    """From where the last look back was."""
    found = [waiting for _, waiting in router.sent if waiter in (None, waiting.context[0])]
    return Scan.decode(split_read(found[-1].body)[2]).since
