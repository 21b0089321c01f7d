"""A rolling restart under ``musterctl watch`` and ``musterctl lease keep-alive``: no event is lost or
doubled, no lease ends."""

from __future__ import annotations

import base64
import contextlib
import json
import subprocess
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import grpc
import pytest

from cluster.pb import rpc_pb2 as pb
from tests import forks
from tests.cluster.local_cluster import ROOT, environment, local_cluster
from tests.faults.hosts import Hosts, until
from tests.soaking import amount

ROUNDS = amount(2, soak=4)
TTL_S = 10
PREFIX, PREFIX_END = b"/watched/", b"/watched0"
LAST = b"/watched/last"
Event = tuple[int, bytes, bytes]  # revision, key, value


class Tool:
    """A ``musterctl`` that runs on, and what it has printed."""

    def __init__(self, process: subprocess.Popen[bytes], folder: Path) -> None:
        self.process = process
        self._folder = folder

    def lines(self) -> list[str]:
        """The whole lines of its stdout."""
        return (self._folder / "out").read_text(encoding="utf-8").rpartition("\n")[0].splitlines()

    def told(self) -> str:
        """Its stderr."""
        return (self._folder / "err").read_text(encoding="utf-8")


@contextlib.contextmanager
def musterctl(folder: Path, endpoints: Sequence[str], *words: str) -> Iterator[Tool]:
    """The tool at all these endpoints, ended when the test is."""
    folder.mkdir()
    line = [*forks.MUSTERCTL, f"--endpoints={','.join(endpoints)}", *words]
    with open(folder / "out", "wb") as out, open(folder / "err", "wb") as err, forks.popen(
        line, stdout=out, stderr=err, cwd=ROOT, env=environment(),
    ) as process:  # fmt: skip
        try:
            yield Tool(process, folder)
        finally:
            process.kill()


class Writer(threading.Thread):
    """Puts one after the other until told to stop, to whichever host answers; the last one to ``LAST``."""

    def __init__(self, channel: grpc.Channel) -> None:
        super().__init__()
        self._stop_told = threading.Event()
        self._channel = channel

    def run(self) -> None:
        number = 0
        while not self._stop_told.wait(0.02):  # the load's rate
            number += 1
            with contextlib.suppress(grpc.RpcError):  # unanswered ones count if history has them
                self._put(b"%s%d" % (PREFIX, number % 7), b"%d" % number)
        self._put(LAST, b"")

    def _put(self, key: bytes, value: bytes) -> None:
        ask(self._channel, "KV/Put", pb.PutRequest(key=key, value=value), pb.PutResponse)

    def stop(self) -> None:
        """Put the last key, and end."""
        self._stop_told.set()
        self.join()


def ask(channel: grpc.Channel, method: str, request: Any, response: Any) -> Any:
    """One request; grpc.RpcError after twenty seconds."""
    call = channel.unary_unary(
        f"/etcdserverpb.{method}", request_serializer=type(request).SerializeToString,
        response_deserializer=response.FromString,
    )
    return call(request, timeout=20.0, wait_for_ready=True)


def history(channel: grpc.Channel) -> list[Event]:
    """What happened to the watched keys, as a watch from the first revision on tells it."""
    create = pb.WatchCreateRequest(key=PREFIX, range_end=PREFIX_END, start_revision=1)
    call = channel.stream_stream(
        "/etcdserverpb.Watch/Watch", request_serializer=pb.WatchRequest.SerializeToString,
        response_deserializer=pb.WatchResponse.FromString,
    )(iter([pb.WatchRequest(create_request=create)]), timeout=60.0)  # fmt: skip
    found: list[Event] = []
    for response in call:
        found += [(e.kv.mod_revision, e.kv.key, e.kv.value) for e in response.events]
        if found and found[-1][1] == LAST:
            call.cancel()
            return found
    raise AssertionError("the watch ended before the last put")


def shown(watch: Tool) -> list[Event]:
    """The events that a watch with ``-w json`` has printed."""
    events = [event["kv"] for line in watch.lines() for event in json.loads(line)["Events"] or ()]
    return [
        (kv["mod_revision"], *(base64.b64decode(kv.get(name, "")) for name in ("key", "value")))
        for kv in events
    ]


