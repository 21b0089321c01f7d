"""When a record of the order leaves for a sibling, and when a front hears of what is applied."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from cluster.messages import FEED_HEAD, SEQUENCE, Status, decode_answers
from cluster.raft import EntryKind
from node.feed import ALL_HASTE, FEED_ACK_BODY, FEED_BODY, NO_HASTE, OWN_HASTE, Feeds
from node.fronts import FrontLink, Fronts


class NodeZero:
    """A host's node 0 with a log of empty records, and a clock that the test turns."""

    def __init__(self) -> None:
        self.settings = SimpleNamespace(common=SimpleNamespace(member_id=1, shard_count=3))
        self.log = SimpleNamespace(snapshot_position=lambda: SimpleNamespace(index=0))
        self.raft = SimpleNamespace(log_entries=lambda first, last: [
            SimpleNamespace(index=i, term=1, kind=EntryKind.RECORD, data=b"") for i in range(first, last + 1)])
        self.applied_index = 0
        self._dirty: set[FrontLink] = set()
        self.timers: list[Callable[[], None]] = []
        self.loop = SimpleNamespace(call_later=lambda after_s, call: self.timers.append(call))
        self.feeds = Feeds(self)  # type: ignore[arg-type]

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

    def say(self, haste: int) -> None:
        self._feeds.acknowledge(self.link, FEED_ACK_BODY.pack(0, 0, haste))

    def got(self) -> list[int]:
        """Order indexes that came since the last call."""
        if self.link.pending:
            self.link.flush()
        frames, self._frames = self._frames, []
        return [FEED_HEAD.unpack_from(body)[0] for frame in frames for _, status, body in decode_answers(frame)[1]
                if status == Status.PARTIAL]


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
