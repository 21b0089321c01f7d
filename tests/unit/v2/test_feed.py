"""Those who wait at a front, when the node that told them of changes is gone (proxy.v2.feed)."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from cluster.wire.messages import Method
from proxy.routing.router import Waiting
from proxy.v2.feed import Feed


class Router:
    """What a feed asks of its router. Sends nothing, and keeps what is sent."""

    limit_s = 7.0
    quiet = None
    v2_news: Any = None

    def __init__(self) -> None:
        self.routes = [SimpleNamespace(replica=self.link())]
        self.later: list[Callable[[], object]] = []
        self.loop = SimpleNamespace(time=lambda: 0.0, call_later=lambda _, then: self.later.append(then))
        self.sent: list[tuple[Any, Waiting]] = []
        self.posted: list[tuple[Any, int, bytes]] = []

    @staticmethod
    def link() -> Any:
        return SimpleNamespace(closed=False)

    def send(self, link: Any, waiting: Waiting) -> None:
        self.sent.append((link, waiting))

    def post(self, link: Any, rid: int, method: int, body: bytes) -> None:
        self.posted.append((link, method, body))


def test_those_who_wait_look_back_in_turns_when_their_link_is_lost() -> None:
    router = Router()
    feed = Feed(router)  # type: ignore[arg-type]
    waiters = [feed.wait(b"/1/k", False, 5, False, lambda _: None, lambda _: None) for _ in range(5000)]
    router.sent.clear()
    router.routes[0].replica.closed = True
    feed.tick(0)
    assert not router.sent  # there is nobody to ask
    router.routes[0].replica = other = router.link()
    rounds = []
    feed.tick(1)
    while True:
        rounds.append(len(router.sent))
        feed.tick(2)  # in between changes nothing
        assert len(router.sent) == rounds[-1] or not router.later
        if not router.later:
            break
        router.later.pop()()
    assert rounds == [2000, 4000, 5000]
    assert all(link is other for link, _ in router.sent)
    assert len({waiting.context[0] for _, waiting in router.sent}) == 5000
    assert router.posted[-1] == (other, Method.V2_FOLLOW, b"\1")
    for waiter in waiters:
        feed.cancel(waiter)
    assert router.posted[-1] == (other, Method.V2_FOLLOW, b"\0")
