"""Cuts an effect over several shards up into the parts of a multi."""

from __future__ import annotations

from collections.abc import Mapping

from cluster.effects import records
from cluster.evaluate.steps import STEP_OPS, Steps, finish
from cluster.evaluate.view import Outcome
from cluster.order.log import Part
from cluster.order.sequencing.granted import GrantedView
from cluster.placement import Placement


def parts_of(view: GrantedView, placement: Placement, group: int, item: bytes) -> list[Part]:
    """An effect cut up by shard: runs of neighbours, each with the place of its first change (sub-order).

    A deleted range is a part of its own in each shard that has keys of it. These parts share one place and
    take as many as there are keys: events of equal place are in the order of their keys.
    """
    return finish(parts_in_steps(view, placement, group, item))


def parts_of_writes(homes: Mapping[bytes, int], outcome: Outcome) -> list[Part]:
    """As :func:`parts_of`, of puts and deletes of single keys whose shards are known. Hot path."""
    item, writes = outcome.items, outcome.writes
    size, unpack = records.ITEM.size, records.ITEM.unpack_from
    if len(writes) == 1:
        return [Part(0, homes[writes[0][0]], 0, item)]
    parts: list[Part] = []
    of, first, begin = -1, 0, 0
    pos = size  # behind the transaction's own head
    for sub, (key, _) in enumerate(writes):
        shard = homes[key]
        if shard != of:
            if of >= 0:
                parts.append(Part(0, of, first, item[begin:pos]))
            of, first, begin = shard, sub, pos
        pos += size + unpack(item, pos)[1]
    if of >= 0:
        parts.append(Part(0, of, first, item[begin:pos]))
    return parts


def parts_in_steps(view: GrantedView, placement: Placement, group: int, item: bytes) -> Steps[list[Part]]:
    pos, end = 0, len(item)
    if item and item[0] in (records.Item.TXN, records.Item.TXN_LONG):
        pos = records.ITEM.size
    parts: list[Part] = []
    sub = -1
    of, first, begin, last = -1, 0, 0, 0  # a run: its shard, place, and bytes

    def end_run() -> None:
        if of >= 0:
            parts.append(Part(group, of, first, item[begin:last]))

    for number, (kind, at, to) in enumerate(records.items(item, pos, end), 1):
        sub += 1
        if not number % STEP_OPS:
            yield
        if kind == records.Item.DELETE_RANGE:
            end_run()
            of = -1
            start, range_end, count = records.read_delete_range(item, at, to)
            for shard, own in sorted(view.counts(start, range_end).items()):
                if own:
                    parts.append(Part(group, shard, sub, records.delete_range(start, range_end, own)))
            sub += count - 1
            continue
        shard = placement.shard_of(records.key_of(item, kind, at, to))
        if shard != of:
            end_run()
            of, first, begin = shard, sub, at - records.ITEM.size
        last = to
    end_run()
    return parts
