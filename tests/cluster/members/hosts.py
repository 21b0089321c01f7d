"""Hosts that are added, removed, replaced and moved, each a process of its own, and who writes to them."""

from __future__ import annotations

import contextlib
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc

from cluster.pb import rpc_pb2 as pb
from tests import forks
from tests.cluster.local_cluster import command, environment, free_base_port, until

LIMIT_S = 180.0  # of a step, on a busy machine
CALL_S = 20.0
REMOVED = "the member has been permanently removed from the cluster"


class Hosts:
    """Hosts by number, each with its own flags."""

    def __init__(self, folder: Path, shards: int, most: int = 9, *, cold: bool = False) -> None:
        """``most``: hosts that ever are; ``cold``: none is forked."""
        self.folder = folder
        self.cold = cold
        self.shards = shards
        self.most = most
        self.base = free_base_port(most, shards + 2)
        self.running: dict[int, subprocess.Popen[bytes]] = {}
        self.removed: list[int] = []
        self.moved: dict[int, int] = {}  # hosts that took other peer ports, by how many
        self._channels: dict[int, grpc.Channel] = {}

    def peer(self, host: int) -> str:
        return f"http://127.0.0.1:{self.base + 100 * host + 1 + self.moved.get(host, 0)}"

    def client(self, host: int) -> str:
        return f"127.0.0.1:{self.base + 100 * host}"

    def start(self, host: int, *flags: str) -> subprocess.Popen[bytes]:
        own = f"http://{self.client(host)}"
        with open(self.folder / f"h{host}.log", "ab") as log:
            self.running[host] = forks.popen(
                command(
                    f"--name=h{host}",
                    f"--data-dir={self.folder / f'h{host}'}",
                    f"--listen-peer-urls={self.peer(host)}",
                    f"--initial-advertise-peer-urls={self.peer(host)}",
                    f"--listen-client-urls={own}",
                    f"--advertise-client-urls={own}",
                    "--strict-reconfig-check=false",  # it wants five seconds' peace before each step
                    "--heartbeat-interval=100",
                    "--election-timeout=2000",
                    "--fronts=0",
                    *flags,
                ),
                cold=self.cold,
                stdout=log,
                stderr=log,
                env=environment(),
                cwd=self.folder,
            )
        return self.running[host]

    def log(self, host: int) -> str:
        return (self.folder / f"h{host}.log").read_text(encoding="utf-8")

    def found(self) -> None:
        """The first host, a cluster by itself."""
        self.start(0, f"--initial-cluster=h0={self.peer(0)}", f"--shards={self.shards}")
        until(lambda: self.member(0).name, LIMIT_S)

    def call(self, host: int, method: str, request: Any, response: Any) -> Any:
        if host not in self._channels:
            self._channels[host] = grpc.insecure_channel(
                self.client(host), options=[("grpc.max_reconnect_backoff_ms", 500)]
            )
        return self._channels[host].unary_unary(
            f"/etcdserverpb.{method}",
            request_serializer=lambda m: m.SerializeToString(),
            response_deserializer=response.FromString,
        )(request, timeout=CALL_S, wait_for_ready=False)

    def anywhere(self, method: str, request: Any, response: Any) -> Any:
        """Asked of every host in turn until one answers: for what may be asked twice."""

        def tried() -> Any:
            for host in list(self.running):
                with contextlib.suppress(grpc.RpcError):
                    return self.call(host, method, request, response)
            return None

        return until(tried, LIMIT_S)

    def members(self) -> list[Any]:
        request = pb.MemberListRequest(linearizable=True)
        return list(self.anywhere("Cluster/MemberList", request, pb.MemberListResponse).members)

    def knows(self, host: int) -> list[int]:
        """The IDs of the members, as one host has heard so far."""
        found = self.call(host, "Cluster/MemberList", pb.MemberListRequest(), pb.MemberListResponse)
        return sorted(m.ID for m in found.members)

    def member(self, host: int) -> Any:
        """As the cluster lists it; without an ID if it does not."""
        listed = [m for m in self.members() if list(m.peerURLs) == [self.peer(host)]]
        return listed[0] if listed else pb.Member()

    def settle(self, wish: Callable[[], bool], method: str, request: Any, response: Any) -> None:
        """A change of members, asked for until it is there: who asked may have lost its leader."""

        def tried() -> bool:
            for host in list(self.running):
                if wish():
                    return True
                with contextlib.suppress(grpc.RpcError):
                    self.call(host, method, request, response)
            return wish()

        until(tried, LIMIT_S)

    def add(self, host: int, *, learner: bool = False) -> None:
        request = pb.MemberAddRequest(peerURLs=[self.peer(host)], isLearner=learner)
        self.settle(lambda: self.member(host).ID != 0, "Cluster/MemberAdd", request, pb.MemberAddResponse)

    def begin(self, host: int) -> subprocess.Popen[bytes]:
        """Start one that was added."""
        names = {self.peer(i): f"h{i}" for i in range(self.most)}
        cluster = ",".join(f"{names[m.peerURLs[0]]}={m.peerURLs[0]}" for m in self.members())
        return self.start(host, f"--initial-cluster={cluster}", "--initial-cluster-state=existing")

    def join(self, host: int) -> None:
        """Start one that was added, and wait until it is listed as started and serves."""
        process = self.begin(host)
        until(lambda: self.member(host).name or process.poll() is not None, LIMIT_S)
        until(lambda: self.serves(host) or process.poll() is not None, LIMIT_S)
        assert process.poll() is None, self.log(host)

    def serves(self, host: int) -> bool:
        """Whether it answers what a learner answers, too."""
        return works(lambda: self.call(host, "Maintenance/Status", pb.StatusRequest(), pb.StatusResponse))

    def votes(self, host: int) -> None:
        """Wait until it is to vote in every group, as the leader of shard 0 logs it."""
        member_id = f"{self.member(host).ID:x}"

        def promoted() -> bool:
            logs = [self.log(i) for i in self.running]
            return all(
                any(_says(text, "promote", member_id, shard) for text in logs) for shard in range(self.shards)
            )

        until(promoted, LIMIT_S)

    def at_least(self, count: int) -> None:
        """So many hosts that vote, whatever a test before this one left."""
        for host in range(1, 5):
            if len(self.running) < count and host not in (*self.running, *self.removed):
                self.add(host)
                self.join(host)
                self.votes(host)

    def remove(self, host: int) -> int:
        """Remove it; the exit code of its process."""
        member_id, process = self.member(host).ID, self.running[host]
        request = pb.MemberRemoveRequest(ID=member_id)
        self.settle(
            lambda: member_id not in [m.ID for m in self.members()],
            "Cluster/MemberRemove",
            request,
            pb.MemberRemoveResponse,
        )
        until(lambda: process.poll() is not None, LIMIT_S)
        del self.running[host]
        self.removed.append(host)
        return int(process.returncode)

    def leader(self) -> int:
        """The host that leads shard 0."""
        status = self.anywhere("Maintenance/Status", pb.StatusRequest(), pb.StatusResponse)
        return next((i for i in self.running if status.leader == self.member(i).ID), -1)

    def lead(self, host: int) -> None:
        """Have a host lead shard 0."""
        member_id = self.member(host).ID

        def leads() -> bool:
            if (leader := self.leader()) == host:
                return True
            with contextlib.suppress(grpc.RpcError):
                request = pb.MoveLeaderRequest(targetID=member_id)
                self.call(leader, "Maintenance/MoveLeader", request, pb.MoveLeaderResponse)
            return False

        until(leads, LIMIT_S)

    def close(self) -> None:
        for process in self.running.values():
            process.terminate()
        for process in self.running.values():
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(30)
            process.kill()
        for channel in self._channels.values():
            channel.close()