@pytest.mark.longer
@pytest.mark.timeout(900)
@pytest.mark.parametrize("shards", [1, 2])
def test_a_rolling_restart_loses_no_event_and_no_lease(tmp_path: Path, shards: int) -> None:
    with contextlib.ExitStack() as stack:
        cluster = stack.enter_context(local_cluster(tmp_path / "c", 3, f"--shards={shards}"))
        hosts, endpoints = Hosts(cluster), cluster.endpoints()
        channel = stack.enter_context(grpc.insecure_channel("ipv4:" + ",".join(endpoints)))
        lease = ask(channel, "Lease/LeaseGrant", pb.LeaseGrantRequest(TTL=TTL_S), pb.LeaseGrantResponse).ID
        watch = stack.enter_context(
            musterctl(
                tmp_path / "watch", endpoints, "watch", "--prefix", PREFIX.decode(), "--rev=1", "-w", "json"
            )
        )
        keeper = stack.enter_context(
            musterctl(tmp_path / "keeper", endpoints, "lease", "keep-alive", f"{lease:x}")
        )
        writer = Writer(channel)
        writer.start()
        stack.callback(writer.stop)
        until(lambda: shown(watch) and keeper.lines())
        for host in [*range(3)] * ROUNDS:
            hosts.stop(host)
            hosts.start(host)
            before = len(shown(watch))
            until(lambda before=before: len(shown(watch)) > before)
        writer.stop()
        expected = history(channel)
        until(lambda: (found := shown(watch)) and found[-1][1] == LAST)
        assert shown(watch) == expected
        renewals = len(keeper.lines())
        until(lambda: len(keeper.lines()) > renewals)
        left = ask(
            channel, "Lease/LeaseTimeToLive", pb.LeaseTimeToLiveRequest(ID=lease), pb.LeaseTimeToLiveResponse
        )
        assert left.TTL > 0
        assert not any("expired" in line for line in keeper.lines()), keeper.told()
        assert watch.process.poll() is None
        assert keeper.process.poll() is None
        print(
            f"{shards} shards: {len(expected)} events, {len(keeper.lines())} renewals; told: "
            f"{watch.told()!r} {keeper.told()!r}"
        )


@pytest.mark.timeout(300)
def test_both_wait_for_a_cluster_that_is_away_and_say_so(tmp_path: Path) -> None:
    with contextlib.ExitStack() as stack:
        cluster = stack.enter_context(local_cluster(tmp_path / "c", 3))
        hosts, endpoints = Hosts(cluster), cluster.endpoints()
        channel = stack.enter_context(grpc.insecure_channel("ipv4:" + ",".join(endpoints)))
        lease = ask(channel, "Lease/LeaseGrant", pb.LeaseGrantRequest(TTL=TTL_S), pb.LeaseGrantResponse).ID
        watch = stack.enter_context(
            musterctl(tmp_path / "watch", endpoints, "watch", "--prefix", PREFIX.decode(), "-w", "json")
        )
        keeper = stack.enter_context(
            musterctl(tmp_path / "keeper", endpoints, "lease", "keep-alive", f"{lease:x}")
        )

        def put(value: bytes) -> None:
            ask(channel, "KV/Put", pb.PutRequest(key=LAST, value=value), pb.PutResponse)

        until(lambda: (put(b"before"), shown(watch) and keeper.lines())[1])
        hosts.kill(0, 1, 2)
        for tool in (watch, keeper):
            until(lambda tool=tool: all(f"{e}: connection refused" in tool.told() for e in endpoints))
        until(lambda: f"was not renewed for its whole TTL of {TTL_S} s" in keeper.told())
        hosts.start(0, 1, 2)
        until(lambda: (put(b"after"), shown(watch)[-1][2] == b"after")[1])
        renewals = len(keeper.lines())
        until(lambda: len(keeper.lines()) > renewals + 1)
        assert keeper.process.poll() is None
        for tool in (watch, keeper):
            assert "waiting for an endpoint: " in tool.told()
            assert "connected to 127.0.0.1:" in tool.told()


@pytest.mark.timeout(300)
def test_a_watch_whose_revisions_were_compacted_meanwhile_says_so_as_etcdctl(tmp_path: Path) -> None:
    """The watcher is away while its next revision is compacted."""
    with contextlib.ExitStack() as stack:
        cluster = stack.enter_context(local_cluster(tmp_path / "c", 3))
        hosts, endpoints = Hosts(cluster), cluster.endpoints()
        first = endpoints[0]
        channel = stack.enter_context(grpc.insecure_channel("ipv4:" + ",".join(endpoints[1:])))
        watch = stack.enter_context(
            musterctl(tmp_path / "watch", [first], "watch", "--prefix", PREFIX.decode(), "-w", "json")
        )

        def put() -> int:
            return int(ask(channel, "KV/Put", pb.PutRequest(key=LAST), pb.PutResponse).header.revision)

        until(lambda: (put(), shown(watch))[1])
        hosts.kill(0)
        until(lambda: "connection refused" in watch.told())
        revision = max(put() for _ in range(5))
        ask(channel, "KV/Compact", pb.CompactionRequest(revision=revision), pb.CompactionResponse)
        hosts.start(0)
        assert watch.process.wait(60) == 5
        assert "watch was canceled (etcdserver: mvcc: required revision has been compacted)\n" in watch.told()
        assert watch.told().endswith("Error: watch is canceled by the server\n")
