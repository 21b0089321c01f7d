"""Who moves keys in clusters that run, and where their processes are.

A move is held up by SIGSTOP of the target's node on one host: the copy there comes no further, and the
switch waits for it. What a node says of itself is asked of it alone, by the protocol of fronts: others of its
host may stand still.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import time
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import zmq

from cluster.pb import shards_pb2
from cluster.placement import Table
from cluster.placement.table import State
from cluster.wire.link import AskingEnd
from cluster.wire.messages import HEAD, READ, Method, Status, request
from tests.cluster.local_cluster import LIMIT_S, until
from tools.muster.host import rundir

ENDS_S = 4 * LIMIT_S  # a move, on a machine that is busy
SPANS = 7  # of ``Load``
_CALL_S = 10.0
_FACTS_S = 1.0


def directory(number: int) -> tuple[bytes, bytes]:
    """One of the load's directories."""
    return b"/load/%d/" % number, b"/load/%d0" % number


def facts_of(folder: Path, shard: int, cluster_id: int) -> dict[str, Any]:
    """What a host's node of a shard says of itself; empty: it does not answer."""
    ends = time.monotonic() + _FACTS_S
    with zmq.Context(io_threads=1) as context, context.socket(zmq.DEALER) as socket:
        socket.setsockopt(zmq.LINGER, 0)
        socket.connect(f"ipc://{rundir.run_dir_of(str(folder))}/node-{shard}.sock")
        end = AskingEnd()
        socket.send(end.frame([
            end.hello(cluster_id, 0, secrets.randbits(64)),
            request(1, Method.FACTS, int(_FACTS_S * 1000), READ.pack(0, 0))]))
        while (left_s := ends - time.monotonic()) > 0:
            if not socket.poll(int(left_s * 1000) + 1):
                break
            for rid, status, body in end.opened(socket.recv(), time.monotonic()):
                if rid == 1 and status == Status.OK:
                    found: dict[str, Any] = json.loads(body[HEAD.size:])
                    return found
    return {}


@dataclass(frozen=True)
class Nodes:
    """The processes of a cluster, as they were when it was well."""

    pids: Mapping[tuple[int, int], int]  # host, shard
    leaders: Mapping[int, int]  # of shards

    def leader(self, shard: int) -> int:
        """Its process."""
        return self.pids[self.leaders[shard], shard]

    def followers(self, shard: int) -> list[int]:
        """The processes of a shard that do not lead it."""
        leader = self.leaders[shard]
        return [pid for (host, of), pid in sorted(self.pids.items()) if of == shard and host != leader]


