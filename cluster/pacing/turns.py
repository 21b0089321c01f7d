"""A window that owners use in turn: each owner's items wait in order, the owners one after the other, an item
each. What an owner has beyond its share of the window delays no other."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

Item = TypeVar("Item")
NO_LIMIT = 1 << 62


class Turns(Generic[Item]):
    """``window``: what may be under way in all; ``share``: of one owner; ``room``: whether other windows
    leave any. Where nothing is under way, of all or of an owner, one item is let in nevertheless."""

    def __init__(self, window: int, share: int = NO_LIMIT, room: Callable[[], bool] = lambda: True) -> None:
        self._window = window
        self._share = share
        self._room = room
        # owners that wait for the window, in the order of their turns; owners that use all their share
        self._waiting: dict[Hashable, deque[tuple[int, Item]]] = {}
        self._stopped: dict[Hashable, deque[tuple[int, Item]]] = {}
        self._used: dict[Hashable, int] = {}  # by owner, of what is under way
        self.used = 0

    def __len__(self) -> int:
        return sum(map(len, self._waiting.values())) + sum(map(len, self._stopped.values()))

    def enter(self, owner: Hashable, size: int, item: Item) -> bool:
        """Whether an item begins now. Otherwise it waits for :meth:`next`."""
        queue = self._waiting.get(owner) or self._stopped.get(owner)
        if queue is not None:
            queue.append((size, item))
            return False
        if not self._fits_share(owner, size):
            self._stopped[owner] = deque([(size, item)])
            return False
        if self._waiting or not self._fits(size):
            self._waiting[owner] = deque([(size, item)])
            return False
        self._begin(owner, size)
        return True

    def leave(self, owner: Hashable, size: int) -> None:
        left = self._used[owner] - size
        assert left >= 0, "only what has begun ends"
        if left:
            self._used[owner] = left
        else:
            del self._used[owner]
        self.used -= size
        stopped = self._stopped.get(owner)
        if stopped is not None and self._fits_share(owner, stopped[0][0]):
            self._waiting[owner] = self._stopped.pop(owner)  # behind those that wait already

    def next(self) -> tuple[Hashable, int, Item] | None:
        """What begins now: its owner, its size and itself, if anything may."""
        if not self._waiting:
            return None
        owner, queue = next(iter(self._waiting.items()))
        if not self._fits(queue[0][0]):
            return None
        del self._waiting[owner]
        size, item = queue.popleft()
        self._begin(owner, size)
        if queue:
            place = self._waiting if self._fits_share(owner, queue[0][0]) else self._stopped
            place[owner] = queue
        return owner, size, item

    def drop(self, unwanted: Callable[[Item], bool]) -> list[Item]:
        dropped: list[Item] = []
        for queues in (self._waiting, self._stopped):
            for owner, queue in list(queues.items()):
                left = deque[tuple[int, Item]]()
                for size, item in queue:
                    if unwanted(item):
                        dropped.append(item)
                    else:
                        left.append((size, item))
                if left:
                    queues[owner] = left
                else:
                    del queues[owner]
        return dropped

    def _begin(self, owner: Hashable, size: int) -> None:
        self._used[owner] = self._used.get(owner, 0) + size
        self.used += size

    def _fits(self, size: int) -> bool:
        return (self.used + size <= self._window and self._room()) or not self.used

    def _fits_share(self, owner: Hashable, size: int) -> bool:
        used = self._used.get(owner, 0)
        return used + size <= self._share or not used
