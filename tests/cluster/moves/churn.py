"""Shards are added and retired, and keys move, until it is stopped: beside tests of other things.

``python -m tests.cluster.moves.churn 127.0.0.1:2379 --seed 1`` says ``begun`` once the first shard serves,
goes on until its standard input ends, and prints what it did. Spans begin and end at keys that are there.
Some moves are cancelled at a random place.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Any

import grpc

from cluster.pb import rpc_pb2, shards_pb2
from cluster.placement import Table
from cluster.placement.table import END, State
from tests.cluster.placement import table_at
from tools.musterctl.commands.hosts.shard_changes import owned_by

_LIMIT_S = 60.0
_LOOK_S = 0.02
_AGAIN_S = 0.2  # after what was refused
_REFUSED = (grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.ABORTED, grpc.StatusCode.NOT_FOUND,
            grpc.StatusCode.OUT_OF_RANGE)
# a leader changes, or a host does not answer; whether a change has begun is seen at the next step
_LOST = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
_OVER = {shards_pb2.Move.SWITCHED: "moved", shards_pb2.Move.CANCELLED: "cancelled"}


class Churn:
    def __init__(
        self, endpoints: Sequence[str], seed: int, most_shards: int = 4, *, compacts: bool = False,
        births: float = 0.1,
    ) -> None:  # fmt: skip
        """``most_shards``: at a time, with those of the cluster's beginning. ``compacts``: so that keys may
        go back to where they were. ``births``: the share of steps that add a shard; half of it retires."""
        self.done: Counter[str] = Counter()
        self._random = Random(seed)
        self._most = most_shards
        self._compacts = compacts
        self._births = births
        self._revision = 0  # to compact at
        self._endpoints = list(endpoints)
        self._channels = [grpc.insecure_channel(endpoint) for endpoint in endpoints]
        self._shards: dict[int, bool] = {}  # that were added, and whether each retires
        self._base = list(range(len(self._table().shards)))

    def close(self) -> None:
        for channel in self._channels:
            channel.close()

    def grow(self) -> None:
        """Moves are allowed from here on; hosts may have to say first that they know them."""
        until = time.monotonic() + _LIMIT_S
        while self._ask("EnableGrowth", shards_pb2.EnableGrowthRequest(),
                        shards_pb2.EnableGrowthResponse) is None:
            assert time.monotonic() < until, "the cluster does not grow"
            time.sleep(_AGAIN_S)

    def step(self) -> None:
        """One change, to its end."""
        serving = [shard for shard, retires in self._shards.items() if not retires]
        chance = self._random.random()
        for shard, retires in self._shards.items():
            if retires and serving and chance < 0.5 and (owned := owned_by(self._table(), shard)):
                self._move(*owned[0], self._random.choice([*self._base, *serving]))
                return
        if self._compacts and chance > 0.85:
            self._compact()
        elif not serving or (chance < self._births and len(serving) + len(self._base) < self._most):
            self._add()
        elif chance < 1.5 * self._births and len(serving) > 1:
            self._retire(self._random.choice(serving))
        else:
            start, end = self._span()
            self._move(start, end, self._random.choice([*self._base, *serving]))

    def _compact(self) -> None:
        """At the revision of the last call: watches are further."""
        revision, self._revision = self._revision, self._newest()
        if revision and self._call(
            "/etcdserverpb.KV/Compact", rpc_pb2.CompactionRequest(revision=revision),
            rpc_pb2.CompactionResponse) is not None:
            self.done["compacted"] += 1

    def _newest(self) -> int:
        found = self._call(
            "/etcdserverpb.KV/Range", rpc_pb2.RangeRequest(key=END, count_only=True), rpc_pb2.RangeResponse)
        return int(found.header.revision) if found is not None else 0

    def _add(self) -> None:
        answer = self._ask("AddShard", shards_pb2.AddShardRequest(), shards_pb2.AddShardResponse)
        if answer is None:
            return
        until = time.monotonic() + 2 * _LIMIT_S
        while (state := self._state(answer.shard)) == State.FORMING:
            assert time.monotonic() < until, f"shard {answer.shard} is not born"
            time.sleep(_LOOK_S)
        if state == State.SERVING:
            self._shards[answer.shard] = False
            self.done["added"] += 1

    def _state(self, shard: int) -> State:
        known = self._table().shards.get(shard)
        return State.FORMING if known is None else known.state

    def _retire(self, shard: int) -> None:
        request = shards_pb2.RetireShardRequest(shard=shard, with_keys=True)
        if self._ask("RetireShard", request, shards_pb2.RetireShardResponse) is not None:
            self._shards[shard] = True
            self.done["retired"] += 1

    def _table(self) -> Table:
        """As some host has applied it."""
        until = time.monotonic() + _LIMIT_S
        while True:
            try:
                return table_at(self._endpoints[0], _LIMIT_S)
            except OSError:  # that host is down
                assert time.monotonic() < until, "no host says where keys are"
                self.done["lost"] += 1
                self._endpoints.append(self._endpoints.pop(0))
                time.sleep(_AGAIN_S)

    def _span(self) -> tuple[bytes, bytes]:
        """From a key that is there to another one."""
        found = self._call("/etcdserverpb.KV/Range", rpc_pb2.RangeRequest(
            key=END, range_end=END, keys_only=True, limit=200, serializable=True), rpc_pb2.RangeResponse)
        keys = sorted(kv.key for kv in found.kvs) if found is not None else []
        bounds = sorted({self._random.choice(keys) for _ in range(2)}) if keys else []
        if len(bounds) == 2:
            return bounds[0], bounds[1]
        return (bounds or [END])[0], END

    def _move(self, start: bytes, end: bytes, target: int) -> None:
        request = shards_pb2.MoveRequest(key=start, range_end=end, target=target)
        answer = self._ask("Move", request, shards_pb2.MoveResponse)
        if answer is None:
            return
        cancels_at = time.monotonic() + self._random.uniform(0, 0.5) if self._random.random() < 0.2 else None
        until = time.monotonic() + 2 * _LIMIT_S
        while (step := self._step_of(answer.move)) not in _OVER:
            assert time.monotonic() < until, f"move {answer.move} does not end"
            if cancels_at is not None and time.monotonic() >= cancels_at:
                cancels_at = None
                self._ask("CancelMove", shards_pb2.CancelMoveRequest(move=answer.move),
                          shards_pb2.CancelMoveResponse)
            time.sleep(_LOOK_S)
        self.done[_OVER[step]] += 1

    def _step_of(self, number: int) -> int:
        answer = self._ask("Moves", shards_pb2.MovesRequest(), shards_pb2.MovesResponse)
        for found in answer.moves if answer is not None else ():
            if found.move == number:
                return int(found.step)
        return int(shards_pb2.Move.UNKNOWN)

    def _ask(self, method: str, request: Any, response: Any) -> Any:
        """None: refused, or lost."""
        return self._call(f"/musterpb.Shards/{method}", request, response)

    def _call(self, path: str, request: Any, response: Any) -> Any:
        call: Callable[..., Any] = self._channels[0].unary_unary(
            path, request_serializer=type(request).SerializeToString,
            response_deserializer=response.FromString)
        try:
            return call(request, timeout=_LIMIT_S)
        except grpc.RpcError as error:
            if error.code() in _REFUSED:
                self.done["refused"] += 1
                time.sleep(_AGAIN_S)
            elif error.code() in _LOST:
                self.done["lost"] += 1
                self._channels.append(self._channels.pop(0))
                time.sleep(_AGAIN_S)
            else:
                raise
            return None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("endpoints", help="host:port,...")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--most-shards", type=int, default=4)
    parser.add_argument("--births", type=float, default=0.1)
    parser.add_argument("--counts", type=Path, help="a folder for a file of what was done until now")
    given = parser.parse_args()
    churn = Churn(given.endpoints.split(","), given.seed, given.most_shards, births=given.births)
    stopped = threading.Event()

    def go_on() -> None:
        churn.grow()
        begun = False
        while not stopped.is_set():
            churn.step()
            if churn.done["added"] and not begun:
                begun = True
                print("begun", flush=True)
            if given.counts is not None:
                fresh = given.counts / f".{os.getpid()}"  # it may be killed at any moment
                fresh.write_text(json.dumps(churn.done), encoding="utf-8")
                fresh.rename(given.counts / f"{os.getpid()}.json")

    def end_with_failures() -> None:
        """What goes wrong ends the process: whatever runs beside it looks for that."""
        try:
            go_on()
        except BaseException:
            traceback.print_exc()
            os._exit(1)

    thread = threading.Thread(target=end_with_failures)
    thread.start()
    sys.stdin.read()
    stopped.set()
    thread.join()
    print(told(churn.done), flush=True)


def told(done: Counter[str]) -> str:
    return " ".join(f"{name}={times}" for name, times in sorted(done.items())) or "nothing"


if __name__ == "__main__":
    main()
