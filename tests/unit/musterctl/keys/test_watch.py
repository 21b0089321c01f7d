"""``watch`` as a process: what ends it, and what it takes from the environment."""

from __future__ import annotations

import os
import select
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import grpc
import pytest
from muster_client.pb import kv_pb2
from muster_client.pb import rpc_pb2 as pb

from tests.unit.library.scripted import refusing, say_nothing, scripted
from tools.musterctl.printing import print_json

HEADER = pb.ResponseHeader(revision=3)
NO_LEADER = "etcdserver: no leader"
FORMS = (  # of the answer that clientv3 makes up for a watch that it could not begin
    ("json", b'{"Header":{},"Events":null,"CompactRevision":0,"Canceled":true,"Created":false}\n'),
    ("fields", b'"ClusterID" : 0\n"MemberID" : 0\n"Revision" : 0\n"RaftTerm" : 0\n'),
    ("protobuf", b"\x0a\x00\x20\x01"), ("simple", b""))


def one_event(
    requests: Iterator[pb.WatchRequest], context: grpc.ServicerContext
) -> Iterator[pb.WatchResponse]:
    """Of what is asked for, with its end as the value."""
    asked = next(requests).create_request
    yield pb.WatchResponse(header=HEADER, created=True)
    kv = kv_pb2.KeyValue(key=asked.key, value=asked.range_end, mod_revision=3)
    yield pb.WatchResponse(header=HEADER, events=[kv_pb2.Event(kv=kv)])
    say_nothing(context)


def compacted(
    requests: Iterator[pb.WatchRequest], context: grpc.ServicerContext
) -> Iterator[pb.WatchResponse]:
    next(requests)
    yield pb.WatchResponse(header=HEADER, created=True)
    yield pb.WatchResponse(header=HEADER, canceled=True, compact_revision=9)


def watching(
    address: str, *flags: str, out: int | IO[bytes] = subprocess.PIPE, **environ: str
) -> subprocess.Popen[bytes]:
    line = [sys.executable, "-m", "tools.musterctl", "--endpoints", address, "watch", *flags]
    return subprocess.Popen(
        line, stdin=subprocess.PIPE, stdout=out, stderr=subprocess.PIPE, env={**os.environ, **environ})


def run_to_its_end(address: str, *flags: str) -> subprocess.CompletedProcess[bytes]:
    process = watching(address, *flags)
    try:
        out, said = process.communicate(timeout=30)
    finally:
        process.kill()
        process.communicate()
    return subprocess.CompletedProcess((), process.returncode, out, said)


@pytest.mark.parametrize(("form", "out", "code", "said"), [
    ("table", os.devnull, 4, b"Error: table not supported as output format\n"),
    ("simple", "/dev/full", 1, b"Error: writing the output: No space left on device\n"),
])  # fmt: skip
def test_what_ends_a_watch_ends_the_interactive_one(form: str, out: str, code: int, said: bytes) -> None:
    """The events come in threads; one that fails was followed by silence."""
    with scripted({"Watch/Watch": one_event}) as address, open(out, "wb") as output:
        process = watching(address, "-i", "-w", form, out=output)
        try:
            assert process.stdin is not None
            assert process.stderr is not None
            process.stdin.write(b"watch a\n")
            process.stdin.flush()
            assert process.wait(30) == code
            assert process.stderr.read() == said
        finally:
            process.kill()
            process.communicate()


def test_a_command_of_one_watch_keeps_no_other_waiting(tmp_path: Path) -> None:
    """In interactive mode each has a thread of its own. The command ends once the other watch was shown."""
    ends = tmp_path / "ends"
    os.mkfifo(ends)
    with scripted({"Watch/Watch": one_event}) as address:
        process = watching(address, "-i")
        try:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(b"watch a -- cat %s\n" % bytes(ends))
            process.stdin.flush()
            assert [process.stdout.readline() for _ in range(3)] == [b"PUT\n", b"a\n", b"\n"]
            process.stdin.write(b"watch b\n")
            process.stdin.flush()
            ready, _, _ = select.select([process.stdout], [], [], 30)
            assert ready, "nothing of the other watch was shown"
            assert [process.stdout.readline() for _ in range(3)] == [b"PUT\n", b"b\n", b"\n"]
            ends.write_bytes(b"ended\n")
            assert process.stdout.readline() == b"ended\n"
        finally:
            os.close(os.open(ends, os.O_RDWR))  # a command that still waits for it ends
            process.kill()
            process.communicate()


