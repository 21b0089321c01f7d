"""A target's copy, and the wait for it, over stores on disk."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from structlog.testing import capture_logs

from cluster.order.moving.copier import TRIES
from cluster.order.moving.mover import NO_ROOM_LAG_MS
from cluster.order.prepare import Base
from cluster.pacing.easing import LEAST_S
from cluster.placement.changes import Moved, move_item, moved_item
from cluster.placement.table import Move
from cluster.wire.messages import Method
from node.replica.moving.copying import Copying
from node.replica.moving.moved import MovedKeys
from node.storage import SyncFailed
from tests.unit.node.replica.moving.world import (
    ELECTION_MS,
    KEYS,
    TARGET,
    Host,
    Link,
    answers_nothing,
    begin,
    switched,
)
from tests.unit.storage.moved.cluster import Cluster

ELECTION_S = ELECTION_MS / 1000


def base(cluster: Cluster, live: int = len(KEYS)) -> Base:
    return Base(1, cluster.model.revision, live)


def misses_events(cluster: Cluster, host: Host, move: Move) -> None:
    """The sources compact what the copy has to hear next, while it hears nothing for long."""
    for source in move.sources:
        host.link(source).cut = True
        host.store(source)._compaction._wanted_until = 0
    for _ in range(4):
        cluster.put(b"a/more")
    item = cluster.model.compact(cluster.model.revision)
    assert item
    cluster.control(item)
    cluster.remove_compacted()
    for source in move.sources:
        host.link(source).cut = False


def test_a_target_copies_and_says_how_far_it_is(cluster: Cluster) -> None:
    begin(cluster)
    host = Host(cluster)
    copying = host.copying(TARGET)
    assert copying.lacks(switched(cluster)), "G5"
    host.loop.run(1.0)
    assert host.grew
    assert copying.copied(base(cluster))
    said = host.reports[-1]
    assert (said.move, said.whole, said.keys) == (1, True, len(KEYS))
    assert said.lag_ms < 50
    cluster.put(b"a/more")
    assert not copying.copied(base(cluster, len(KEYS) + 1))
    host.loop.run(0.1)
    assert not copying.lacks(switched(cluster, len(KEYS) + 1))
    cluster.place(switched(cluster, len(KEYS) + 1))
    copying.placed(cluster.table)
    host.loop.run(1.0)
    assert copying.copier is None
    assert not copying.moves
    cluster.check()


def test_what_a_switch_waits_for_is_asked_at_once(cluster: Cluster) -> None:
    """And soon again, while its source does not have it either."""
    begin(cluster)
    host = Host(cluster)
    copying = host.copying(TARGET)
    host.loop.run(1.0)
    cluster.put(b"a/more")
    missing = base(cluster, len(KEYS) + 1)
    assert not copying.copied(missing)
    host.loop.run(0.0)
    assert copying.copied(missing)
    before = len(host.asked)
    assert not copying.copied(missing._replace(revision=missing.revision + 1))
    host.loop.run(0.0101)
    assert len(host.asked) - before == 6
    cluster.put(b"a/less")
    host.loop.run(0.0101)
    assert len(host.asked) - before == 7, "it has come: the next question is not due"


def test_a_copy_of_a_source_out_of_reach_does_not_spin(cluster: Cluster) -> None:
    begin(cluster)
    host = Host(cluster)
    links: Any = host.links
    asked: list[int] = []
    links.find = lambda member, shard: asked.append(shard)
    copying = host.copying(TARGET)
    host.loop.run(0.1)
    assert copying.copier is not None
    assert 1 < len(asked) < 30


@pytest.mark.parametrize("awaited", [False, True])
def test_only_pages_that_nothing_waits_for_are_late_where_all_is(cluster: Cluster, awaited: bool) -> None:
    """A whole copy that rests is never close to its source, and its switch not tried."""
    for number in range(600):
        cluster.put(b"a/%03d" % number)
    move = begin(cluster)
    host = Host(cluster)
    copying = host.copying(TARGET)
    if awaited:
        assert copying.lacks(switched(cluster, 609))
    link: Any = host.link(move.sources[0])
    link.request = lambda *given: host.loop.call_later(0.05, lambda: Link.request(link, *given))
    copying._perf_counter = host.loop.time
    host.loop.run(0.12)
    assert copying.copier is not None
    assert not copying.copier.whole
    assert copying._rest_s == (LEAST_S if awaited else pytest.approx(0.05))
    host.loop.run(2.0)
    assert copying.copier.whole
    assert copying._rest_s == LEAST_S


def test_order_records_are_wanted_soon_once_a_copy_is_whole(cluster: Cluster) -> None:
    """Each record by itself costs all nodes of both shards more than the copy does."""
    for number in range(600):
        cluster.put(b"a/%03d" % number)
    move = begin(cluster)
    host = Host(cluster)
    target = host.copying(TARGET)
    source, sources = host.source(move.sources[0])
    assert not target.hurries
    host.loop.run(0.01)
    assert target.moves
    assert sources.paging
    assert (target.hurries, source.hurries) == (False, False)
    host.loop.run(1.5)
    assert target.copier is not None
    assert target.copier.whole
    assert (target.hurries, source.hurries) == (True, True)
    cluster.place(moved_item(Moved(1, False, 0, 0)))
    for copying in (target, source):
        copying.placed(cluster.table)
        assert not copying.hurries


def test_a_source_that_no_copy_asks_for_pages_hurries(cluster: Cluster) -> None:
    """It may have begun after the last of them."""
    move = begin(cluster)
    host = Host(cluster)
    source, sources = host.source(move.sources[0])
    assert source.hurries
    assert not sources.paging


def started_again(cluster: Cluster, after_s: float) -> tuple[Host, Copying]:
    """A move begins; its target's host starts anew a while after."""
    begin(cluster)
    host = Host(cluster)
    first = host.copying(TARGET)
    host.loop.run(after_s)
    first.close()
    cluster.reopen()
    host = Host(cluster)
    return host, host.copying(TARGET)


