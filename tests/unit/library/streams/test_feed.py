"""A watch's answers become whole revisions, each once."""

from __future__ import annotations

from typing import Any

import muster_client as m
from muster_client.pb import kv_pb2
from muster_client.pb import rpc_pb2 as pb
from muster_client.watch import Snapshot, WatchOptions, _Feed


async def no_snapshot() -> Snapshot:
    raise AssertionError("not asked for")


def feed(revision: int, *, progress: bool = False) -> _Feed:
    caller: Any = None
    return _Feed(caller, WatchOptions(m.prefix("a"), revision, progress=progress), no_snapshot)


def answer(*revisions: int, fragment: bool = False, watch_id: int = 0, header: int = 0) -> pb.WatchResponse:
    events = [kv_pb2.Event(kv=kv_pb2.KeyValue(key=b"a%d" % i, mod_revision=revision, version=1))
              for i, revision in enumerate(revisions)]  # fmt: skip
    return pb.WatchResponse(
        header=pb.ResponseHeader(revision=header), events=events, fragment=fragment, watch_id=watch_id)


def told(of: _Feed) -> list[int]:
    found = [event.revision for event in of.events]
    of.events.clear()
    return found


def test_a_revision_in_fragments_is_told_when_it_is_whole() -> None:
    of = feed(5)
    of._take(answer(5, 6, 6, fragment=True))
    assert (told(of), of.next) == ([5], 6)
    of._take(answer(6, fragment=True))
    assert (told(of), of.next) == ([], 6)
    of._take(answer(6, 7))
    assert (told(of), of.next) == ([6, 6, 6, 6, 7], 8)


def test_a_part_of_a_revision_is_dropped_with_its_stream() -> None:
    of = feed(5)
    of._take(answer(5, 6, fragment=True))
    of._leave()
    assert (told(of), of.next) == ([5], 6), "the next stream begins with the whole of 6"
    of._take(answer(6, 6))
    assert told(of) == [6, 6]


def test_what_was_told_is_not_told_again() -> None:
    of = feed(5)
    of._take(answer(5, 6))
    of._take(answer(5, 6, 7))
    assert told(of) == [5, 6, 7]


def test_progress_moves_a_quiet_watch() -> None:
    """By the server's own clock; what was asked for may be told too early by old servers."""
    of = feed(5, progress=True)
    of._take(answer(header=20))
    assert (told(of), of.next) == ([20], 21)
    of._take(answer(header=30, watch_id=-1))
    assert (told(of), of.next) == ([30], 21)
