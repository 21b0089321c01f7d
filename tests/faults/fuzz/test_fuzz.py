"""Whatever comes to a host's ports, no process ends, the store goes on, and no fault of the program is met.

Every input is a function of a seed and a number. A failure names the kind, the seed and the numbers since all
was well: ``MUSTER_FUZZ="methods 7 1200-1260"`` sends these again, and nothing else. Each kind takes four
seconds on each of two clusters; by ``make soak`` it takes 100.
The store is the fuzz's own: its data is fair game.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import select
import socket
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import grpc
import pytest

from cluster.effects import records
from cluster.effects.newer import NewerRecord
from cluster.faults import faults
from cluster.order.log import ENTRY_ITEMS, entry, entry_count
from cluster.order.sound import Place, sound
from cluster.pb import rpc_pb2
from cluster.raft import Configuration, Entry, EntryKind
from node.storage import RaftLog
from tests.cluster.local_cluster import STEADY, LocalCluster, alive, local_cluster, until
from tests.cluster.one_host import started
from tests.faults.fuzz import connections, gateway, messages, peers
from tests.faults.fuzz.births import Births
from tests.soaking import amount
from tests.unit.odd_records import EXAMPLES, count_revisions
from tools.muster.machine.zmtp.port.preamble import wants

LIMIT_S = 20.0
RUN_S = amount(4.0, soak=100.0)
LOOK_S = 2.0  # between two looks at the processes
FEWEST = 6  # inputs of a kind, however busy the machine
# in CI a new find would mark the wrong change (tests/conftest.py)
SEED = 11 if os.environ.get("MUSTER_CI") else secrets.randbits(32)
Send = Callable[[Random, "Target"], None]


class Target:
    """A running cluster, and what it was before."""

    def __init__(self, cluster: LocalCluster) -> None:
        self.cluster = cluster
        self.endpoints = cluster.endpoints()
        self.pids = cluster.pids()
        self.shard_of = {
            node["pid"]: node["shard"] for host in cluster.status()["hosts"] for node in host["nodes"]}
        self.shards = len(cluster.status()["shards"])
        own, other = (
            json.loads(next(cluster.data_dir.glob(f"{host}/**/identity.json")).read_text())
            for host in ("host0", "host2")
        )
        self.impostor = peers.Impostor(
            int(other["cluster_id"], 16), int(other["member_id"], 16), int(other["incarnation"], 16),
            int(own["member_id"], 16), own["shard_count"], own["placement_depth"])
        (self.peer_port,) = (peer["port"] for peer in own["peers"] if peer["member_id"] == own["member_id"])
        self.channel = grpc.insecure_channel(self.endpoints[0])
        self.births = Births(self.endpoints[0], self.channel, self.shards)
        self.expected_faults = 0.0  # met before

    def faults(self) -> float:
        """What all fronts and nodes have counted."""
        found = 0.0
        for endpoint in self.endpoints:
            with urllib.request.urlopen(f"http://{endpoint}/metrics", timeout=LIMIT_S) as answer:
                for line in answer.read().decode().splitlines():
                    if line.startswith(("muster_front_faults_total", "muster_node_faults_total")):
                        found += float(line.rsplit(" ", 1)[1])
        return found

    def ended(self) -> list[str]:
        """Processes that have ended, as no request may ask. Requests may have shards born, and shards end. A
        supervisor on a busy machine may answer late, so it is not asked."""
        ended = [pid for pid in self.pids if not alive(pid)]
        return [f"{pid}, shard {self.shard_of.get(pid)}" for pid in ended
                if not self.births.dropped(self.shard_of.get(pid, 0))]

    def log(self) -> str:
        """What all hosts have logged."""
        return "".join(path.read_text(encoding="utf-8") for path in self.cluster.data_dir.glob("host*.log"))

    def look(self, where: str, *, may_fault: bool = False) -> None:
        """All is well, as far as can be seen from outside."""
        assert not (ended := self.ended()), f"processes have ended: {ended}, {where}\n{self.log()[-5000:]}"
        for endpoint in self.endpoints:
            until(lambda endpoint=endpoint: answers(endpoint), LIMIT_S)  # type: ignore[misc]
        log = self.log()
        if not may_fault:
            assert self.faults() == self.expected_faults, (
                f"a fault of the program was met: {where}\n{log[-5000:]}"
            )
        assert "this node crashed" not in log, f"{where}\n{log[-5000:]}"
        self.births.run()


def answers(endpoint: str) -> bool:
    """Whether a put is taken, after alarms that the fuzz may have raised are disarmed."""
    with grpc.insecure_channel(endpoint) as channel:
        alarm = channel.unary_unary(
            "/etcdserverpb.Maintenance/Alarm", response_deserializer=rpc_pb2.AlarmResponse.FromString
        )
        put = channel.unary_unary("/etcdserverpb.KV/Put")
        with contextlib.suppress(grpc.RpcError):
            for raised in alarm(rpc_pb2.AlarmRequest().SerializeToString(), timeout=LIMIT_S).alarms:
                alarm(rpc_pb2.AlarmRequest(action=rpc_pb2.AlarmRequest.DEACTIVATE, memberID=raised.memberID,
                                           alarm=raised.alarm).SerializeToString(), timeout=LIMIT_S)
            put(rpc_pb2.PutRequest(key=b"beside", value=b"v").SerializeToString(), timeout=LIMIT_S)
            return True
    return False


def call_methods(r: Random, target: Target) -> None:
    """Twenty calls at once; each gets an answer or a status, or is left alone."""
    open_calls = []
    for _ in range(20):
        path, bodies = messages.requests(r)
        call = target.channel.stream_stream(path, request_serializer=bytes, response_deserializer=bytes)
        open_calls.append(
            call(
                iter(bodies),
                timeout=0.2 if path.endswith(("Watch", "LeaseKeepAlive", "Lock", "Campaign")) else 2.0,
            )
        )
    for call in open_calls:
        with contextlib.suppress(grpc.RpcError):
            next(iter(call), None)
        call.cancel()


def _bytes_to(port: int, data: bytes) -> None:
    with (
        contextlib.suppress(OSError),
        socket.create_connection(("127.0.0.1", port), timeout=LIMIT_S) as connection,
    ):
        connection.sendall(data)
        connection.settimeout(0.03)
        for _ in range(4):  # a node's signs of life never end
            if not connection.recv(65_536):
                break


def talk_to_the_gateway(r: Random, target: Target) -> None:
    """Ten connections at once, each read for a moment."""
    port = int(target.endpoints[0].rpartition(":")[2])
    with contextlib.ExitStack() as stack:
        talking: list[socket.socket] = []
        for _ in range(10):
            data = gateway.request(r)
            with contextlib.suppress(OSError):
                connection = socket.create_connection(("127.0.0.1", port), timeout=LIMIT_S)
                talking.append(stack.enter_context(connection))
                connection.sendall(data)
        until_s = time.monotonic() + 0.1
        while talking and (left_s := until_s - time.monotonic()) > 0:
            for connection in select.select(talking, [], [], left_s)[0]:
                with contextlib.suppress(OSError):
                    if connection.recv(65_536):
                        continue
                talking.remove(connection)


def to_clients_port(make: Callable[[Random], bytes]) -> Send:
    """What it makes, to the port for clients, in three connections."""
    def send(r: Random, target: Target) -> None:
        for _ in range(3):
            _bytes_to(int(target.endpoints[0].rpartition(":")[2]), make(r))

    return send


def talk_as_stranger(r: Random, target: Target) -> None:
    for _ in range(3):
        _bytes_to(target.peer_port, peers.preamble(r, r.randrange(target.shards)) + peers.stranger(r))


def talk_as_peer(r: Random, target: Target) -> None:
    for _ in range(3):
        shard = r.randrange(target.shards)
        _bytes_to(target.peer_port, wants(shard) + peers.frames(r, target.impostor, shard))


KINDS: dict[str, Send] = {
    "methods": call_methods, "http2": to_clients_port(connections.http2),
    "http1": to_clients_port(connections.http1), "anything": to_clients_port(connections.anything),
    "gateway": talk_to_the_gateway, "stranger": talk_as_stranger, "peer": talk_as_peer,
}
#: Whoever holds the peer port may send what a node has to call a mistake: it is counted, and the sender hears
#: INTERNAL.
MAY_FAULT = frozenset(("peer",))


@pytest.fixture(
    scope="module", params=[("0", 2), ("1", 1)],
    ids=["two shards, front in node 0", "one shard, front of its own"],
)
def target(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    fronts, shards = request.param
    data_dir = tmp_path_factory.mktemp("fuzz") / "d"
    with local_cluster(data_dir, 3, f"--shards={shards}", f"--fronts={fronts}", extra=STEADY) as cluster:
        found = Target(cluster)
        yield found
        found.channel.close()


@pytest.mark.longer
@pytest.mark.parametrize("kind", KINDS)
def test_no_input_ends_a_process_or_meets_a_fault(target: Target, kind: str) -> None:
    replay = os.environ.get("MUSTER_FUZZ", "").split()
    if replay and replay[0] != kind:
        pytest.skip("another kind is replayed")
    seed = int(replay[1]) if replay else SEED
    first, _, last = replay[2].partition("-") if replay else ("0", "", "")
    number = well = int(first)
    target.expected_faults = target.faults()
    until_s, looked = time.monotonic() + RUN_S, time.monotonic()
    while number <= int(last) if replay else time.monotonic() < until_s or number < FEWEST:
        KINDS[kind](Random(f"{kind}/{seed}/{number}"), target)
        number += 1
        if time.monotonic() - looked > LOOK_S:
            target.look(f'MUSTER_FUZZ="{kind} {seed} {well}-{number - 1}"', may_fault=kind in MAY_FAULT)
            well, looked = number, time.monotonic()
    target.look(f'MUSTER_FUZZ="{kind} {seed} {well}-{number - 1}"', may_fault=kind in MAY_FAULT)
    print(f"{kind}: seed {seed}, {number - int(first)} inputs")


# -- what a log holds


def _odd_items(r: Random, place: Place) -> bytes:
    """Items that no replica can apply, as a leader's mistake might have made them."""
    while True:
        item = bytearray(messages.mutated(r, r.choice(EXAMPLES)))
        data = records.ITEM.pack(item[0] if item else 0, max(len(item) - records.ITEM.size, 0)) + bytes(
            item[records.ITEM.size :]
        )
        with contextlib.suppress(NewerRecord):
            kept = sound(data, place)
            if kept is not data and all(kind == records.Item.SKIP for kind, _, _ in records.items(kept)):
                return data


