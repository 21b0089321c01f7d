"""When a record of the order leaves for a sibling, and when a front hears of what is applied."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from cluster.effects import records
from cluster.order.log import Attempt, Multi, Part, encode_multi
from cluster.raft import EntryKind
from cluster.wire.messages import (
    ALL_HASTE,
    FEED_ACK_BODY,
    FEED_BODY,
    FEED_HEAD,
    NO_HASTE,
    OWN_HASTE,
    SEQUENCE,
    Status,
    decode_answers,
)
from node.links.fronts import FrontLink, Fronts
from node.replica.shards import feed
from node.replica.shards.feed import Feeds


class NodeZero:
    """A host's node 0 with a log of records that are alike, and a clock that the test turns."""

    def __init__(self, record: bytes = b"") -> None:
        self.record = record
        self.read_bytes = 0  # in this turn of the loop
        self.settings = SimpleNamespace(common=SimpleNamespace(member_id=1, shard_count=3))
        self.log = SimpleNamespace(snapshot_position=lambda: SimpleNamespace(index=0))
        self.raft = SimpleNamespace(log_entries=self._entries)
        self.applied_index = 0
        self.dirty: set[FrontLink] = set()
        self.timers: list[Callable[[], None]] = []
        self.turns: list[Callable[[], None]] = []
        self.loop = SimpleNamespace(
            call_later=lambda after_s, call: self.timers.append(call), call_soon=self.turns.append
        )
        self.feeds = Feeds(self)  # type: ignore[arg-type]

    def _entries(self, first: int, last: int, max_bytes: int = 1 << 62) -> list[Any]:
        count = last - first + 1
        if self.record:
            count = min(count, -(-max_bytes // len(self.record)))
        self.read_bytes += count * len(self.record)
        return [
            SimpleNamespace(index=i, term=1, kind=EntryKind.RECORD, data=self.record)
            for i in range(first, first + count)
        ]

    def turn(self) -> int:
        """The loop's next turn; the bytes that are read from the log in it."""
        self.read_bytes = 0
        turns, self.turns[:] = self.turns[:], []
        for call in turns:
            call()
        return self.read_bytes

    def wake(self) -> None:
        """The tick sends what is queued."""

    def apply(self, *concerned: int) -> None:
        self.applied_index += 1
        self.feeds.applied(concerned)


class Sibling:
    """A node of another shard, fed by it."""

    def __init__(self, zero: NodeZero, shard: int, haste: int) -> None:
        self._frames: list[bytes] = []
        self.link = FrontLink(b"n%d" % shard, self._take, b"", 1)
        self._feeds = zero.feeds
        self._feeds.subscribe(self.link, 7, FEED_BODY.pack(shard, 1))
        self.say(haste)

    def _take(self, parts: list[bytes]) -> bool:
        self._frames.append(parts[-1])
        return True

    def say(self, haste: int, applied: int = 0) -> None:
        self._feeds.acknowledge(self.link, FEED_ACK_BODY.pack(applied, 0, haste))

    def got(self) -> list[int]:
        """Order indexes that came since the last call."""
        if self.link.pending:
            self.link.flush()
        frames, self._frames = self._frames, []
        return [
            FEED_HEAD.unpack_from(body)[0]
            for frame in frames
            for _, status, body in decode_answers(frame)[1]
            if status == Status.PARTIAL
        ]


def test_records_are_kept_for_a_shard_that_forms() -> None:
    """I17: it counts from its record on; a host without it could go on alone all the same."""
    feeds = NodeZero().feeds
    feeds.follow((0, 1, 2), 3)
    feeds.alone.look(50, 0.0)
    feeds.alone.look(50, 20.0)
    assert feeds.floors.shards == (1, 2, 3)
    assert feeds.floors.of_majority({1})[0] == 0
    assert feeds.alone.lacking.keys() == {1, 2}


def test_a_leader_gets_the_records_that_concern_it_at_once_and_others_with_them() -> None:
    zero = NodeZero()
    leader = Sibling(zero, 1, OWN_HASTE)
    zero.apply(2)
    assert leader.got() == []
    zero.apply(1)
    assert leader.got() == [1, 2]


def test_where_somebody_reads_or_watches_every_record_goes_at_once() -> None:
    zero = NodeZero()
    reader = Sibling(zero, 1, ALL_HASTE)
    zero.apply(2)
    assert reader.got() == [1]


def test_a_record_that_changes_the_members_goes_to_everybody_at_once() -> None:
    zero = NodeZero()
    follower = Sibling(zero, 1, NO_HASTE)
    zero.applied_index += 1
    zero.feeds.applied((), everybody=True)
    assert follower.got() == [1]


def test_the_others_get_theirs_a_little_later_many_at_a_time() -> None:
    zero = NodeZero()
    follower = Sibling(zero, 1, NO_HASTE)
    for _ in range(5):
        zero.apply(1)
    assert follower.got() == []
    (late,) = zero.timers  # one for all of them
    late()
    assert follower.got() == [1, 2, 3, 4, 5]
    zero.apply(1)
    assert len(zero.timers) == 2


def test_who_is_in_haste_all_of_a_sudden_gets_what_there_is() -> None:
    zero = NodeZero()
    follower = Sibling(zero, 1, NO_HASTE)
    zero.apply()
    follower.say(ALL_HASTE)
    assert follower.got() == [1]


def wide(item: bytes) -> bytes:
    """A transaction with the same effect in shards 0 and 1."""
    return encode_multi(Multi(Attempt(1, 1), 1, {0: 1, 1: 1}, [Part(0, 0, 0, item), Part(0, 1, 1, item)]))


MIB = 1 << 20
OWN = records.put(b"k", 0, 1, bytes(MIB), 0)  # shard 0's: others get nothing of it
WIDE = wide(OWN)


def test_a_node_that_is_far_behind_takes_little_of_each_turn_of_the_loop() -> None:
    """2,000 records of 1 MiB, which one push used to read as a whole, 128 at once, in 2.3 s."""
    zero = NodeZero(OWN)
    zero.applied_index = 1990
    zero.read_bytes = 0
    siblings = [Sibling(zero, shard, ALL_HASTE) for shard in (1, 2)]
    most, got = zero.read_bytes, [0, 0]
    while zero.turns:
        for at, sibling in enumerate(siblings):
            got[at] += len(sibling.got())
        most = max(most, zero.turn())
    assert [n + len(sibling.got()) for n, sibling in zip(got, siblings, strict=True)] == [1990, 1990]
    assert most <= 3 * MIB + 1000
    zero.apply(1)
    zero.turn()
    assert siblings[0].got() == [1991]


def test_many_small_records_are_left_for_the_next_turn_too() -> None:
    zero = NodeZero(records.put(b"k", 0, 1, b"v", 0))
    zero.applied_index = 1900
    sibling = Sibling(zero, 1, ALL_HASTE)
    assert 500 <= len(sibling.got()) <= 700
    while zero.turns:
        zero.turn()
    assert sibling.got()[-1] == 1900


def test_no_more_is_on_its_way_than_the_window_has_room_for_in_bytes() -> None:
    zero = NodeZero(WIDE)
    zero.applied_index = 100
    sibling = Sibling(zero, 1, ALL_HASTE)

    def turns() -> list[int]:
        found = sibling.got()
        while zero.turns:
            zero.turn()
            found += sibling.got()
        return found

    assert turns() == list(range(1, 9))
    sibling.say(ALL_HASTE, 2)
    assert turns() == [9, 10]
    assert turns() == []
    sibling.say(ALL_HASTE, 10)
    assert turns() == list(range(11, 19))
    for applied in range(11, 101):
        sibling.say(ALL_HASTE, applied)
        turns()
    zero.apply(1)
    assert turns() == [101]


def test_a_record_larger_than_the_window_goes_alone() -> None:
    zero = NodeZero(wide(records.put(b"k", 0, 1, bytes(10 * MIB), 0)))
    zero.applied_index = 3
    sibling = Sibling(zero, 1, ALL_HASTE)
    for index in (1, 2, 3):
        while zero.turns:
            zero.turn()
        assert sibling.got() == [index]
        sibling.say(ALL_HASTE, index)


def test_what_is_left_of_a_node_that_is_gone_is_forgotten() -> None:
    zero = NodeZero(OWN)
    zero.applied_index = 2000
    sibling = Sibling(zero, 1, ALL_HASTE)
    zero.feeds.gone(sibling.link)
    assert zero.turn() == 0
    assert not zero.turns


def fronts(prompt: bool, identity: bytes = b"f") -> tuple[Fronts, FrontLink, Callable[[], list[int]]]:
    """A node's fronts, one local link, and the watermarks that it was sent since the last call."""
    frames: list[bytes] = []

    def send(parts: list[bytes]) -> bool:
        frames.append(parts[-1])
        return True

    def nothing(*given: Any) -> None:
        """Nobody asks."""

    found = Fronts(1, nothing, nothing, nothing, (2, 1), prompt)
    link = found.links[identity] = FrontLink(identity, send, b"", 1)

    def told() -> list[int]:
        found.flush()
        records = [record for frame in frames for record in decode_answers(frame)[1]]
        frames.clear()
        return [SEQUENCE.unpack(body)[0] for _, status, body in records if status == Status.WATERMARK]

    return found, link, told


def test_node_0_tells_its_host_of_every_revision() -> None:
    found, _, told = fronts(prompt=True)
    found.watermark(5, 0.0)
    assert told() == [5]


def test_the_nodes_of_other_shards_are_told_of_none() -> None:
    found, link, told = fronts(prompt=True, identity=b"n123")
    found.watermark(5, 0.0)
    link.answer(1, Status.PARTIAL, b"")
    found.dirty.add(link)
    assert told() == []


def test_another_shard_tells_of_a_revision_with_what_leaves_anyway() -> None:
    found, link, told = fronts(prompt=False)
    found.watermark(5, 0.0)
    assert told() == []
    link.answer(1, Status.OK, b"")
    found.dirty.add(link)
    assert told() == [5]


def test_who_waits_for_a_revision_hears_of_it_at_once_and_for_a_while_of_others() -> None:
    found, link, told = fronts(prompt=False)
    found.watermark(5, 0.0)
    found.hurry(link, 7, until=1.0)
    assert told() == [5]
    found.watermark(6, 0.5)
    assert told() == [6]
    found.watermark(7, 3.0)  # it waits for this one, however long
    assert told() == [7]
    found.watermark(8, 3.0)
    assert told() == []


def test_a_large_record_is_not_judged_again_for_each_node_that_it_goes_to(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """18,432 operations over two shards took 20 ms each time."""
    puts = b"".join(records.put(b"k%05d" % n, 0, 1, b"v", 0) for n in range(2000))
    zero = NodeZero(encode_multi(Multi(Attempt(1, 1), 1, {}, [Part(0, 1, 0, puts)])))
    siblings = [Sibling(zero, 1, ALL_HASTE), Sibling(zero, 2, NO_HASTE)]
    monkeypatch.delattr(feed, "sound")
    zero.feeds.judged(1, zero.record)
    zero.apply(1)
    zero.timers.pop()()
    assert [sibling.got() for sibling in siblings] == [[1], [1]]
    assert not zero.feeds._sound  # nobody needs it any more
