"""Answers as servers tell them, over streams that break."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import grpc
import pytest
from muster_client import Client, LeaseNotFound, MusterError, Unavailable, sync
from muster_client.admin import snapshots
from muster_client.pb import kv_pb2
from muster_client.pb import rpc_pb2 as pb
from muster_client.raw import Method
from muster_client.raw.watching import _Answered

from tests.unit.library.scripted import scripted

Context = grpc.ServicerContext
PUT = Method("KV/Put", pb.PutResponse)


def header(revision: int) -> pb.ResponseHeader:
    return pb.ResponseHeader(revision=revision, member_id=7)


def event(revision: int, *, deleted: bool = False) -> kv_pb2.Event:
    kind = kv_pb2.Event.DELETE if deleted else kv_pb2.Event.PUT
    value = b"" if deleted else b"%d" % revision
    return kv_pb2.Event(type=kind, kv=kv_pb2.KeyValue(key=b"e/1", value=value, mod_revision=revision))


class Watches:
    """Each stream has the next list of answers, and then breaks. ``asked``: first revisions, tokens."""

    def __init__(self, *streams: list[pb.WatchResponse]) -> None:
        self._streams = list(streams)
        self.asked: list[int] = []
        self.tokens: list[str] = []

    def answers(self, requests: Iterator[pb.WatchRequest], context: Context) -> Iterator[pb.WatchResponse]:
        self.asked.append(next(requests).create_request.start_revision)
        self.tokens.append(dict(context.invocation_metadata()).get("token", ""))
        yield from self._streams.pop(0)
        context.abort(grpc.StatusCode.UNAVAILABLE, "away")


def created(revision: int) -> pb.WatchResponse:
    return pb.WatchResponse(header=header(revision), created=True)


COMPACTED = pb.WatchResponse(header=header(30), canceled=True, compact_revision=20)


def test_a_watch_tells_answers_whole_and_goes_on_behind_the_last() -> None:
    """From now on, behind events, behind progress; what ends the watch is an answer, too."""
    events = pb.WatchResponse(header=header(9), events=[event(8), event(9)])
    progress = pb.WatchResponse(header=header(12))
    watches = Watches([created(5)], [created(9), events], [created(12), progress], [created(13), COMPACTED])
    ended: list[MusterError] = []

    async def main(address: str) -> list[pb.WatchResponse]:
        async with Client(address) as client, asyncio.timeout(30):
            watch = client.raw.watch(pb.WatchCreateRequest(key=b"e/1"), on_again=ended.append)
            found = [answer async for answer in watch]
            assert watch.endpoint == address
            return found

    with scripted({"Watch/Watch": watches.answers}) as address:
        assert asyncio.run(main(address)) == [events, progress, COMPACTED]
        assert {error.endpoint for error in ended} == {address}
    assert watches.asked == [0, 6, 10, 13]
    assert [type(error) for error in ended] == [Unavailable] * 3


@pytest.mark.parametrize("again", [
    [(8, 8, True), (8, False)], [(8, True), (8, True), (8, False)], [(8, 8, 8, 9, False)],
    [(8, 8, 8, True), (9, False)],
])
def test_fragments_that_were_told_are_not_told_again(again: list[tuple[int, ...]]) -> None:
    """Two of three events of revision 8 have come when the stream breaks."""
    def told(*given: int) -> pb.WatchResponse:
        *revisions, fragment = given
        return pb.WatchResponse(
            header=header(9), events=[event(revision) for revision in revisions], fragment=bool(fragment))

    watches = Watches(
        [created(6), told(7, 8, True), told(8, True)], [created(9), *(told(*one) for one in again)],
        [created(9), COMPACTED])

    async def main(address: str) -> list[pb.WatchResponse]:
        async with Client(address) as client, asyncio.timeout(30):
            return [one async for one in client.raw.watch(pb.WatchCreateRequest(key=b"e/1", fragment=True))]

    with scripted({"Watch/Watch": watches.answers}) as address:
        found = asyncio.run(main(address))
    wanted = [7, 8, 8, 8] + [9] * any(9 in one for one in again)
    assert [event.kv.mod_revision for answer in found for event in answer.events] == wanted
    assert not found[-2].fragment
    assert watches.asked == [0, 8, wanted[-1] + 1]


def test_streams_that_end_at_once_are_not_renewed_at_once() -> None:
    watches = Watches(*[[created(5)]] * 1000)

    async def main(address: str) -> None:
        async with Client(address) as client:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(2), client.raw.watch(pb.WatchCreateRequest(key=b"a")) as watch:
                    await watch.next()

    with scripted({"Watch/Watch": watches.answers}) as address:
        asyncio.run(main(address))
    assert 2 < len(watches.asked) < 30


@pytest.mark.parametrize(("status", "again"), [
    (grpc.StatusCode.FAILED_PRECONDITION, 1), (grpc.StatusCode.UNAVAILABLE, 2)])
def test_a_lone_renewal_is_tried_again_as_far_as_is_wanted(status: grpc.StatusCode, again: int) -> None:
    met: list[MusterError] = []

    def on_again(error: MusterError) -> None:
        met.append(error)
        if not isinstance(error, Unavailable) or len(met) == again:
            raise error

    def answers(requests: Iterator[pb.LeaseKeepAliveRequest], context: Context) -> Iterator[None]:
        context.abort(status, "not here")
        yield

    with (scripted({"Lease/LeaseKeepAlive": answers}) as address, sync.Client(address) as client,
          pytest.raises(MusterError, match="not here")):
        client.raw.renew(7, timeout=30, on_again=on_again)
    assert len(met) == again


def test_a_snapshot_takes_its_time_to_begin_and_then_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    assert snapshots._SILENT_S >= 600  # a busy host may have to make again all that it has sent
    monkeypatch.setattr(snapshots, "_SILENT_S", 0.3)
    ended = threading.Event()

    def answers(request: pb.SnapshotRequest, context: Context) -> Iterator[pb.SnapshotResponse]:
        assert not ended.wait(1.0)  # it is made
        yield pb.SnapshotResponse(blob=b"first", remaining_bytes=9)
        ended.wait(30)

    try:
        with scripted({"Maintenance/Snapshot": answers}) as address, sync.Client(address) as client:
            told = client.raw.snapshot()
            assert next(told).blob == b"first"
            with pytest.raises(Unavailable, match="sends nothing"):
                next(told)
            ended.set()
    finally:
        ended.set()


def test_what_is_raised_before_the_next_stream_ends_the_watch() -> None:
    def end(error: MusterError) -> None:
        raise error

    watches = Watches([created(5)])
    with scripted({"Watch/Watch": watches.answers}) as address, sync.Client(address) as client:
        watch = client.raw.watch(pb.WatchCreateRequest(key=b"a"), on_again=end)
        with pytest.raises(Unavailable, match="away"):
            next(watch)
        with pytest.raises(Unavailable, match="away"):
            watch.read(10)


@pytest.mark.parametrize(("reason", "streams"), [
    ("etcdserver: invalid auth token", 2),
    ("rpc error: code = PermissionDenied desc = etcdserver: permission denied", 2),
    ("etcdserver: permission denied", 2),
    ("etcdserver: mvcc: other", 1)])
def test_a_refusal_for_the_token_is_answered_by_another_token(reason: str, streams: int) -> None:
    """Etcd 3.4 and 3.5 say of stale tokens that nothing is permitted. All else is the reader's to judge."""
    refusal = pb.WatchResponse(header=header(3), created=True, canceled=True, cancel_reason=reason)
    last = COMPACTED if streams == 2 else refusal
    watches = Watches([refusal], [created(3), COMPACTED])
    logins: list[str] = []

    def authenticate(request: pb.AuthenticateRequest, context: Context) -> pb.AuthenticateResponse:
        logins.append(request.name)
        return pb.AuthenticateResponse(token=f"t{len(logins)}")

    methods = {"Watch/Watch": watches.answers, "Auth/Authenticate": authenticate}
    with scripted(methods) as address, sync.Client(address, user="u", password="p") as client:
        assert list(client.raw.watch(pb.WatchCreateRequest(key=b"a"))) == [last]
    assert watches.tokens == [f"t{n}" for n in range(1, streams + 1)]


