"""The order log's feed (H13): a host without its node 0 goes on, and a node that missed too much takes a
peer's state."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest

from tests.cluster.local_cluster import local_cluster
from tests.faults.hosts import Hosts, stopped, until
from tests.faults.shards import (
    Background,
    Client,
    assert_equal_everywhere,
    clients,
    facts,
    keys_of,
    order_index,
)

SHARDS = 3


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[Hosts]:
    # little is kept: a node that misses 20 times this many order records cannot catch up by the feed
    extra = ("--snapshot-count=25", "--snapshot-catchup-entries=10")
    with local_cluster(tmp_path / "c", 3, f"--shards={SHARDS}", "--fronts=1", extra=extra) as cluster:
        yield Hosts(cluster)


def writer(client: Client, shards: range) -> Callable[[], None]:
    """A function that puts a new value on one shard after the other."""
    keys = itertools.cycle([key for shard in shards for key in keys_of(shard, SHARDS, 4)])
    numbers = itertools.count()

    def write() -> None:
        with contextlib.suppress(grpc.RpcError):  # a leader may change meanwhile
            client.put(next(keys), str(next(numbers)))

    return write


def follower(hosts: Hosts) -> int:
    """A host that leads nothing: all leaders have come together on another one."""
    until(lambda: len({f.get("leader") for f in facts(hosts, 0)}) == 1 and facts(hosts, 0)[0].get("leader"))
    return (hosts.leader() + 1) % 3


def test_a_host_whose_node_0_stands_still_takes_the_feed_from_another(hosts: Hosts) -> None:
    host = follower(hosts)
    with clients(hosts) as found, Background(writer(found[hosts.leader()], range(SHARDS))):
        until(lambda: all(f["up"] and f["feed_remote"] == 0 for f in facts(hosts, host)[1:]))
        with stopped(hosts.node_pid(host, 0)):
            until(lambda: all(f["up"] and f["feed_remote"] == 1 for f in facts(hosts, host)[1:]))
            before = max(order_index(hosts, host, shard) for shard in range(1, SHARDS))
            until(lambda: all(order_index(hosts, host, shard) > before + 100 for shard in range(1, SHARDS)))
        # home again, so that the records it needs are kept for it
        until(lambda: all(f["up"] and not f.get("feed_remote") for f in facts(hosts, host)))
    with clients(hosts) as found:
        assert_equal_everywhere(found)


def test_node_0_killed_again_and_again_holds_up_nobody_else(hosts: Hosts) -> None:
    host = follower(hosts)
    with clients(hosts) as found, Background(writer(found[hosts.leader()], range(SHARDS))):
        for _ in range(5):
            before = max(order_index(hosts, host, shard) for shard in range(SHARDS))
            os.kill(hosts.node_pid(host, 0), signal.SIGKILL)
            until(lambda: all(order_index(hosts, host, shard) > before + 20 for shard in range(1, SHARDS)))  # noqa: B023
    until(lambda: hosts.ready(host))
    with clients(hosts) as found:
        assert_equal_everywhere(found)


@pytest.mark.parametrize("busy", [range(3), range(0, 3, 2)], ids=["all shards", "all but its own"])
def test_a_node_that_missed_what_nobody_keeps_has_it_in_the_end(hosts: Hosts, busy: range) -> None:
    host, shard = follower(hosts), 1
    log = hosts.log(host)
    with clients(hosts) as found:
        for key in keys_of(shard, SHARDS, 4):
            found[0].put(key, "before")
        pid = hosts.node_pid(host, shard)
        writers = [writer(found[i % 3], busy) for i in range(6)]
        with stopped(pid):
            leader = hosts.leader()
            before = max(order_index(hosts, host, shard) for host in range(3))
            with Background(*writers):
                until(lambda: order_index(hosts, leader, shard) > before + 550, 100)
        # where its own log has not moved, what node 0 had sent it meanwhile may do: that this node did not
        # read is no silence of node 0
        until(lambda: order_index(hosts, host, shard) > before + 550)
        if shard in busy:
            log.await_text("installed a snapshot")
        with Background(*writers):  # and it goes on
            until(lambda: order_index(hosts, host, shard) > before + 650)
        assert hosts.node_pid(host, shard) == pid
        assert_equal_everywhere(found)