def test_a_copy_goes_on_after_a_start(cluster: Cluster) -> None:
    host, again = started_again(cluster, after_s=0.05)
    host.loop.run(1.0)
    assert again.copied(base(cluster))


def test_a_copy_that_was_whole_before_the_order_waited_lets_it_go_on(cluster: Cluster) -> None:
    """After a start the order comes to the switch before the copy has been looked at, and nothing that
    comes raises the copy any more."""
    host, again = started_again(cluster, after_s=1.0)
    assert again.lacks(switched(cluster))
    host.loop.run(0.05)
    assert host.grew
    assert not again.lacks(switched(cluster))
    grew = host.grew
    host.loop.run(1.0)
    assert host.grew == grew, "nothing waits"


def test_what_is_cancelled_is_removed(cluster: Cluster) -> None:
    begin(cluster)
    host = Host(cluster)
    copying = host.copying(TARGET)
    host.loop.run(1.0)
    cluster.place(moved_item(Moved(1, False, 0, 0)))
    copying.placed(cluster.table)
    host.loop.run(1.0)
    store = host.store(TARGET)
    assert store.staged is None
    assert next(store.rows(b"k", b"l"), None) is None
    begin(cluster, 2)
    copying.placed(cluster.table)
    host.loop.run(1.0)
    assert copying.copied(base(cluster)._replace(move=2))


def test_a_copy_with_another_number_of_keys_begins_anew_three_times_at_most(cluster: Cluster) -> None:
    begin(cluster)
    host = Host(cluster)
    copying = host.copying(TARGET)
    host.loop.run(1.0)
    for _ in range(TRIES):
        assert not copying.copied(base(cluster, 8))
        assert not copying.copied(base(cluster)), "it is being made"
        host.loop.run(1.0)
        assert copying.copied(base(cluster))
    assert not copying.copied(base(cluster, 8))
    assert copying.copied(base(cluster)), "that is an operator's matter"


def test_a_stale_question_is_no_reason_to_begin_anew(cluster: Cluster) -> None:
    """Keys have changed since the lock that it speaks of."""
    begin(cluster)
    host = Host(cluster)
    copying = host.copying(TARGET)
    host.loop.run(1.0)
    asked = base(cluster)
    cluster.put(b"a/more")
    host.loop.run(0.1)
    assert not copying.copied(asked)
    assert copying.copied(base(cluster, len(KEYS) + 1))