def test_a_lease_is_renewed_until_it_is_gone() -> None:
    """Over streams that break; each answer is told with its header."""
    asked: list[int] = []
    answers = [pb.LeaseKeepAliveResponse(header=header(n), ID=5, TTL=1 if n < 3 else 0) for n in (1, 2, 3)]

    def renew(
        requests: Iterator[pb.LeaseKeepAliveRequest], context: Context
    ) -> Iterator[pb.LeaseKeepAliveResponse]:
        asked.append(next(requests).ID)
        if len(asked) == 2:
            context.abort(grpc.StatusCode.UNAVAILABLE, "away")
        yield answers[0 if len(asked) == 1 else min(len(asked) - 2, 2)]

    ended: list[MusterError] = []
    with scripted({"Lease/LeaseKeepAlive": renew}) as address, sync.Client(address) as client:
        assert list(client.raw.renewals(5, on_again=ended.append)) == answers
        assert client.raw.renew(5) == answers[-1]
        for step in (client.renew, client.keep):
            with pytest.raises(LeaseNotFound):
                step(5)
    assert asked == [5] * 7
    assert [(str(error), error.endpoint) for error in ended] == [("away", address)]


def test_a_lease_of_another_program_is_kept() -> None:
    asked: list[int] = []

    def renew(
        requests: Iterator[pb.LeaseKeepAliveRequest], context: Context
    ) -> Iterator[pb.LeaseKeepAliveResponse]:
        asked.append(next(requests).ID)
        yield pb.LeaseKeepAliveResponse(ID=5, TTL=2 if len(asked) < 3 else 0)

    with scripted({"Lease/LeaseKeepAlive": renew}) as address, sync.Client(address) as client:
        lease = client.keep(5)
        assert (lease.id, lease.ttl_s, lease.lost) == (5, 2, False)
        assert "revoked" in lease.wait_lost(30)
    assert len(asked) == 3