@pytest.mark.parametrize(("environ", "shown"), [
    ({"MUSTERCTL_WATCH_KEY": "a"}, [b"a", b""]),
    ({"MUSTERCTL_WATCH_KEY": "a", "MUSTERCTL_WATCH_RANGE_END": "b"}, [b"a", b"b"]),
    ({"MUSTERCTL_WATCH_KEY": "a", "ETCDCTL_WATCH_KEY": "c"}, [b"a", b""]),
    ({"ETCDCTL_WATCH_KEY": "c", "ETCDCTL_WATCH_RANGE_END": "d"}, [b"c", b"d"]),
])  # fmt: skip
def test_a_watch_takes_its_key_from_the_environment(environ: dict[str, str], shown: list[bytes]) -> None:
    with scripted({"Watch/Watch": one_event}) as address:
        process = watching(address, **environ)
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"PUT\n"
            assert [process.stdout.readline().rstrip(b"\n") for _ in shown] == shown
        finally:
            process.kill()
            process.communicate()


@pytest.mark.parametrize("prefix", ["ETCDCTL", "MUSTERCTL"])
def test_a_range_without_a_key_is_named(prefix: str) -> None:
    process = watching("127.0.0.1:1", **{f"{prefix}_WATCH_RANGE_END": "b"})
    _, said = process.communicate(timeout=30)
    assert process.returncode == 128
    assert said.decode() == f'Error: {prefix}_WATCH_KEY is empty but got {prefix}_WATCH_RANGE_END="b"\n'


@pytest.mark.parametrize(("form", "shown"), FORMS)
def test_a_watch_that_cannot_begin_ends_where_there_is_no_leader(form: str, shown: bytes) -> None:
    """At once, as etcdctl's. Another break is mended."""
    asked: list[int] = []

    def leaderless(requests: Iterator[pb.WatchRequest], context: grpc.ServicerContext) -> None:
        next(requests)
        asked.append(1)
        context.abort(grpc.StatusCode.UNAVAILABLE, "away" if len(asked) == 1 else NO_LEADER)

    with scripted({"Watch/Watch": leaderless}) as address:
        ended = run_to_its_end(address, "a", "-w", form)
    assert (ended.returncode, ended.stdout, len(asked)) == (5, shown, 2)
    assert ended.stderr.endswith(
        b"watch was canceled (etcdserver: no leader)\nError: watch is canceled by the server\n")


def test_a_watch_that_has_begun_outlasts_an_election() -> None:
    asked: list[int] = []

    def elects(
        requests: Iterator[pb.WatchRequest], context: grpc.ServicerContext
    ) -> Iterator[pb.WatchResponse]:
        next(requests)
        asked.append(1)
        if len(asked) in (2, 3):
            context.abort(grpc.StatusCode.UNAVAILABLE, NO_LEADER)
        yield pb.WatchResponse(header=HEADER, created=True)
        if len(asked) == 1:
            context.abort(grpc.StatusCode.UNAVAILABLE, NO_LEADER)
        yield pb.WatchResponse(header=HEADER, canceled=True, compact_revision=9)

    with scripted({"Watch/Watch": elects}) as address:
        ended = run_to_its_end(address, "a")
    assert (ended.returncode, len(asked)) == (5, 4)
    assert b"compacted" in ended.stderr


def test_a_watch_begins_at_another_endpoint_where_one_has_no_leader() -> None:
    """Whether that one is connected already or not; unless it has none, too."""
    refused: list[str] = []
    leaderless = refusing(grpc.StatusCode.UNAVAILABLE, NO_LEADER, refused)
    with (scripted({"Watch/Watch": leaderless}) as first, scripted({"Watch/Watch": compacted}) as second,
          scripted({"Watch/Watch": leaderless}) as third):
        there = run_to_its_end(f"{first},{second}", "a")
        nowhere = run_to_its_end(f"{first},{third}", "a")
        down = run_to_its_end(f"{first},127.0.0.1:1", "a")
    assert (there.returncode, b"compacted" in there.stderr) == (5, True)
    assert b"watch was canceled (etcdserver: no leader)" in nowhere.stderr
    assert b"watch was canceled (etcdserver: no leader)" in down.stderr
    assert len(refused) >= 3