def test_a_stale_question_is_none_either_where_a_source_is_behind(cluster: Cluster) -> None:
    keys = [b"%c/%d" % (letter, n) for letter in b"bcdef" for n in range(3)]
    for key in keys:
        cluster.put(key)
    first, second = (next(k for k in keys if cluster.table.owner(k) == shard) for shard in (0, 1))
    cluster.place(move_item(Move(1, b"b", b"g", (0, 1), TARGET)))
    host = Host(cluster)
    copying = host.copying(TARGET)
    host.loop.run(2.0)
    late: list[Callable[[], object]] = []
    link = host.link(1)
    link.later = late
    cluster.put(second)
    asked = base(cluster, len(keys))
    assert not copying.copied(asked)
    host.loop.run(0.1)
    cluster.put(first + b"new")
    host.loop.run(0.1)
    link.later = None
    for answer in late:
        answer()
    with capture_logs() as logs:
        assert not copying.copied(asked), "there is another key since"
    assert not logs
    host.loop.run(0.1)
    assert copying.copied(base(cluster, len(keys) + 1))


def test_what_is_promised_is_not_undone(cluster: Cluster) -> None:
    move = begin(cluster)
    host = Host(cluster)
    copying = host.copying(TARGET)
    host.loop.run(1.0)
    promised = base(cluster)
    host.promised = True
    misses_events(cluster, host, move)
    host.loop.run(3.0)
    assert copying.copied(promised)
    host.promised = False
    host.loop.run(3.0)
    assert copying.copied(base(cluster, len(KEYS) + 1)), "now it may begin anew"


def test_a_copy_by_which_a_switch_is_being_applied_does_not_begin_anew(cluster: Cluster) -> None:
    """Between the slices of that run its rows would go, and the switch would show what is left."""
    move = begin(cluster)
    host = Host(cluster)
    copying = host.copying(TARGET)
    host.loop.run(1.0)
    applies: Any = copying._node.applies
    applies.busy = True
    misses_events(cluster, host, move)
    host.loop.run(3.0)
    assert not copying.copied(base(cluster, 8)._replace(revision=1), frozen=True), "another number"
    host.loop.run(3.0)
    copy = MovedKeys(host.store(TARGET)).copy
    assert copy is not None
    assert copy.live == len(KEYS)
    applies.busy = False
    host.loop.run(3.0)
    assert copying.copied(base(cluster, len(KEYS) + 1)), "now it may begin anew"


def test_no_copy_begins_between_the_slices_of_an_apply(cluster: Cluster) -> None:
    """A move that is cancelled in that run may have no copy yet: then nothing masks the rows there."""
    begin(cluster)
    host = Host(cluster)
    copying = host.copying(TARGET)
    applies: Any = copying._node.applies
    applies.busy = True
    host.loop.run(1.0)
    assert host.store(TARGET).staged is None
    applies.busy = False
    host.loop.run(1.0)
    assert copying.copied(base(cluster))


def test_while_the_order_waits_other_hosts_are_asked_and_then_a_peer(cluster: Cluster) -> None:
    move = begin(cluster)
    host = Host(cluster, others=(2, 3))
    for source in move.sources:
        host.link(source).handlers = {Method.COPY: answers_nothing}
    copying = host.copying(TARGET)
    host.loop.run(4 * ELECTION_S)
    assert {asked for asked, _ in host.asked} == {1}, "nothing waits for it"
    assert copying.lacks(switched(cluster))
    host.loop.run(2.5 * ELECTION_S)
    assert {asked for asked, _ in host.asked} == {1}
    host.loop.run(3 * ELECTION_S)
    assert {asked for asked, _ in host.asked} == {1, 2, 3}
    assert not host.states
    host.loop.run(4 * ELECTION_S)
    assert host.states


def test_while_the_order_waits_for_old_rows_to_go_a_peer_is_asked_for_its_state(cluster: Cluster) -> None:
    """G11: the copy does not begin before they are gone."""
    begin(cluster)
    host = Host(cluster, others=(2, 3))
    copying = host.copying(TARGET)
    moved: Any = copying._moved
    moved.has_old_rows = lambda start, end: True
    assert not copying.waits
    assert copying.lacks(switched(cluster))
    assert copying.waits
    host.loop.run(7.5 * ELECTION_S)
    assert not host.states
    host.loop.run(ELECTION_S)
    assert host.states == 1
    host.loop.run(2.5 * ELECTION_S)
    assert host.states == 3, "once an election timeout"
    assert copying.copier is None