def test_an_election_is_observed_with_its_headers() -> None:
    """A first candidate, its next value, and its end; then nobody leads, and that revision is compacted."""
    ranges: list[int] = []

    def found(request: pb.RangeRequest, context: Context) -> pb.RangeResponse:
        ranges.append(request.limit)
        if len(ranges) > 2:
            context.abort(grpc.StatusCode.PERMISSION_DENIED, "etcdserver: permission denied")
        return pb.RangeResponse(header=header(4))

    of_leader = [event(8), event(9, deleted=True)]
    watches = Watches(
        [created(4), pb.WatchResponse(header=header(6), events=[event(6)])],
        [created(8), pb.WatchResponse(header=header(9), events=of_leader)],
        [COMPACTED])
    methods = {"KV/Range": found, "Watch/Watch": watches.answers}
    with scripted(methods) as address, sync.Client(address) as client:
        told = client.raw.observe("e")
        shown = [next(told) for _ in range(2)]
        with pytest.raises(MusterError, match="permission denied"):
            next(told)
    assert [(one.header.revision, one.kvs[0].value) for one in shown] == [(6, b"6"), (9, b"8")]
    assert (watches.asked, ranges) == ([5, 7, 5], [1, 1, 1])


def test_a_leader_that_is_there_is_told_as_its_values_are() -> None:
    """As clientv3 does: without what a range says besides, of the candidates behind it."""
    leader = event(4).kv
    found = pb.RangeResponse(header=header(5), kvs=[leader], more=True, count=2)
    methods = {"KV/Range": lambda request, context: found, "Watch/Watch": Watches([]).answers}
    with scripted(methods) as address, sync.Client(address) as client:
        assert next(client.raw.observe("e")) == pb.RangeResponse(header=header(5), kvs=[leader])


def test_a_guard_sees_each_request_first() -> None:
    """Of calls and of streams, and of a namespace."""
    seen: list[str] = []

    def check(method: str, request: object) -> None:
        seen.append(f"{method} {type(request).__name__}")
        raise MusterError("not here")

    with scripted({}) as address, sync.Client(address) as client:
        client.raw.guard(check)
        steps = (
            lambda: client.put("a", "b"), lambda: client.renew(5),
            lambda: next(client.watch("a", revision=1)), lambda: next(client.raw.snapshot()),
            lambda: client.raw.call(PUT, pb.PutRequest()),
            lambda: client.namespace("n").put("a", "b"),
            lambda: next(client.namespace("n").watch("a", revision=1)))
        for step in steps:
            with pytest.raises(MusterError, match="not here"):
                step()
    put, watch = "KV/Put PutRequest", "Watch/Watch WatchRequest"
    keep, snapshot = "Lease/LeaseKeepAlive LeaseKeepAliveRequest", "Maintenance/Snapshot SnapshotRequest"
    assert seen == [put, keep, watch, snapshot, put, put, watch]


def test_events_behind_a_revision_in_fragments_are_all_told() -> None:
    caller: Any = SimpleNamespace(space=None)
    answers = _Answered(caller, pb.WatchCreateRequest(key=b"e/1", start_revision=10, fragment=True), None)
    for revisions, fragment in (((10, 10), True), ((10,), False), ((11, 11, 11), False)):
        answers._take(pb.WatchResponse(
            header=header(11), events=[event(revision) for revision in revisions], fragment=fragment))
    assert [len(one.events) for one in answers.events] == [2, 1, 3]
