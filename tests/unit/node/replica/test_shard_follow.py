"""A shard's replica follows its feed: what it took must be applied, and all of it before anybody looks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cluster.effects import records
from cluster.order.following.feed_queue import FeedQueue
from cluster.order.log import Cut, Fold, encode_cut, entry
from cluster.raft import Entry, EntryKind
from cluster.wire.messages import Method
from node.links.fronts import FrontLink
from node.replica.applying import Applies
from node.replica.pauses import LateFeedTimer
from node.replica.shards.fates import Fates
from node.replica.shards.shard_node import ShardNode
from node.storage import ApplyFailed, StateStore
from tests.unit.proxy.fakes import ManualLoop

SHARD = 1


@pytest.fixture
def store(tmp_path: Path) -> Iterator[StateStore]:
    found = StateStore.open(str(tmp_path / "state"))
    yield found
    found.close()


class Still:
    """A loop whose clock stands, so that every pause lasts."""

    def time(self) -> float:
        return 100.0

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> Any:
        return SimpleNamespace(cancel=lambda: None)


class Replica(ShardNode):
    """Of a shard whose log has one put an entry, from entry 2 on; all but how it follows is a stand-in."""

    def __init__(self, store: StateStore) -> None:
        loop: Any = ManualLoop()
        still: Any = Still()
        self.dropped: list[bytes] = []
        self.readies: list[int] = []  # what the next ones announce
        self.announced = 10
        fakes: dict[str, Any] = {
            "store": store,
            "fold": Fold(),
            "settings": SimpleNamespace(shard=SHARD),
            "leading": None,
            "raft": self,
            "applies": Applies(loop, lambda events: None, lambda: None),
            "watches": SimpleNamespace(active=False),
            "upkeep": SimpleNamespace(logged_bytes=lambda size, ordered: None),
            "fronts": SimpleNamespace(drop=self.dropped.append),
            "_late_feed": LateFeedTimer(still, lambda: True, lambda: None),
            "_feed": FeedQueue(0),
            "_fates": Fates(self),
            "_count_at_applied": 0,
            "_order_index": 0,
            "_unacknowledged": 0,
            "applied_index": 0,
            "_acknowledged": (None, 0, 0, 0),
            "_requests_in_tick": 0,
        }
        self.__dict__.update(fakes)

    # Raft
    @property
    def announced_index(self) -> int:
        return self.announced

    def log_entries(self, first: int, last: int) -> list[Entry]:
        data = [b"" if i == 1 else records.put(b"key %d" % i, 0, 1, b"v", 0) for i in range(first, last + 1)]
        return [Entry(first + i, 1, EntryKind.RECORD, entry(first + i - 1, item)) for i, item in enumerate(data)]

    def applied(self, index: int) -> None:
        pass

    def prove_committed(self, index: int, term: int) -> bool:
        return False

    def ready(self) -> int | None:
        return self.readies.pop(0) if self.readies else None

    # the node
    def _handle(self, ready: Any) -> None:
        self.announced = ready
        self._follow()

    def _after_apply(self, run: Any, applied: Any) -> None:
        pass

    def wake(self) -> None:
        pass

    def fed(self, order_index: int, entry_index: int) -> None:
        cut = Cut(entry_index, 1, entry_index - 1)
        self._feed.add((order_index, 1, encode_cut({SHARD: cut}), cut, 0))


def test_records_that_could_not_be_applied_end_the_node_whoever_asked(store: StateStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """They have left the feed: the next ones would be applied without them (I6)."""
    replica = Replica(store)
    replica.fed(1, 2)
    replica._follow()
    replica.fed(2, 3)
    replica._follow()
    assert (replica._order_index, replica._late_feed.waits) == (1, True)

    def fails(*args: Any) -> None:
        raise ValueError("once")

    monkeypatch.setattr(store, "write", fails)
    with pytest.raises(ApplyFailed, match="order records 2 to 2"):
        replica._requests(FrontLink(b"front", lambda parts: True, b"", 1), [(1, Method.RANGE, 1000, b"")])
    assert replica.dropped == []


def test_catching_up_applies_what_a_second_ready_makes_known(store: StateStore) -> None:
    replica = Replica(store)
    replica._late_feed.applied()
    replica.announced = 1
    replica.fed(1, 2)
    replica.fed(2, 3)
    replica._follow()
    assert replica._late_feed.waits
    replica.readies = [2, 3]  # the first one's apply begins a pause
    replica.catch_up()
    assert (replica._order_index, replica._late_feed.waits) == (2, False)