def test_an_order_that_waits_for_long_says_so_once_a_minute_on_a_lone_host_too(cluster: Cluster) -> None:
    begin(cluster)
    host = Host(cluster)
    copying = host.copying(TARGET)
    moved: Any = copying._moved
    moved.has_old_rows = lambda start, end: True
    assert copying.lacks(switched(cluster))
    with capture_logs() as lines:
        host.loop.run(7 * ELECTION_S)
        assert not lines
        host.loop.run(70.0)
    waits = [line for line in lines if line["event"] == "the order waits here for keys that move"]
    assert [(line["shard"], line["move"], line["wrong_copies"]) for line in waits] == [(TARGET, 1, 0)] * 2
    assert waits[0]["waited_s"] >= 8 * ELECTION_S
    assert not host.states


def long_copy(cluster: Cluster) -> tuple[Host, Copying, Move]:
    for number in range(600):
        cluster.put(b"a/%03d" % number)
    move, host = begin(cluster), Host(cluster)
    return host, host.copying(TARGET), move


def test_a_copy_waits_while_its_host_has_no_room_for_it(cluster: Cluster) -> None:
    """It would fill the disk to the last byte, and end all of the host's processes; or use up the quota."""
    host, copying, _ = long_copy(cluster)
    host.loop.run(0.01)
    host.lacks[False] = "0 bytes are free"
    with capture_logs() as logs:
        host.loop.run(10.0)
    assert [said["why"] for said in logs] == ["0 bytes are free"], "once"
    assert copying.copier is not None
    assert not copying.copier.whole
    assert host.reports[-1].lag_ms == NO_ROOM_LAG_MS
    assert host.went == [TARGET], "what counts still of a copy before is given back first, once"
    asked = len(host.asked)
    host.loop.run(10.0)
    assert len(host.asked) == asked
    host.lacks[False] = ""
    with capture_logs() as logs:
        host.loop.run(3.0)
    assert ["has room again" in said["event"] for said in logs] == [True]
    assert host.reports[-1].lag_ms < 50
    assert copying.copied(base(cluster, len(KEYS) + 600))


@pytest.mark.parametrize("awaited", [False, True])
def test_a_copy_that_is_whole_or_awaited_needs_less_room(cluster: Cluster, awaited: bool) -> None:
    """The source's rows go behind its end alone."""
    host, copying, _ = long_copy(cluster)
    host.loop.run(0.01 if awaited else 3.0)
    host.lacks[False] = "few bytes are free"
    if awaited:
        assert copying.lacks(switched(cluster, 609))
    cluster.put(b"a/more")
    host.loop.run(3.0)
    assert copying.copied(base(cluster, len(KEYS) + 601))
    host.lacks[True] = "no bytes are free"
    cluster.put(b"a/less")
    host.loop.run(3.0)
    assert not copying.copied(base(cluster, len(KEYS) + 602))


def test_a_full_disk_ends_no_process_and_the_copy_goes_on_once_there_is_room(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RocksDB refuses a copy's write as a whole."""
    host, copying, _ = long_copy(cluster)
    host.loop.run(0.01)
    store = host.store(TARGET)
    write, full = store.write, True

    def refuses(batch: Any) -> None:
        if full:
            raise SyncFailed("write failed: IO error: No space left on device: While appending to file")
        write(batch)

    monkeypatch.setattr(store, "write", refuses)
    with capture_logs() as logs:
        host.loop.run(30.0)
    assert [said["log_level"] for said in logs if "disk is full" in said["event"]] == ["error"], "once"
    before = MovedKeys(store).copy
    assert before is not None
    assert 0 < before.live < len(KEYS) + 600
    assert host.reports[-1].lag_ms == NO_ROOM_LAG_MS, "the sequencer waits for it"
    full = False
    host.loop.run(15.0)
    assert host.reports[-1].lag_ms < 50
    assert copying.copied(base(cluster, len(KEYS) + 600))
    cluster.place(moved_item(Moved(1, False, 0, 0)))
    full = True
    copying.placed(cluster.table)
    host.loop.run(30.0)
    assert MovedKeys(store).copy is not None
    assert host.went == []
    full = False
    host.loop.run(15.0)
    assert MovedKeys(store).copy is None, "what is given up goes in the same way"
    assert host.went == [TARGET], "its space is given back"


def test_what_else_a_disk_does_to_a_copy_ends_the_process(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    host, _, _ = long_copy(cluster)
    host.loop.run(0.01)

    def fails(batch: Any) -> None:
        raise SyncFailed("write failed: IO error: Input/output error")

    monkeypatch.setattr(host.store(TARGET), "write", fails)
    with pytest.raises(SyncFailed):
        host.loop.run(3.0)