def _append(log_dir: Path, items: list[bytes], place: Place) -> None:
    """As records of the log's last leader, in a shard other than 0 with the counts that it would have given
    them."""
    log = RaftLog.open(
        log_dir, initial=Configuration(frozenset((1,))), no_fsync=False, write_buffer_bytes=1 << 20
    )
    try:
        last, term = log.last_index(), log.hard_state().term
        if place is Place.ENTRY:
            before = [
                e.data
                for e in log.entries(max(log.snapshot_position().index + 1, last - 100), last, 1 << 20)
                if e.kind == EntryKind.RECORD and len(e.data) >= ENTRY_ITEMS
            ]
            count = entry_count(before[-1])
            for at, item in enumerate(items):
                count += count_revisions(sound(item, place))
                items[at] = entry(count, item)
        log.append(
            [Entry(last + at, term, EntryKind.RECORD, data) for at, data in enumerate(items, 1)],
            log.hard_state(),
        )
        log.sync()
    finally:
        log.close()


@pytest.mark.longer
@pytest.mark.parametrize("shards", [1, 2])
def test_a_store_whose_logs_hold_what_nobody_can_apply_starts_and_serves(tmp_path: Path, shards: int) -> None:
    """Lives of one host: each ends hard, finds more of it in its logs, and takes puts on every shard."""
    r, port = Random(f"log/{SEED}"), 0
    print(f"seed {SEED}")
    data_dir, log = tmp_path / "h", tmp_path / "h.stderr"
    for life in range(amount(2, soak=7)):
        with started(data_dir, port, shards) as host:
            port = host.port
            until(host.serves, LIMIT_S)
            began = host.process.pid
            with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
                put = channel.unary_unary("/etcdserverpb.KV/Put")
                for key in range(8):
                    put(
                        rpc_pb2.PutRequest(key=b"/s%d/k" % key, value=b"%d" % life).SerializeToString(),
                        timeout=LIMIT_S,
                    )
            assert host.process.poll() is None
            assert began == host.process.pid
            if life:  # a node logs its faults each second
                until(lambda: "UnsoundItem" in log.read_text(encoding="utf-8"), LIMIT_S)
            text = log.read_text(encoding="utf-8")
            assert "crashed" not in text, text[-5000:]
        for shard in range(shards):
            place = Place.ENTRY if shard else Place.ORDER if shards > 1 else Place.ALONE
            folder = next(p for p in data_dir.rglob(f"shard-{shard}/log"))
            _append(folder, [_odd_items(r, place) for _ in range(30)], place)
    faults.take()  # this process met them, too, as it looked for such items
