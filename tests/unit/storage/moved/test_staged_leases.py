"""A staged key keeps its lease row when its replica applies an older end of the lease."""

from __future__ import annotations

from pathlib import Path

from cluster.effects import records
from cluster.order.moving.copier import Copier
from cluster.placement.changes import move_item
from cluster.placement.table import Move
from node.storage.state.moving.staging import answer, begin_copy, stage
from tests.unit.storage.moved.cluster import BASE, LEASES, Cluster


def test_an_older_revoke_leaves_the_lease_rows_of_staged_keys(tmp_path: Path) -> None:
    cluster, lease, key = Cluster(tmp_path, 1, hosts=1), LEASES[0], b"a1"
    owner = cluster.table.owner(key)
    target = BASE if owner != BASE else BASE + 1
    before = cluster.model.revision
    cluster.apply({owner: cluster.model.put(key, b"v", lease)}, before)
    move = Move(cluster.table.last_move + 1, key, key + b"\0", (owner,), target)
    cluster.place(move_item(move))
    store, copier = cluster.stores[0, target], Copier(move)
    begun = copier.begin(None)
    assert begun is not None
    begin_copy(store, move, begun.staging)
    while not copier.whole:
        for ask in copier.asks():
            batch = copier.take(ask, answer(cluster.stores[0, owner], move, ask))
            if batch is not None:
                stage(store, batch)
    wanted = list(store.attachment_rows(lease))
    assert [row[9:] for row in wanted] == [key]
    cluster.apply({target: records.lease_revoke(lease, [])}, cluster.model.revision)
    assert list(store.attachment_rows(lease)) == wanted
    cluster.close()