class Operator:
    """Moves spans, at whichever host answers."""

    def __init__(
        self, endpoints: Callable[[], Mapping[int, str]], folder: Callable[[int], Path]
    ) -> None:
        """``endpoints``: of the hosts that run, by number. ``folder``: a host's."""
        self._endpoints = endpoints
        self._folder = folder
        self._cluster_id = 0
        self._channels: dict[str, grpc.Channel] = {}
        self.refused = ""  # why the last call was

    def close(self) -> None:
        for channel in self._channels.values():
            channel.close()

    def ask(self, method: str, request: Any, response: Any) -> Any:
        """None: refused at every host, or lost."""
        for endpoint in self._endpoints().values():
            if endpoint not in self._channels:
                self._channels[endpoint] = grpc.insecure_channel(
                    endpoint, options=[("grpc.max_reconnect_backoff_ms", 500)])
            call: Callable[..., Any] = self._channels[endpoint].unary_unary(
                f"/musterpb.Shards/{method}", request_serializer=type(request).SerializeToString,
                response_deserializer=response.FromString)
            try:
                return call(request, timeout=_CALL_S)
            except grpc.RpcError as error:
                self.refused = str(error)
        return None

    def grow(self) -> None:
        """Hosts may have to say first that they know moves."""
        until(lambda: self.ask("EnableGrowth", shards_pb2.EnableGrowthRequest(),
                               shards_pb2.EnableGrowthResponse) is not None, look_s=0.2)

    # -- what hosts say

    def table(self, host: int | None = None) -> Table:
        """As a host has applied it; None: the first that answers."""
        hosts = [host] if host is not None else list(self._endpoints())
        return Table.decode(bytes.fromhex(until(lambda: self._page(hosts, "placement"))["table"]))

    def facts(self, host: int, shard: int) -> dict[str, Any]:
        """What a node says of itself; empty: nothing."""
        if not self._cluster_id:
            self._cluster_id = int(until(lambda: self._page([host], "placement"))["cluster_id"], 16)
        return facts_of(self._folder(host), shard, self._cluster_id)

    def _page(self, hosts: Iterable[int], page: str) -> dict[str, Any]:
        endpoints = self._endpoints()
        for host in hosts:
            with contextlib.suppress(OSError, KeyError):
                url = f"http://{endpoints[host]}/muster/{page}"
                with urllib.request.urlopen(url, timeout=_CALL_S) as answer:
                    found: dict[str, Any] = json.load(answer)
                    return found
        return {}

    def nodes(self) -> Nodes:
        """Once all are well."""
        def well() -> Nodes | None:
            running = [shard for shard, known in self.table().shards.items() if known.state == State.SERVING]
            pids: dict[tuple[int, int], int] = {}
            leaders: dict[int, int] = {}
            for host in self._endpoints():
                for shard in running:
                    if not (facts := self.facts(host, shard)):
                        return None
                    pids[host, shard] = facts["pid"]
                    if facts["role"] == "leader" and facts["serving"]:
                        leaders[shard] = host
            return Nodes(pids, leaders) if len(leaders) == len(running) else None

        found: Nodes = until(well, ENDS_S, look_s=0.2)
        return found

    # -- moves

    def span(self, source: int, target: int) -> tuple[bytes, bytes] | None:
        """One of the load's directories that may move from one shard to another; None: there is none."""
        table = self.table()
        for number in range(SPANS):
            start, end = directory(number)
            if table.owners_of(start, end) == (source,) and not table.past_of(target, start, end):
                return start, end
        return None

    def begin(self, span: tuple[bytes, bytes], target: int) -> int:
        """The number of a move that has begun."""
        request = shards_pb2.MoveRequest(key=span[0], range_end=span[1], target=target)

        def begun() -> int:
            if (answer := self.ask("Move", request, shards_pb2.MoveResponse)) is not None:
                return int(answer.move)
            table = self.table()  # the answer may have been lost
            if (table.move and (table.move.start, table.move.end)) == span or self._owns(table, span, target):
                return table.last_move
            return 0

        return int(until(begun, ENDS_S, look_s=0.2))

    @staticmethod
    def _owns(table: Table, span: tuple[bytes, bytes], shard: int) -> bool:
        return table.owners_of(*span) == (shard,)

    def goes_on(self, number: int) -> bool:
        move = self.table().move
        return move is not None and move.number == number

    def moved(self, number: int, span: tuple[bytes, bytes], target: int) -> None:
        """Wait for the end of a move, which has to be the switch. A host that lags may not know it yet."""
        def over() -> Table | None:
            table = self.table()
            goes_on = table.move is not None and table.move.number == number
            return table if table.last_move >= number and not goes_on else None

        try:
            table = until(over, ENDS_S, look_s=0.1)
        except AssertionError:
            said = [self.said(number, host) for host in self._endpoints()]
            raise AssertionError(f"move {number} does not end: {said}") from None
        assert self._owns(table, span, target)

    def cancel(self, number: int) -> bool:
        request = shards_pb2.CancelMoveRequest(move=number)
        return self.ask("CancelMove", request, shards_pb2.CancelMoveResponse) is not None

    def said(self, number: int, host: int) -> dict[str, Any]:
        """What the sequencer on a host says of the move; empty: nothing."""
        found: dict[str, Any] = self.facts(host, 0).get("move", {})
        return found if found.get("move") == number else {}


def whole(said: Mapping[str, Any]) -> int:
    """How many hosts have a copy of all pages."""
    return sum(copy["whole"] for copy in said.get("hosts", {}).values())


@contextlib.contextmanager
def standing(*pids: int) -> Iterator[None]:
    """Processes that stand still meanwhile."""
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        resume(*pids)


def resume(*pids: int) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):  # it was killed meanwhile
            os.kill(pid, signal.SIGCONT)


def kill(*pids: int) -> None:
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