def _says(text: str, change: str, member_id: str, shard: int) -> bool:
    lines = [line for line in text.splitlines() if "changing the members of a group" in line]
    return any(
        f'"shard":{shard}' in line.replace(" ", "") and f'"{change}"' in line and member_id in line
        for line in lines
    )


class Writer:
    """One client that puts keys one after the other, and remembers what was acknowledged."""

    def __init__(self, hosts: Hosts) -> None:
        self._hosts = hosts
        self._stop = threading.Event()
        self.acknowledged: list[str] = []
        self.longest_s = 0.0
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        began = time.monotonic()
        while not self._stop.is_set():
            key = f"/w{len(self.acknowledged) % 7}/{len(self.acknowledged)}"
            for host in list(self._hosts.running):
                with contextlib.suppress(grpc.RpcError):
                    self._hosts.call(
                        host, "KV/Put", pb.PutRequest(key=key.encode(), value=b"v"), pb.PutResponse
                    )
                    self.acknowledged.append(key)
                    now = time.monotonic()
                    self.longest_s, began = max(self.longest_s, now - began), now
                    break

    def wait(self, more: int) -> None:
        """Until so many more puts were acknowledged."""
        goal = len(self.acknowledged) + more
        until(lambda: len(self.acknowledged) >= goal, LIMIT_S)

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()


@contextlib.contextmanager
def timed(what: str) -> Iterator[None]:
    began = time.monotonic()
    yield
    print(f"{what}: {time.monotonic() - began:.1f} s")


def works(call: Callable[[], object]) -> bool:
    """Whether it does, now."""
    with contextlib.suppress(grpc.RpcError):
        call()
        return True
    return False
