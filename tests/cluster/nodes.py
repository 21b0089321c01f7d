"""Real node processes on loopback, and a front that speaks ``cluster.wire.messages`` to them, blocking."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import TracebackType

import zmq

from cluster.settings import Common, NodeSettings, Peer, dumps
from cluster.wire import frames, messages
from cluster.wire.messages import HELLO_BODY, STATE_BODY, Method, Status
from tests import forks
from tests.ports import free_ports
from tests.short_dirs import short_dir
from tools.muster.machine.disk import seal
from tools.muster.machine.process.handed import hand


class Nodes:
    """The nodes of one shard, by member ID 1, 2, 3, ..."""

    def __init__(self, directory: Path, hosts: int = 3, **overrides: object) -> None:
        self.directory = directory
        peers = tuple(
            Peer(i + 1, f"host{i}", "127.0.0.1", port, (f"http://127.0.0.1:{port}",))
            for i, port in enumerate(free_ports(hosts))
        )
        self.run_dirs = {p.member_id: short_dir() for p in peers}
        common_names = set(Common.__dataclass_fields__)
        self.settings: dict[int, NodeSettings] = {}
        for peer in peers:
            common = Common(
                cluster_id=77, member_id=peer.member_id, name=peer.name, shard_count=1, placement_depth=2,
                peers=peers, run_dir=self.run_dirs[peer.member_id], heartbeat_interval_ms=100,
                election_timeout_ms=1500, log_format="console",
            )
            common = replace(common, **{k: v for k, v in overrides.items() if k in common_names})  # type: ignore[arg-type]
            node = NodeSettings(
                common=common, shard=0, data_dir=str(directory / peer.name), listen_host="127.0.0.1",
                listen_port=peer.port, client_urls=(f"http://127.0.0.1:{peer.port + 1}",),
                incarnation=peer.member_id,
            )
            self.settings[peer.member_id] = replace(
                node, **{k: v for k, v in overrides.items() if k not in common_names}
            )  # type: ignore[arg-type]
        self.processes: dict[int, subprocess.Popen[bytes]] = {}
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.fronts: list[Front] = []

    def start(self, member_id: int) -> None:
        """Start one node; its log goes to a file beside its data."""
        settings = self.settings[member_id]
        if not Path(settings.data_dir).exists():
            Path(settings.data_dir).mkdir(parents=True)
            seal.seal(settings.data_dir, settings.incarnation)
        with (
            open(Path(settings.data_dir) / "stderr.log", "ab") as log,
            os.fdopen(hand([dumps(settings)])) as handed,
        ):
            self.processes[member_id] = forks.popen(
                [sys.executable, "-m", "tools.muster.processes.node"], stdin=handed, stderr=log,
                cwd=Path(__file__).parents[2])

    def start_all(self) -> None:
        for member_id in self.settings:
            self.start(member_id)

    def kill(self, member_id: int) -> None:
        """As a power cut of that process."""
        process = self.processes.pop(member_id)
        process.kill()
        process.wait()

    def logs(self, member_id: int) -> str:
        return (Path(self.settings[member_id].data_dir) / "stderr.log").read_text()

    def front(self, member_id: int) -> Front:
        """A new link to one node."""
        front = Front(self.context, f"ipc://{self.run_dirs[member_id]}/node-0.sock", 77)
        self.fronts.append(front)
        return front

    def wait_leader(self) -> int:
        """The member that leads, once one of the running nodes says so and serves a write."""
        until = time.monotonic() + 60.0
        while time.monotonic() < until:
            for member_id in self.processes:
                front = self.front(member_id)
                try:
                    state = front.state(1.0)
                finally:
                    front.close()
                if state is not None and state[1] in self.processes:
                    return state[1]
        raise TimeoutError("no leader")

    def __enter__(self) -> Nodes:
        self.start_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self.processes.values():
            process.kill()
        for process in self.processes.values():
            process.wait()
        for front in self.fronts:
            front.close()
        self.context.term()


class Front:
    """One link of a front, with blocking calls."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], endpoint: str, cluster_id: int) -> None:
        self.socket = context.socket(zmq.DEALER)
        self.socket.linger = 0
        self.socket.routing_id = os.urandom(12)
        self.socket.connect(endpoint)
        self.sequence = 0
        self.rid = 0
        self.answers: dict[int, list[tuple[int, bytes]]] = {}
        self.states: list[tuple[int, ...]] = []
        self.post(
            [
                messages.request(
                    0, Method.HELLO, 0, HELLO_BODY.pack(frames.LOWEST, cluster_id, 0, 1, 0, 0)
                )
            ]
        )

    def post(self, records: list[bytes]) -> None:
        self.sequence += 1
        self.socket.send(messages.frame(self.sequence, records))

    def request(self, method: int, body: bytes, timeout_ms: int = 30_000) -> int:
        """Send one request; its rid."""
        self.rid += 1
        self.post([messages.request(self.rid, method, timeout_ms, body)])
        return self.rid

    def receive(self, limit_s: float) -> bool:
        """Take in one frame."""
        if not self.socket.poll(int(limit_s * 1000)):
            return False
        _, records = messages.decode_answers(self.socket.recv())
        for rid, status, body in records:
            if status == Status.STATE:
                self.states.append(STATE_BODY.unpack(body))
            else:
                self.answers.setdefault(rid, []).append((status, body))
        return True

    def call(self, method: int, body: bytes, limit_s: float = 30.0) -> tuple[int, bytes]:
        """One request and its (last) answer. TimeoutError."""
        return self.wait(self.request(method, body, int(limit_s * 1000)), limit_s)

    def wait(self, rid: int, limit_s: float = 30.0) -> tuple[int, bytes]:
        until = time.monotonic() + limit_s
        while time.monotonic() < until:
            if self.answers.get(rid):
                return self.answers[rid].pop(0)
            self.receive(max(0.0, until - time.monotonic()))
        raise TimeoutError(f"no answer to {rid}")

    def state(self, limit_s: float) -> tuple[int, ...] | None:
        """The latest STATE, once one has come."""
        until = time.monotonic() + limit_s
        while not self.states and time.monotonic() < until:
            self.receive(max(0.0, until - time.monotonic()))
        return self.states[-1] if self.states else None

    def close(self) -> None:
        self.socket.close(linger=0)
