"""What watchers are told is read in runs of messages that are alike: against protobuf, message by message."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from muster_client.wire.http2 import frames

from bench.client import Connection
from bench.client.runs import run_at
from bench.load import run
from bench.load.spec import Spec
from bench.load.traffic.watchers import Watchers
from cluster.pb import rpc_pb2 as pb

WATCHERS = 150  # on a stream: ids of one and two bytes, and 0


def response(watch_id: int, revisions: list[int], header_revision: int = 7) -> pb.WatchResponse:
    made = pb.WatchResponse(watch_id=watch_id)
    made.header.cluster_id = made.header.member_id = 2**63 + 5
    made.header.revision = header_revision
    made.header.raft_term = 3
    for revision in revisions:
        event = made.events.add()
        event.kv.key = b"k"
        event.kv.mod_revision = revision
        event.kv.value = bytes(20)
    return made


def framed(made: pb.WatchResponse) -> bytes:
    body = made.SerializeToString()
    return b"\0" + len(body).to_bytes(4, "big") + body


@pytest.mark.parametrize("watch_id", [0, 1, 127, 128, 9_999, 2**40])
def test_what_lies_behind_the_watch_id_reads_alone(watch_id: int) -> None:
    made = response(watch_id, [7, 8, 9])
    data = framed(made)
    run = run_at(data, 0, len(data), 5, 10)
    assert run is not None
    (name,), tail, end = run
    assert pb.WatchResponse.FromString(name).watch_id == watch_id
    assert pb.WatchResponse.FromString(tail).events == made.events
    assert end == len(data)
    assert run_at(data[:-1], 0, len(data) - 1, 5, 10) is None


def test_responses_that_say_something_else_are_left_to_protobuf() -> None:
    created, cancelled, progress, fragment = (
        response(3, []), response(3, []), response(-1, []), response(3, [7]),
    )
    created.created = cancelled.canceled = fragment.fragment = True
    for made in (created, cancelled, progress, fragment, pb.WatchResponse(), response(3, [])):
        data = framed(made)
        assert run_at(data, 0, len(data), 5, 10) is None


@pytest.mark.parametrize("lead", [5, 14])
@pytest.mark.parametrize("seed", range(20))
def test_a_run_is_what_the_messages_say_one_by_one(lead: int, seed: int) -> None:
    r = random.Random(seed)
    messages = []
    for revision in range(7, 20):
        made = [
            response(watch_id, [revision], revision // 2)
            for watch_id in r.sample(range(300), r.randint(1, 40))
        ]
        messages += [m for m in made for _ in range(r.choice((1, 1, 1, 1, 2)))]
    pieces = [framed(m) for m in messages]
    data = b"".join(pieces if lead == 5 else [frames.frame(frames.DATA, 0, 1, piece) for piece in pieces])
    at, told = 0, []
    while at < len(data):
        most = r.randint(1, 300)
        run = run_at(data, at, len(data), lead, most)
        assert run is not None
        ids, tail, at = run
        assert 0 < len(ids) <= most
        told += [pb.WatchResponse.FromString(name + tail) for name in ids]
    assert [(m.watch_id, m.events) for m in told] == [(m.watch_id, m.events) for m in messages]


class Silent(asyncio.Transport):
    """Takes everything."""

    def write(self, data: object) -> None:
        pass

    def close(self) -> None:
        pass


class OneConnection:
    """A client of a server that the test speaks for."""

    def __init__(self) -> None:
        self.connection = Connection("server")
        self.connection.connection_made(Silent())
        self.connection.data_received(frames.settings(()))
        self.connections = [self.connection]


def told(revisions: list[int], ids: list[int], r: random.Random) -> list[bytes]:
    """What each of these watchers is told of some puts, in frames as etcd makes them, or fewer, or cut
    anywhere."""
    pieces = [framed(response(watch_id, revisions)) for watch_id in ids]
    way = r.randrange(3)
    if way == 0:
        payloads = pieces
    elif way == 1:
        at_once = r.randint(1, len(pieces))
        payloads = [b"".join(pieces[at : at + at_once]) for at in range(0, len(pieces), at_once)]
    else:
        joined = b"".join(pieces)
        payloads = [joined[at : at + 100] for at in range(0, len(joined), 100)]
    return [frames.frame(frames.DATA, 0, 1, payload) for payload in payloads]


def counted(said: Callable[[random.Random], list[bytes]], seed: int) -> Watchers:
    """The watchers of one stream, after the server has said this, in reads cut anywhere."""
    r = random.Random(seed)
    spec = Spec("watch", (), streams=1, watchers_per_stream=WATCHERS, timeout_s=5)

    async def work() -> Watchers:
        client = OneConnection()
        watchers = Watchers(spec, client)  # type: ignore[arg-type]
        creating = asyncio.ensure_future(watchers.create())
        await asyncio.sleep(0)  # it has asked
        for watch_id in range(WATCHERS):
            created = response(watch_id, [])
            created.created = True
            client.connection.data_received(frames.frame(frames.DATA, 0, 1, framed(created)))
        await creating
        data = b"".join(said(r))
        at = 0
        while at < len(data):
            size = r.choice((1, 50, 1_000, 20_000))
            client.connection.data_received(data[at : at + size])
            at += size
        assert client.connection.lost is None
        return watchers

    return asyncio.run(work())


@pytest.mark.parametrize("seed", range(9))
def test_every_event_is_counted_once_for_each_watcher_however_it_comes(seed: int) -> None:
    def said(r: random.Random) -> list[bytes]:
        found, revision = [], 2
        while revision < 40:
            group = list(range(revision, min(40, revision + r.randint(1, 5))))
            revision = group[-1] + 1
            found += told(group, r.sample(range(WATCHERS), WATCHERS), r)
        return found

    watchers = counted(said, seed)
    assert watchers.errors == Counter()
    assert watchers.received == 38 * WATCHERS == sum(watchers.samples_us.values())
    assert len(watchers.to_all_us) == 38


def test_a_put_is_at_all_watchers_once_those_of_the_slowest_process_have_it() -> None:
    def told_by(process: int, to_all_us: dict[int, int]) -> dict[str, Any]:
        return {"pid": process, "user_s": 0.1, "system_s": 0.1, "max_rss_bytes": 1, "reconnects": 0,
                "started_ns": 0, "ended_ns": 10**9, "latencies": [], "errors": {}, "timeline": [],
                "extra": {}, "to_all_us": [list(one) for one in to_all_us.items()]}

    spec = Spec("watch", ("a:1",), total=2)
    found = run._merge(spec, [told_by(1, {7: 1000, 8: 9000}), told_by(2, {7: 5000, 8: 3000})])
    assert found["extra"]["to_all"]["count"] == 2
    assert found["extra"]["to_all"]["latency_ms"]["mean"] == 7.0


@pytest.mark.parametrize(("twice", "errors"), [
    ([3], {"events out of order": 1}),  # to a watcher that had them, within a run of others
    ([3, 3], {"events out of order": 2}),
])
def test_an_event_that_comes_again_is_found(twice: list[int], errors: dict[str, int]) -> None:
    everybody = list(range(WATCHERS))
    for seed in range(3):
        watchers = counted(lambda r: told([2], everybody, r) + told([3], everybody + twice, r), seed)
        assert watchers.errors == errors
        watchers = counted(lambda r: told([3], everybody, r) + told([2], twice, r), seed)
        assert watchers.errors == errors


def test_events_in_the_wrong_order_within_a_response_are_found() -> None:
    assert counted(lambda r: told([3, 2], [5], r), 0).errors == {"events out of order": 1}


def test_an_event_that_is_missing_and_one_for_nobody_are_found() -> None:
    watchers = counted(lambda r: told([2], list(range(1, WATCHERS)), r) + told([3], [9_999], r), 0)
    assert watchers.received == WATCHERS - 1
    assert watchers.to_all_us == {}
    assert watchers.errors == {"events for nobody": 1}