@pytest.mark.parametrize("text", ["away", "etcdserver: rpc not supported for learner"])
def test_a_watch_ends_where_no_other_endpoint_does_better(text: str) -> None:
    """Though another one is connected, which fails in its own way."""
    asked: list[str] = []
    leaderless, fails = (refusing(grpc.StatusCode.UNAVAILABLE, of, asked) for of in (NO_LEADER, text))
    with scripted({"Watch/Watch": leaderless}) as first, scripted({"Watch/Watch": fails}) as second:
        ended = run_to_its_end(f"{first},{second}", "a")
    assert (ended.returncode, set(asked)) == (5, {NO_LEADER, text})
    assert b"watch was canceled (etcdserver: no leader)" in ended.stderr


def test_a_watch_asks_each_endpoint_before_it_ends() -> None:
    """Also where the first one, after a silent one, is no longer the last choice when it refuses again."""
    leaderless = refusing(grpc.StatusCode.UNAVAILABLE, NO_LEADER)

    def hang(requests: Iterator[pb.WatchRequest], context: grpc.ServicerContext) -> None:
        next(requests)
        say_nothing(context)
        context.abort(grpc.StatusCode.CANCELLED, "left")

    with (scripted({"Watch/Watch": leaderless}) as first, scripted({"Watch/Watch": hang}) as second,
          scripted({"Watch/Watch": compacted}) as third):
        there = run_to_its_end(f"{first},{second},{third}", "a")
        nowhere = run_to_its_end(f"{first},{second}", "a")
    assert (there.returncode, b"compacted" in there.stderr) == (5, True)
    assert b"watch was canceled (etcdserver: no leader)" in nowhere.stderr


def test_a_watch_goes_on_from_a_learner_to_a_voter() -> None:
    """Learners of muster, and of etcd since 3.6, refuse with this code. Learners alone end it, until a voter
    has served it: that one may return."""
    learner_says = "etcdserver: rpc not supported for learner"
    served: list[int] = []

    refuse = refusing(grpc.StatusCode.FAILED_PRECONDITION, learner_says)

    def serve(
        requests: Iterator[pb.WatchRequest], context: grpc.ServicerContext
    ) -> Iterator[pb.WatchResponse]:
        next(requests)
        served.append(1)
        yield pb.WatchResponse(header=HEADER, created=True)
        if len(served) == 1:
            context.abort(grpc.StatusCode.UNAVAILABLE, "away")
        yield pb.WatchResponse(header=HEADER, canceled=True, compact_revision=9)

    with (scripted({"Watch/Watch": refuse}) as first, scripted({"Watch/Watch": refuse}) as second,
          scripted({"Watch/Watch": serve}) as voter):
        there = run_to_its_end(f"{first},{voter}", "a")
        alone = [run_to_its_end(of, "a") for of in (first, f"{first},{second}", f"{first},127.0.0.1:1")]
    assert (there.returncode, b"compacted" in there.stderr, len(served)) == (5, True, 2)
    for ended in alone:
        assert (ended.returncode, learner_says.encode() in ended.stderr.splitlines()[-2]) == (5, True)


@pytest.mark.parametrize(("form", "shown"), FORMS)
@pytest.mark.parametrize(("code", "text"), [
    ("InvalidArgument", "etcdserver: user name is empty"),
    ("Unauthenticated", "etcdserver: invalid auth token"),
    ("PermissionDenied", "etcdserver: permission denied"),
])  # fmt: skip
def test_a_watch_that_is_refused_tells_it_in_clientv3s_form(
    form: str, shown: bytes, code: str, text: str
) -> None:
    """The server's reason as it stands, and an answer that is empty."""
    reason = f"rpc error: code = {code} desc = {text}"

    def refused(
        requests: Iterator[pb.WatchRequest], context: grpc.ServicerContext
    ) -> Iterator[pb.WatchResponse]:
        next(requests)
        yield pb.WatchResponse(
            header=HEADER, watch_id=-1, created=True, canceled=True, cancel_reason=reason)
        say_nothing(context)

    with scripted({"Watch/Watch": refused}) as address:
        ended = run_to_its_end(address, "a", "-w", form)
    assert (ended.returncode, ended.stdout) == (5, shown)
    assert ended.stderr.decode() == f"watch was canceled ({reason})\nError: watch is canceled by the server\n"


def test_events_are_printed_also_without_a_header() -> None:
    event = kv_pb2.Event(kv=kv_pb2.KeyValue(key=b"a"))
    assert '"Events":[{' in print_json.watch(pb.WatchResponse(events=[event]))
