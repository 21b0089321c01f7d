"""Hosts are killed, restarted, added, removed, emptied, moved and made leaders in an order that a seed draws.

A client writes all the while. After each step it gets on, every host that runs answers, none has crashed; at
the end each host has all that was acknowledged. A majority of the members runs at any time.
"""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from cluster.pb import rpc_pb2 as pb
from tests.cluster.local_cluster import until
from tests.cluster.members.hosts import LIMIT_S, Hosts, Writer, timed, works

STEPS = int(os.environ.get("MUSTER_MEMBER_STEPS", "40"))
MOST_HOSTS = 12  # at different ports
_MOST_MEMBERS = 5


class Play:
    """One cluster, what is drawn for it, and what has become of its hosts."""

    def __init__(self, hosts: Hosts, seed: int) -> None:
        self.hosts = hosts
        self.draw = random.Random(seed)
        self.down: list[int] = []
        self.free = list(range(1, MOST_HOSTS))

    @property
    def members(self) -> int:
        return len(self.hosts.running) + len(self.down)

    def spare(self) -> bool:
        """Whether one host more may be away: what runs is a majority without it."""
        return len(self.hosts.running) - 1 > self.members // 2

    def kill(self) -> None:
        if self.spare():
            host = self.draw.choice(list(self.hosts.running))
            self.hosts.running[host].kill()
            self.hosts.running.pop(host).wait(30)
            self.down.append(host)

    def start(self) -> None:
        if self.down:
            host = self.down.pop(self.draw.randrange(len(self.down)))
            self.hosts.start(host)

    def add(self) -> None:
        if self.members < _MOST_MEMBERS:
            host = self.free.pop(0)
            self.hosts.add(host)
            self.hosts.join(host)
            self.hosts.votes(host)

    def remove(self) -> None:
        """One that runs."""
        if self.members > 3 and self.spare():
            host = self.draw.choice(list(self.hosts.running))
            self.hosts.remove(host)
            shutil.rmtree(self.hosts.folder / f"h{host}")
            self.free.append(host)

    def replace(self) -> None:
        """One that is away, with nothing on its disk, under its old URLs."""
        if self.down and len(self.hosts.running) > 1:
            host = self.down.pop()
            old = self.hosts.member(host).ID
            shutil.rmtree(self.hosts.folder / f"h{host}")
            self.hosts.settle(
                lambda: old not in [m.ID for m in self.hosts.members()], "Cluster/MemberRemove",
                pb.MemberRemoveRequest(ID=old), pb.MemberRemoveResponse,
            )  # fmt: skip
            self.hosts.add(host)
            self.hosts.join(host)
            self.hosts.votes(host)

    def move(self) -> None:
        """To other peer ports, with its data."""
        if self.spare():
            hosts = self.hosts
            host = self.draw.choice(list(hosts.running))
            member_id = hosts.member(host).ID
            hosts.moved[host] = 70 if not hosts.moved.get(host) else 0
            request = pb.MemberUpdateRequest(ID=member_id, peerURLs=[hosts.peer(host)])
            hosts.settle(
                lambda: member_id == hosts.member(host).ID, "Cluster/MemberUpdate", request,
                pb.MemberUpdateResponse,
            )  # fmt: skip
            hosts.running[host].terminate()
            hosts.running[host].wait(60)
            hosts.start(host)

    def lead(self) -> None:
        host = self.draw.choice(list(self.hosts.running))
        put = pb.PutRequest(key=b"/lead", value=b"v")
        until(lambda: works(lambda: self.hosts.call(host, "KV/Put", put, pb.PutResponse)), LIMIT_S)
        self.hosts.lead(host)

    def step(self) -> str:
        """One of these; its name."""
        steps: list[Callable[[], None]] = [
            self.kill, self.kill, self.start, self.start, self.add, self.remove, self.replace, self.move,
            self.lead, self.lead,
        ]  # fmt: skip
        chosen = self.draw.choice(steps)
        chosen()
        return chosen.__name__

    def answered_by_all(self) -> None:
        """Every host that runs reads linearizably, and none has crashed."""
        wanted = pb.RangeRequest(key=b"/lead")
        for host, process in self.hosts.running.items():
            until(lambda: works(lambda: self.hosts.call(host, "KV/Range", wanted, pb.RangeResponse)), LIMIT_S)  # noqa: B023
            assert process.poll() is None
            assert '"this process crashed"' not in self.hosts.log(host)


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(("shards", "seed"), [(1, 1), (3, 2), (1, 3), (2, 4)])
def test_members_change_while_hosts_come_and_go(tmp_path: Path, shards: int, seed: int) -> None:
    hosts = Hosts(tmp_path, shards, MOST_HOSTS)
    play = Play(hosts, seed)
    try:
        hosts.found()
        while len(hosts.running) < 3:
            play.add()
        writer = Writer(hosts)
        try:
            for number in range(STEPS):
                with timed(f"{number}"):
                    print(play.step(), sorted(hosts.running), "down", sorted(play.down), end=" ")
                    writer.wait(20)
                    play.answered_by_all()
        finally:
            writer.stop()
        while play.down:
            play.start()
        play.answered_by_all()
        for host in hosts.running:
            for key in writer.acknowledged:
                wanted = pb.RangeRequest(key=key.encode(), count_only=True)
                assert hosts.call(host, "KV/Range", wanted, pb.RangeResponse).count == 1, (host, key)
        print(f"{len(writer.acknowledged)} keys, the longest wait {writer.longest_s:.1f} s")
    finally:
        hosts.close()
