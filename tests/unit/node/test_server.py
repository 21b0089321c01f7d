"""How a node takes what fronts ask."""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator
from types import SimpleNamespace
from typing import Any

import pytest
from structlog.testing import capture_logs

from cluster import errors
from cluster.effects import records
from cluster.errors import EtcdError
from cluster.faults import faults
from cluster.raft import Entry, EntryKind, IntegrityError, Ready
from cluster.repeats import Repeats
from cluster.wire.messages import LEADER, Method, Status
from node.links.fronts import FrontLink
from node.replica import applying
from node.replica.applying import Applies
from node.replica.pacing.pauses import GatheringTimer
from node.replica.roles.lone import LoneRole
from node.replica.roles.role import Kinds
from node.replica.server import Node
from node.storage import StorageCorruption
from tests.unit.proxy.fakes import ManualLoop


def taker(submit: Any) -> Any:
    """Of frames with writes."""
    return SimpleNamespace(taker=lambda requests: SimpleNamespace(submit=submit))


def node_whose_reads_raise(error: Exception, dropped: list[bytes]) -> Any:
    def request(*args: Any) -> None:
        raise error

    return SimpleNamespace(
        uncounted=taker(None), _requests_in_tick=0, handlers={},
        serve=SimpleNamespace(request=request),
        fronts=SimpleNamespace(drop=dropped.append), catch_up=lambda: None)


def ask(node: Any) -> None:
    Node.take_requests(node, FrontLink(b"front", lambda parts: True, b"", 1), [(1, Method.RANGE, 1000, b"")])


def test_a_read_that_finds_the_disk_damaged_ends_the_node_instead_of_the_front_that_asked() -> None:
    """The front would ask again, and again, and every time the writes on its link would have an unknown
    fate."""
    dropped: list[bytes] = []
    with pytest.raises(StorageCorruption, match="sst"):
        ask(node_whose_reads_raise(StorageCorruption("000012.sst: checksum mismatch"), dropped))
    assert dropped == []


def test_a_request_that_meets_a_fault_is_answered_and_the_link_that_all_share_goes_on() -> None:
    dropped: list[bytes] = []
    refused: list[EtcdError] = []
    node = node_whose_reads_raise(KeyError("no such method"), dropped)
    node.reads = SimpleNamespace(refuse=lambda link, rid, error: refused.append(error))
    before = faults.count
    ask(node)
    assert (dropped, [e.kind for e in refused], faults.count) == ([], [errors.INTERNAL_FAULT], before + 1)
    assert [str(error) for _, error in faults.take()] == ["'no such method'"]


def test_whatever_is_asked_has_the_replica_caught_up_first_and_writes_have_not() -> None:
    seen: list[str] = []
    node: Any = SimpleNamespace(
        uncounted=taker(lambda *args: seen.append("write")),
        _requests_in_tick=0,
        serve=SimpleNamespace(request=lambda *args: seen.append("read")),
        catch_up=lambda: seen.append("caught up"),
        watches=SimpleNamespace(subscribe=lambda *args: seen.append("watch")),
        confirmations=SimpleNamespace(ask=lambda *args: seen.append("question")),
    )
    link = FrontLink(b"front", lambda parts: True, b"", 1)
    Node.take_requests(node, link, [(rid, method, 1000, b"") for rid, method in enumerate(
        (Method.PUT, Method.RANGE, Method.READ_INDEX, Method.SUBSCRIBE, Method.STATUS))])
    assert seen == [
        "write",
        "caught up",
        "read",
        "caught up",
        "question",
        "caught up",
        "watch",
        "caught up",
        "read",
    ]


def test_a_link_that_an_early_answer_found_full_gets_nothing_more() -> None:
    """A subscription would stay for ever, with a queue that nobody empties."""
    seen: list[str] = []
    link = FrontLink(b"front", lambda parts: True, b"", 1)
    node: Any = SimpleNamespace(
        uncounted=taker(None), _requests_in_tick=0,
        catch_up=lambda: setattr(link, "alive", False),
        watches=SimpleNamespace(subscribe=lambda *args: seen.append("watch")))
    Node.take_requests(node, link, [(1, Method.SUBSCRIBE, 1000, b""), (2, Method.SUBSCRIBE, 1000, b"")])
    assert seen == []


class Told:
    """A node of which only what happens in which order is real."""

    def __init__(self, *, alone: bool = True, scheduled: bool = False, running: bool = False) -> None:
        self.seen: list[str] = []
        self.dirty = {"a front"}
        self._scheduled, self._running = scheduled, running
        self.role = SimpleNamespace(alone=alone)
        self.fronts = SimpleNamespace(flush=lambda: self.seen.append("answered"))
        self.mail = SimpleNamespace(came=self.came)
        self._broken, self.loop = Repeats(), SimpleNamespace(time=lambda: 0.0)
        self.peers = SimpleNamespace(received_failures=Counter())

    def came(self, member_id: int, data: bytes) -> bool:
        if data == b"broken":
            raise IntegrityError(data)
        return data != b"nothing to do"

    def wake(self) -> None:
        self.seen.append("later")

    def _run(self) -> None:
        self.seen.append("at once")


