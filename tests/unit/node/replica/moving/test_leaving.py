"""What has left a source, and when it drops that."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

from cluster.effects import records
from cluster.order.moving.copier import Ask
from cluster.placement.changes import dropped_in, shard_item
from cluster.placement.table import State
from node.replica.moving.leaving import Leaving
from node.replica.moving.moved import MovedKeys
from node.replica.moving.sources import Sources
from tests.unit.node.replica.moving.world import KEYS, TARGET, Host, Link, begin, switched
from tests.unit.storage.moved.cluster import Cluster


class Durable:
    """Hosts' nodes of the target, and what they have on disk."""

    def __init__(self, host: Host) -> None:
        self.at = {1: 0, 2: 0, 3: 0}
        self.links = SimpleNamespace(find=self._find, flush=lambda: None)
        self._host = host
        self.flushes: set[int] = set()  # of those that were asked for more than they have

    def _find(self, member_id: int, shard: int) -> Link:
        assert shard == TARGET
        node: Any = self._host.node(TARGET)
        at = self.at[member_id]
        node.store = SimpleNamespace(
            durable_position=SimpleNamespace(order_index=at), position=SimpleNamespace(order_index=at + 1))
        node.upkeep.flushes.owe = lambda: self.flushes.add(member_id)
        Sources(node, MovedKeys(self._host.store(TARGET)))
        return Link(node.handlers)


def left(
    cluster: Cluster, voters: tuple[int, ...], waiting: Sequence[bytes] = ()
) -> tuple[Any, Durable, Callable[[], bool]]:
    """The store of a source that its keys have left, the hosts, and two seconds: whether it has its rows."""
    begin(cluster)
    host = Host(cluster)
    copying = host.copying(TARGET)
    host.loop.run(1.0)
    cluster.place(switched(cluster))
    copying.placed(cluster.table)
    source = cluster.table.owners_at(KEYS[0], b"", cluster.model.revision)[0]
    store, durable = host.store(source), Durable(host)
    links: Any = durable.links
    leaving = Leaving(host.node(source), links, MovedKeys(store), lambda: voters,
                      lambda: [shard for record in waiting for shard in dropped_in(record)])

    def look() -> bool:
        for _ in range(2):  # the answers of one second are used in the next
            leaving.second()
            host.loop.run(1.0)
        assert host.went == ([] if store.left else [source])
        return bool(store.left)

    return store, durable, look


def test_g10_what_has_left_is_dropped_once_nobody_can_ask_for_it(cluster: Cluster) -> None:
    store, durable, look = left(cluster, (1, 2, 3))
    place = store.left[1].order_index
    durable.at = dict.fromkeys((1, 2, 3), place)
    assert look(), "no compaction is behind the switch"
    cluster.put(b"b1")
    item = cluster.model.compact(cluster.model.revision)
    assert item
    cluster.control(item)
    durable.at = {1: place - 1, 2: place, 3: place}
    assert look(), "the own host's target is not on disk"
    durable.at = {1: place, 2: place - 1, 3: place - 1}
    assert look(), "no majority is"
    assert durable.flushes == {1, 2, 3}, "each that was asked for more than it had on disk"
    durable.at[3] = place
    assert not look()
    assert next(store.rows(b"ka/", b"ka0"), None) is None
    cluster.table = store.placement() or cluster.table


def test_g10_a_learners_host_drops_what_has_left_it(cluster: Cluster) -> None:
    """It kept all until it voted, and a copy of what comes back waits for that (G11)."""
    store, durable, look = left(cluster, (2, 3))
    cluster.put(b"b1")
    item = cluster.model.compact(cluster.model.revision)
    assert item
    cluster.control(item)
    place = store.left[1].order_index
    durable.at = {1: place - 1, 2: place, 3: place}
    assert look(), "the own host's target is not on disk"
    durable.at = {1: place, 2: place, 3: place - 1}
    assert look(), "the own host votes nowhere: no majority is beyond the switch"
    durable.at[3] = place
    assert not look()
    cluster.table = store.placement() or cluster.table


def test_g10_what_has_left_to_a_shard_whose_drop_waits_behind_goes(cluster: Cluster) -> None:
    """No node of it is left that would answer, and the record waits for these rows to go (G11)."""
    waiting = [b"", shard_item(TARGET, State.RETIRING) + shard_item(TARGET - 1, State.DROPPED)]
    store, durable, look = left(cluster, (1, 2, 3), waiting)
    durable.at = {1: store.left[1].order_index, 2: 0, 3: 0}
    cluster.put(b"b1")
    item = cluster.model.compact(cluster.model.revision)
    assert item
    cluster.control(item)
    drop = shard_item(TARGET, State.DROPPED)
    waiting.append(records.put(b"k", 3, 1, drop, 0))
    assert look(), "a value may look like it"
    waiting.append(waiting[1] + drop)
    assert not look()
    cluster.table = store.placement() or cluster.table


def test_a_node_that_starts_while_a_shard_retires_flushes_for_its_drop(cluster: Cluster) -> None:
    """The drop waits for what has moved to be on disk, and no table is applied any more."""
    node: Any = Host(cluster).node(TARGET)
    owed: list[bool] = []
    node.upkeep.flushes.owe = lambda: owed.append(True)
    links: Any = SimpleNamespace(flush=lambda: None)
    for emptied in (False, True):
        moved: Any = SimpleNamespace(table=SimpleNamespace(emptied=emptied), left={})
        Leaving(node, links, moved, lambda: (1, 2, 3)).second()
        assert bool(owed) is emptied


def test_g10_of_what_no_read_can_ask_for_a_part_goes_alone(cluster: Cluster) -> None:
    middle = TARGET - 1
    cluster.move(b"a/0", b"a/5", middle)
    cluster.put(b"a/1")
    cluster.move(b"a/5", b"a/9", middle)
    cluster.move(b"a/", b"a0", TARGET)
    host, moved = Host(cluster), MovedKeys(cluster.stores[0, middle])
    durable = Durable(host)
    links: Any = durable.links
    leaving = Leaving(host.node(middle), links, moved, lambda: (1, 2, 3))
    for at in (0, moved.left[3].order_index):
        assert moved.has_old_rows(b"a/5", b"a/9")
        durable.at = dict.fromkeys((1, 2, 3), at)
        for _ in range(3):
            leaving.second()
            host.loop.run(1.0)
    assert not moved.has_old_rows(b"a/5", b"a/9")
    assert moved.has_old_rows(b"a/0", b"a/5")
    assert moved.answer(moved.left[3].move, Ask(middle, True, b"a/")) is None
