"""``watch`` as a process: what ends it, and what it takes from the environment."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from typing import IO

import grpc
import pytest
from muster_client.pb import kv_pb2
from muster_client.pb import rpc_pb2 as pb

from tests.unit.library.scripted import say_nothing, scripted

HEADER = pb.ResponseHeader(revision=3)


def one_event(
    requests: Iterator[pb.WatchRequest], context: grpc.ServicerContext
) -> Iterator[pb.WatchResponse]:
    """Of what is asked for, with its end as the value."""
    asked = next(requests).create_request
    yield pb.WatchResponse(header=HEADER, created=True)
    kv = kv_pb2.KeyValue(key=asked.key, value=asked.range_end, mod_revision=3)
    yield pb.WatchResponse(header=HEADER, events=[kv_pb2.Event(kv=kv)])
    say_nothing(context)


def watching(
    address: str, *flags: str, out: int | IO[bytes] = subprocess.PIPE, **environ: str
) -> subprocess.Popen[bytes]:
    line = [sys.executable, "-m", "tools.musterctl", "--endpoints", address, "watch", *flags]
    return subprocess.Popen(
        line, stdin=subprocess.PIPE, stdout=out, stderr=subprocess.PIPE, env={**os.environ, **environ})


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