@pytest.mark.parametrize(("data", "state", "then"), [
    (b"an ack", {}, ["at once"]),
    (b"nothing to do", {}, []),
    (b"broken", {}, ["at once"]),
    # many requests: others may come in this turn of the loop that share its tick
    (bytes(5000), {}, ["later"]),
    (b"an ack", {"alone": False}, ["later"]),
    (b"an ack", {"scheduled": True}, ["later"]),
    (b"an ack", {"running": True}, ["later"]),
])
def test_a_lone_request_goes_on_in_the_call_that_brings_a_peers_frame(
    data: bytes, state: dict[str, bool], then: list[str]
) -> None:
    node: Any = Told(**state)
    with capture_logs():
        Node._peer_frame(node, 7, 0x52, data)
    assert node.seen == then


def test_frames_of_a_peer_that_cannot_be_read_are_logged_now_and_then() -> None:
    """Each time, they fill a log as fast as a link brings them."""
    node: Any = Told()
    with capture_logs() as logged:
        for member_id in (7, 8):
            for _ in range(1000):
                Node._peer_frame(node, member_id, 0x52, b"broken")
    assert [line["peer"] for line in logged] == ["7", "8"]
    assert node.peers.received_failures == {7: 1000, 8: 1000}


def test_a_fault_in_a_tick_that_a_peers_frame_began_is_not_taken_for_a_broken_frame() -> None:
    node: Any = Told()

    def run() -> None:
        raise ValueError("entry 7 does not follow 5")

    node._run = run
    with pytest.raises(ValueError, match="entry 7"):
        Node._peer_frame(node, 7, 0x52, b"an append")


def test_an_answer_that_is_alone_leaves_before_the_rest_of_the_tick() -> None:
    for alone in (True, False):
        node: Any = Told(alone=alone)
        Node.answer_alone(node)
        assert node.seen == ["answered"] * alone
    node.dirty = set()
    node.role.alone = True
    Node.answer_alone(node)
    assert node.seen == []


def applying_nothing() -> Generator[Any, None, Any]:
    yield from ()
    return SimpleNamespace(grown=[])


class Behind:
    """A replica whose log is committed far beyond what it has applied."""

    def __init__(self, entries: int, entry_bytes: int) -> None:
        self.loop = ManualLoop()
        self.fatal = SimpleNamespace(done=lambda: False)
        self.log = [
            Entry(i, 1, EntryKind.RECORD, records.delete(bytes(entry_bytes))) for i in range(1, entries + 1)
        ]
        self.runs: list[int] = []
        self.turns = 0
        self.applied_index = 0
        self.raft = SimpleNamespace(log_entries=lambda first, last: self.log[first - 1 : last])
        self.store = SimpleNamespace(bootstrap=lambda: (1, 1, 2), apply_slices=self.slices)
        self.writes = SimpleNamespace(prepared=lambda index, term: None)
        self.watches = SimpleNamespace(active=False)
        self.handlers: dict[int, Any] = {}
        loop: Any = self.loop
        node: Any = self
        self.gathering = GatheringTimer(loop, LoneRole(node, Kinds()).apply, lambda: False, self.wake)
        self.applies = Applies(loop, lambda events: None, self.gathering.go_on)

    def slices(self, run: list[tuple[int, int, bytes]], **_: Any) -> Any:
        self.runs.append(len(run))
        return applying_nothing()

    def wake(self) -> None:
        self.turns += 1

    def applied_run(self, run: list[tuple[int, int, bytes]], applied: object) -> None:
        self.applied_index = run[-1][0]


