"""Parts that move to the node that reads go to (``ShardRoute.replica``): at most ``WINDOW`` SUBSCRIBE records
of a link wait for answers, as a link may have tens of thousands of parts. A waiting part keeps what it got on
the old link, even one that has ended."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from itertools import islice
from typing import TYPE_CHECKING

from proxy.watch.parts import Part

if TYPE_CHECKING:
    from proxy.routing.router import Router

WINDOW = 512


class Joining:
    def __init__(self, router: Router) -> None:
        self._router = router
        self._waiting: defaultdict[int, dict[Part, None]] = defaultdict(dict)  # by shard

    def join(self, part: Part) -> None:
        self._waiting[part.shard][part] = None
        self.go_on(part.shard)

    def move(self, shard: int, parts: Iterable[Part]) -> None:
        self._waiting[shard].update(dict.fromkeys(parts))
        self.go_on(shard)

    def drop(self, part: Part) -> None:
        self._waiting[part.shard].pop(part, None)

    def go_on(self, shard: int) -> None:
        """Subscribe as many as may: after an answer, when a link is up, and in every sweep."""
        waiting = self._waiting[shard]
        route = self._router.routes.get(shard) if waiting else None
        link = route.replica if route is not None else None
        if link is None:
            return
        room = WINDOW - len(link.asked)
        if room < min(len(waiting), WINDOW // 2):
            return  # in portions: a dict's first entry costs a look at all that were deleted before it
        for part in list(islice(waiting, room)):
            del waiting[part]
            if part.link is not link:
                part.join(link, self._router)

    @property
    def restless(self) -> bool:
        return any(self._waiting.values())

    def tick(self) -> None:
        for shard, waiting in list(self._waiting.items()):
            if waiting:
                self.go_on(shard)
