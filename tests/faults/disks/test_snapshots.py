"""Hosts that were away while the log was truncated: they come back by a snapshot (H8, H9, I18)."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
from collections.abc import Iterator

import pytest

from bench.client import Client, Endpoint
from cluster.pb import rpc_pb2
from cluster.placement import Placement
from tests.faults.hosts import SHARDS, Hosts, Log, aside, stopped, three_hosts, until
from tests.faults.load import Load
from tests.tries import TooSlow, best_of_three

# ... and nobody is elected while a snapshot is awaited, though the machine may be busy
KEEP_LITTLE = (
    "--snapshot-count=200", "--snapshot-catchup-entries=50", "--heartbeat-interval=100",
    "--election-timeout=3000",
)
_TRY = itertools.count()  # each has keys of its own
INSTALLED, SENDING = "installed a snapshot", "sending a snapshot"


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosts]:
    with three_hosts(tmp_path_factory.mktemp("snapshots") / "c", *KEEP_LITTLE) as hosts:
        yield hosts


@pytest.fixture
def hosts(shared: Hosts) -> Hosts:
    """The shared hosts, all of them up."""
    shared.start_missing()
    return shared


def await_told(log: Log, text: str) -> None:
    """Wait until shard 0's node has logged something: others of the host have snapshots of their own."""
    until(lambda: log.count(text))


async def let_the_log_go_on(hosts: Hosts, load: Load, others: list[int], truncations: int = 2) -> None:
    """Until the others have dropped entries of shard 0 that a host which went away now does not have."""
    logs = [hosts.log(host) for host in others]
    for _ in range(100):
        await load.acknowledged(100)
        if all(log.count("truncated the log") >= truncations for log in logs):
            return
    raise AssertionError("the log was not truncated")


def test_a_host_that_was_away_while_the_log_was_truncated_rejoins_by_a_snapshot(hosts: Hosts) -> None:
    """Then it serves reads, and watches from before the snapshot too; the load checks both on every host."""

    async def scenario() -> None:
        async with Load(hosts, "away", pause_s=0.01) as load:
            await load.acknowledged(100)
            away = (await aside(hosts.leader) + 1) % 3
            await aside(hosts.kill, away)
            await let_the_log_go_on(hosts, load, [h for h in range(3) if h != away])
            log = hosts.log(away)
            await aside(hosts.start, away)
            await aside(await_told, log, INSTALLED)
            await load.acknowledged(100)
            # what it installed lasts: it starts from it
            await aside(hosts.kill, away)
            await aside(hosts.start, away)
            await load.acknowledged(50)

    asyncio.run(scenario())


def test_a_node_that_slept_while_the_log_was_truncated_tells_its_watchers_everything(hosts: Hosts) -> None:
    """Its front's watches stay open; the install is a gap in the live stream, filled from history (H8)."""

    async def scenario() -> None:
        async with Load(hosts, "slept", pause_s=0.01) as load:
            await load.acknowledged(100)
            asleep = (await aside(hosts.leader) + 1) % 3
            log = hosts.log(asleep)
            with stopped(await aside(hosts.node_pid, asleep)):
                # more, for it wakes to all that lies in its connections: 64 appends of several entries
                await let_the_log_go_on(hosts, load, [h for h in range(3) if h != asleep], truncations=5)
            await aside(await_told, log, INSTALLED)
            await load.acknowledged(100)

    asyncio.run(scenario())


def kill_when(sending: Log, pid: int) -> None:
    """kill -9 of a node as soon as a snapshot of shard 0 is on its way."""
    await_told(sending, SENDING)
    os.kill(pid, signal.SIGKILL)


async def put_bulk(hosts: Hosts, host: int) -> None:
    """Data that makes a snapshot of shard 0 take its time, unless it is there already."""
    placement = Placement(SHARDS)
    directories = [d for n in range(100) if placement.shard_of(d := b"/bulk/%d/" % n) == 0]
    client = await Client.open([Endpoint(*hosts.endpoints[host])], 1)
    try:
        there = await client.unary("/etcdserverpb.KV/Range", rpc_pb2.RangeRequest(
            key=b"/bulk/", range_end=b"/bulk0", count_only=True), rpc_pb2.RangeResponse)
        if there.count:
            return
        for at in range(0, 64 * 16, 32):
            await asyncio.gather(
                *(
                    client.unary(
                        "/etcdserverpb.KV/Put",
                        rpc_pb2.PutRequest(key=b"%s%d" % (directories[n % 4], n), value=os.urandom(65_536)),
                        rpc_pb2.PutResponse,
                        timeout_s=30,
                    )
                    for n in range(at, at + 32)
                )
            )
    finally:
        await client.close()


@best_of_three
def test_a_leader_killed_while_it_sends_a_snapshot_is_replaced_and_the_snapshot_sent_again(
    hosts: Hosts,
) -> None:
    async def scenario() -> None:
        await aside(hosts.start_missing)  # an earlier try left one down
        away = (await aside(hosts.leader) + 1) % 3
        await put_bulk(hosts, away)
        async with Load(hosts, f"sender{next(_TRY)}", pause_s=0.01) as load:
            await load.acknowledged(50)
            await aside(hosts.kill, away)
            await let_the_log_go_on(hosts, load, [h for h in range(3) if h != away])
            leader = await aside(hosts.leader, away)  # now: a busy machine may have elected another meanwhile
            third = 3 - away - leader
            receiving, sending = hosts.log(away), hosts.log(leader)
            pid = await aside(hosts.node_pid, leader)
            await aside(hosts.start, away, wait_s=0)
            await aside(kill_when, sending, pid)
            await aside(hosts.kill, leader)
            if receiving.count(INSTALLED):
                raise TooSlow("the transfer was over before the leader was killed")
            again = hosts.log(third)
            await aside(await_told, receiving, INSTALLED)
            assert again.count(SENDING)
            await load.acknowledged(50)
            await aside(hosts.start, leader)
            await load.acknowledged(50)

    asyncio.run(scenario())


@best_of_three
def test_a_receiver_killed_in_the_midst_of_a_snapshot_asks_for_it_again(hosts: Hosts) -> None:
    async def scenario() -> None:
        await aside(hosts.start_missing)  # an earlier try left one down
        away = (await aside(hosts.leader) + 1) % 3
        await put_bulk(hosts, away)
        async with Load(hosts, f"receiver{next(_TRY)}", pause_s=0.01) as load:
            await load.acknowledged(50)
            await aside(hosts.kill, away)
            await let_the_log_go_on(hosts, load, [h for h in range(3) if h != away])
            sending, receiving = hosts.log(await aside(hosts.leader, away)), hosts.log(away)
            await aside(hosts.start, away, wait_s=0)
            await aside(kill_when, sending, await aside(hosts.node_pid, away))
            if receiving.count(INSTALLED):
                raise TooSlow("the transfer was over before the receiver was killed")
            await aside(await_told, receiving, INSTALLED)
            await aside(until, lambda: hosts.ready(away))
            await load.acknowledged(50)

    asyncio.run(scenario())
