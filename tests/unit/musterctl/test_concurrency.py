"""Which signals end ``lock`` and ``elect`` while they tidy up, and what they say of a refused lease."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, NoReturn
from unittest.mock import Mock

import grpc
import pytest
from muster_client.pb import kv_pb2
from muster_client.pb import rpc_pb2 as pb

from tests.unit.library.scripted import Answers, scripted
from tests.unit.library.test_places import Line, held
from tools.musterctl import concurrency
from tools.musterctl.client import Client
from tools.musterctl.concurrency import Interrupted, Session, Signals

TIDY = "tidy"


@pytest.mark.parametrize(("steps", "ends"), [
    ((5.0, TIDY, 5.1), None),  # as ``timeout`` sends it
    ((5.0, TIDY, 5.1, 6.2), 6.2),
    ((5.0, TIDY, 5.4, 5.8, 6.2), 6.2),  # one that holds the keys down
    ((TIDY, 5.0), 5.0),  # the command has ended by itself
    ((1.0, 5.0, TIDY, 5.1), None),  # the command went on after the first
])  # fmt: skip
def test_another_signal_ends_it(
    monkeypatch: pytest.MonkeyPatch, steps: tuple[float | str, ...], ends: float | None
) -> None:
    now = 0.0
    ended: list[float] = []
    monkeypatch.setattr(concurrency, "time", SimpleNamespace(monotonic=lambda: now))
    monkeypatch.setattr(concurrency, "signal", SimpleNamespace(
        SIGINT=signal.SIGINT, SIGTERM=signal.SIGTERM, signal=lambda *_: None,
        set_wakeup_fd=lambda *_, **__: None))  # fmt: skip
    monkeypatch.setattr(concurrency, "ending", SimpleNamespace(by=lambda _: ended.append(now)))
    signals = Signals()
    for step in steps:
        if isinstance(step, str):
            signals.tidy()
        else:
            now = step
            signals._take(signal.SIGINT, None)
    assert ended == ([] if ends is None else [ends])


@pytest.mark.parametrize("words", [["elect", "-l", "e"], ["elect", "e", "v"], ["lock", "e"]])
def test_it_is_told_why_there_is_no_lease(words: list[str]) -> None:
    text = "etcdserver: user name is empty"

    def refuse(request: Any, context: grpc.ServicerContext) -> None:
        context.abort(grpc.StatusCode.INVALID_ARGUMENT, text)

    with scripted({"Lease/LeaseGrant": refuse}) as address:
        line = [sys.executable, "-m", "tools.musterctl", "--endpoints", address, *words]
        # a process of its own: it takes the signals
        ended = subprocess.run(line, timeout=60, capture_output=True, text=True)
    assert (ended.returncode, ended.stdout, ended.stderr) == (1, "", f"Error: {text}\n")


@pytest.mark.parametrize("connected", [False, True])
def test_a_lease_is_revoked_only_where_it_may_have_been_asked_for(connected: bool) -> None:
    """Without any endpoint an interrupt ends it at once; else the grant may be on its way."""
    asked: list[str] = []

    def unary(method: str, *_: object, **__: object) -> None:
        asked.append(method)

    def interrupted(*_: object) -> NoReturn:
        raise Interrupted

    client = Mock(spec=Client, unary=unary, run=interrupted)
    if not connected:
        client.library = interrupted  # which waits for an endpoint
    signals = Mock(spec=Signals, run=lambda step: step())
    with pytest.raises(Interrupted), Session(client, 10, signals):
        pass
    assert asked == (["Lease/LeaseRevoke"] if connected else [])


def holding(revoke: Answers) -> dict[str, Answers]:
    """A server at which each is the first in line."""
    def look(request: pb.RangeRequest, context: grpc.ServicerContext) -> pb.RangeResponse:
        return pb.RangeResponse(kvs=[kv_pb2.KeyValue(key=request.key)])

    return Line(held()).methods | {"Lease/LeaseRevoke": revoke, "KV/Range": look}


def begun(address: str, *words: str, **how: Any) -> subprocess.Popen[str]:
    line = [sys.executable, "-m", "tools.musterctl", "--endpoints", address, *words]
    return subprocess.Popen(line, text=True, stderr=subprocess.PIPE, **how)


def interrupt(process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    process.stdout.readline()  # it holds
    process.send_signal(signal.SIGINT)


@pytest.mark.parametrize(("words", "ends", "code", "said"), [
    (["lock", "l", "true"], bool, 1, "Error: etcdserver: corrupt cluster\n"),
    (["lock", "l", "--", "sh", "-c", "exit 7"], bool, 7, "Error: exit status 7\n"),
    (["lock", "l"], interrupt, 1, "Error: etcdserver: corrupt cluster\n"),
    (["elect", "l", "v"], interrupt, 1, "Error: etcdserver: corrupt cluster\n"),
])  # fmt: skip
def test_what_cannot_be_given_up_is_an_error_unless_the_command_has_one(
    words: list[str], ends: Callable[[Any], object], code: int, said: str
) -> None:
    """As in etcdctl: others wait until the lease ends. It ended with 0, and said nothing."""
    def refuse(request: pb.LeaseRevokeRequest, context: grpc.ServicerContext) -> None:
        context.abort(grpc.StatusCode.DATA_LOSS, "etcdserver: corrupt cluster")

    with scripted(holding(refuse)) as address, begun(address, *words, stdout=subprocess.PIPE) as process:
        ends(process)
        _, told = process.communicate(timeout=60)
    assert (process.returncode, told) == (code, said)


def test_an_end_that_nobody_reads_either_ends_all_the_same() -> None:
    """What it gives up may be refused, and that be said to the same closed pipe."""
    def refuse(request: pb.LeaseRevokeRequest, context: grpc.ServicerContext) -> None:
        context.abort(grpc.StatusCode.UNAVAILABLE, "etcdserver: request timed out")

    read, write = os.pipe()
    os.close(read)
    with scripted(holding(refuse)) as address, open(write, "wb") as unread:
        line = [sys.executable, "-m", "tools.musterctl", "--endpoints", address, "lock", "l"]
        ended = subprocess.run(line, timeout=60, stdout=unread, stderr=unread)
    assert ended.returncode == 128 + signal.SIGPIPE


@pytest.mark.parametrize("words", [["lock", "l"], ["elect", "l", "v"], ["elect", "-l", "l"]])
def test_what_nobody_reads_gives_up_what_it_holds(words: list[str]) -> None:
    """Its output is closed (``| true``). Others waited until the lease had ended."""
    revoked = list[int]()

    def revoke(request: pb.LeaseRevokeRequest, context: grpc.ServicerContext) -> pb.LeaseRevokeResponse:
        revoked.append(request.ID)
        return pb.LeaseRevokeResponse()

    read, write = os.pipe()
    os.close(read)
    with scripted(holding(revoke)) as address, open(write, "wb") as unread, \
            begun(address, *words, stdout=unread) as process:
        assert process.communicate(timeout=60)[1] == ""
    assert (process.returncode, len(revoked)) == (128 + signal.SIGPIPE, 1)
