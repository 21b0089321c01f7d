"""Which writes are a shard's own, once keys have moved (G7)."""

from __future__ import annotations

from cluster.errors import EtcdError
from cluster.evaluate.footprint import footprint, shows_the_past
from cluster.evaluate.steps import finish
from cluster.features.auth.principal import named
from cluster.pb import rpc_pb2 as pb
from cluster.placement import Table
from cluster.wire.messages import Method


class OwnKeys:
    """Of one shard, by a table that its leader has applied."""

    def __init__(self, shard: int, table: Table) -> None:
        self._shard = (shard,)
        self._table = table

    def lacks(self, method: int, body: bytes) -> bool:
        """Whether a write touches what is another shard's, or shows what may have been another's. What is
        malformed is refused in its turn."""
        _, method, body = named(method, body)
        try:
            wanted = footprint(method, body)
        except EtcdError:
            return False
        table = self._table
        if table.past and method == Method.TXN and finish(shows_the_past(pb.TxnRequest.FromString(body))):
            return True
        return any(table.owners(*span) != self._shard for span in (*wanted.reads, *wanted.writes))
