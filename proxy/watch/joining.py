"""Parts that go to a node, a few at a time: the way of reads decides which (``ShardRoute.replica``).

A front whose link to a node ends, or comes up, moves the parts of all its watches: tens of thousands. Each
costs this loop and the node's some microseconds, so at most ``WINDOW`` SUBSCRIBE records of a link wait for
their answers, and the next ones leave as those come. A part that waits keeps its place: what it has got on
the old link, even one that has ended, stays got.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import TYPE_CHECKING

from proxy.watch.parts import Part

if TYPE_CHECKING:
    from proxy.routing.router import Router

WINDOW = 512


class Joining:
    """The parts that wait, by shard."""

    def __init__(self, router: Router) -> None:
        self._router = router
        self._waiting: list[dict[Part, None]] = [{} for _ in router.routes]

    def join(self, part: Part) -> None:
        """A part is to go to the node that reads go to now."""
        self._waiting[part.shard][part] = None
        self.go_on(part.shard)

    def move(self, shard: int, parts: Iterable[Part]) -> None:
        """All of these are, except those that are there."""
        self._waiting[shard].update(dict.fromkeys(parts))
        self.go_on(shard)

    def drop(self, part: Part) -> None:
        """A part has ended."""
        self._waiting[part.shard].pop(part, None)

    def go_on(self, shard: int) -> None:
        """As many as may: to be called when an answer has come, a link is up, and from time to time."""
        waiting = self._waiting[shard]
        link = self._router.routes[shard].replica if waiting else None
        if link is None:
            return
        room = WINDOW - len(link.asked)
        if room < min(len(waiting), WINDOW // 2):
            return  # in portions: the first entries of a dict cost a look at all that have gone before them
        for part in list(islice(waiting, room)):
            del waiting[part]
            if part.link is not link:
                part.join(link, self._router)

    def tick(self) -> None:
        """A window that no answer moves on: its link may be another one by now."""
        for shard, waiting in enumerate(self._waiting):
            if waiting:
                self.go_on(shard)
