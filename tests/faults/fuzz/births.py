"""Shards that the fuzz's requests have born: the eldest end again.

In minutes the requests would have as many born as a cluster takes, each of them a process a host. Those that
end own keys, perhaps: these move to shard 0 first, as an operator would have it.
"""

from __future__ import annotations

import contextlib

import grpc

from cluster.pb import shards_pb2
from cluster.placement import Table
from cluster.placement.table import State
from tests.cluster.placement import table_at

KEPT = 4  # of those that were born: requests may move keys to them, and ask for their end
LIMIT_S = 20.0


class Births:
    """Of one cluster, which ``base`` shards have begun."""

    def __init__(self, endpoint: str, channel: grpc.Channel, base: int) -> None:
        self._endpoint = endpoint
        self._base = base
        self._retire = channel.unary_unary("/musterpb.Shards/RetireShard")
        self._move = channel.unary_unary("/musterpb.Shards/Move")

    def table(self) -> Table:
        """As the first host has applied it."""
        return table_at(self._endpoint, LIMIT_S)

    def run(self) -> None:
        """Have shards end that are too many, and keys move away from those that end. What is refused now is
        asked for again the next time."""
        table = self.table()
        born = {shard: known.state for shard, known in sorted(table.shards.items()) if shard >= self._base}
        serving = [shard for shard, state in born.items() if state == State.SERVING]
        for shard in serving[: max(len(serving) - KEPT, 0)]:
            retire = shards_pb2.RetireShardRequest(shard=shard, with_keys=True)
            with contextlib.suppress(grpc.RpcError):
                self._retire(retire.SerializeToString(), timeout=LIMIT_S)
        for span in table.spans:
            if table.move is None and born.get(span.owner) == State.RETIRING:
                move = shards_pb2.MoveRequest(key=span.start, range_end=span.end, target=0)
                with contextlib.suppress(grpc.RpcError):
                    self._move(move.SerializeToString(), timeout=LIMIT_S)
                    break  # there is one move at a time

    def dropped(self, shard: int) -> bool:
        """Whether it has ended, as requests asked: one of the first may, too, once its keys have moved."""
        return self.table().shards[shard].state == State.DROPPED