@pytest.mark.parametrize(("entries", "entry_bytes", "runs"), [
    (600, 10, [256, 256, 88]),  # many entries
    (10, applying._RUN_BYTES // 4, [4, 4, 2]),  # large ones
    (256, 10, [256]),
])
def test_who_is_far_behind_serves_the_loop_after_every_long_run(
    entries: int, entry_bytes: int, runs: list[int]
) -> None:
    node = Behind(entries, entry_bytes)
    node.gathering.take(entries)
    assert node.runs == runs[:1], "one run, and then the loop's turn"
    node.loop.run()
    assert (node.runs, node.turns, node.applied_index) == (runs, len(runs) - 1, entries)


def test_commits_while_a_replica_catches_up_make_its_turns_no_longer() -> None:
    node = Behind(256 * 10, 10)
    node.gathering.take(256 * 3)
    for last in range(256 * 10 - 5, 256 * 10 + 1):
        node.gathering.take(last)
    taken = len(node.runs)
    node.loop.turn()
    assert len(node.runs) == taken + 1, "one turn behind all of them"
    node.loop.run()
    assert node.applied_index == 256 * 10


def test_what_is_committed_while_a_replica_catches_up_is_applied_in_its_place() -> None:
    node = Behind(600, 10)
    node.gathering.take(500)
    node.gathering.take(600)
    node.loop.run()
    assert (sum(node.runs), node.applied_index) == (600, 600)


def test_a_node_that_stops_applies_no_further_run() -> None:
    node = Behind(600, 10)
    node.gathering.take(600)
    node.gathering.stop()
    node.loop.run()
    assert (node.runs, node.turns) == ([256], 0)


@pytest.mark.parametrize(("settled", "evaluated"), [(True, 1), (False, 2)])
def test_a_tick_evaluates_again_what_its_first_round_let_in_and_only_that(
    settled: bool, evaluated: int
) -> None:
    seen: list[str] = []
    handed: list[Any] = ["what Raft wants done", None, None]
    node: Any = SimpleNamespace(
        closed=False, writes=SimpleNamespace(leader=object(), uncommitted=0, ready=False),
        raft=SimpleNamespace(ready=lambda: handed.pop(0)), handle=seen.append, answer_alone=lambda: None,
        role=SimpleNamespace(
            settled=settled, evaluate=lambda: seen.append("evaluated"), finish=lambda: None),
        mail=SimpleNamespace(send=lambda: None), fronts=SimpleNamespace(flush=lambda: None),
        clock=SimpleNamespace(look=lambda: None), large=SimpleNamespace(look=lambda: None),
        confirmations=SimpleNamespace(open=False),
        _requests_in_tick=1, dirty=set(), _answered_early=False)
    Node._run(node)
    assert seen[:2] == ["evaluated", "what Raft wants done"]
    assert seen.count("evaluated") == evaluated


@pytest.mark.parametrize(("ready", "asked"), [(False, False), (True, False), (False, True)])
def test_a_store_of_one_shard_is_settled_while_no_write_and_no_question_could_leave(
    ready: bool, asked: bool
) -> None:
    node: Any = SimpleNamespace(
        raft=None, writes=SimpleNamespace(ready=ready), confirmations=SimpleNamespace(asked=asked),
        handlers={})
    assert LoneRole(node, Kinds()).settled is not (ready or asked)


NOT_LEADING = Status.NOT_LEADER, LEADER.pack(7, 3)


@pytest.mark.parametrize(("method", "answer"), [
    *[(method, NOT_LEADING) for method in (
        Method.WIDE, Method.LONE, Method.QUERY, Method.REPORT, Method.FEED, Method.FEED_ACK, Method.COPIED)],
    *[(method, (Status.UNKNOWN, b"")) for method in (Method.COPY, Method.DURABLE)]])
def test_a_node_that_has_not_heard_of_other_shards_refuses_what_their_nodes_ask(
    method: Method, answer: tuple[Status, bytes]
) -> None:
    """A host that lost its disks led: the others' leaders report to its node 0, which begins as an only
    shard's. Copies of what moves away from shard 0 ask each host's node 0."""
    dirty: list[object] = []
    node: Any = SimpleNamespace(
        raft=SimpleNamespace(is_leader=False, leader_id=7, term=3), writes=None, handlers={},
        uncounted=taker(None), _requests_in_tick=0, catch_up=lambda: None,
        mark_dirty=dirty.append)
    LoneRole(node, Kinds())
    told: list[object] = []
    link: Any = SimpleNamespace(alive=True, answer=lambda *answer: told.append(answer))
    before = faults.count
    Node.take_requests(node, link, [(5, method, 1000, b"")])
    assert told == [(5, *answer)]
    assert dirty == [link]
    assert faults.count == before


@pytest.mark.parametrize(("busy", "held", "told"), [
    (False, [], []),  # what is committed alone is on the disk already: nobody is told of a sync
    (False, ["an ack"], ["synced"]),
    (True, [], ["asked for a sync"]),
    (True, ["an ack"], ["asked for a sync"]),
])
def test_of_what_needs_no_sync_only_those_hear_who_wait_for_one(
    busy: bool, held: list[Any], told: list[str]
) -> None:
    seen: list[str] = []
    node: Any = SimpleNamespace(
        mail=SimpleNamespace(queue=lambda messages: None, hold=lambda *args: None,
                             holds_before=lambda sequence: False),
        syncer=SimpleNamespace(busy=busy, request=lambda *args, **kw: seen.append("asked for a sync")),
        _persisted=lambda sequence: seen.append("synced"), role=SimpleNamespace(gathers=False),
        gathering=SimpleNamespace(take=lambda last: None), _notes=False)
    Node.handle(node, Ready(7, None, [], [], held, False, (3, 4), [], [], False, [], None))
    assert seen == told


def test_what_is_committed_is_noted_before_it_is_applied() -> None:
    """I25, and only where a start needs it: other shards apply what the order's records name."""
    seen: list[tuple[str, int]] = []
    node: Any = SimpleNamespace(
        mail=SimpleNamespace(queue=lambda messages: None, holds_before=lambda sequence: False),
        syncer=SimpleNamespace(busy=False), role=SimpleNamespace(gathers=False), _notes=True,
        log=SimpleNamespace(note_committed=lambda index: seen.append(("noted", index))),
        gathering=SimpleNamespace(take=lambda last: seen.append(("applied", last))))
    ready = Ready(7, None, [], [], [], False, (3, 4), [], [], False, [], None)
    Node.handle(node, ready)
    assert seen == [("noted", 4), ("applied", 4)]
    node._notes = False
    Node.handle(node, ready)
    assert seen[2:] == [("applied", 4)]
