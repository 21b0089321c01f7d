"""What all hosts must agree on: the layout of the store, and the data directory behind each member."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from cluster.effects import records
from cluster.settings import NodeSettings
from node.links.incarnations import REFUSED

if TYPE_CHECKING:
    from node.upkeep.owner import UpkeepNode

AGREED = "agreed"  # file in a node's directory: the layout that this host was not started with


class Agreed:
    def __init__(self, node: UpkeepNode, settings: NodeSettings) -> None:
        self._node = node
        self._settings = settings

    def log_incarnations(self) -> None:
        """The leader of shard 0 logs the data directories of the members that it has heard (H10)."""
        leader = self._node.writes.leader
        if leader is not None:
            for member_id, incarnation in self._node.incarnations.to_log(leader.term):
                leader.append(records.incarnation(member_id, incarnation))

    def incarnations(self, applied: Iterable[tuple[int, int]]) -> None:
        """Such records were applied: a member with another incarnation takes no part, this replica
        neither."""
        node = self._node
        for member_id in node.incarnations.agree(applied):
            if member_id == self._settings.common.member_id:
                node.fail(REFUSED.format(member_id))
            else:
                node.peers.refuse(member_id)

    def check_bootstrap(self, bootstrap: tuple[int, int, int]) -> None:
        """The order log says how the store is laid out; a host started otherwise must not go on."""
        _, shards, depth = bootstrap
        common = self._settings.common
        if (shards, depth) != (common.shard_count, common.placement_depth):
            with open(f"{self._settings.data_dir}/{AGREED}", "w", encoding="utf-8") as f:
                # for the next start of this host; one that is lost is written again
                f.write(f"{shards} {depth}\n")
            self._node.fail(
                f"this cluster has {shards} shards at placement depth {depth}, this host was started with "
                f"{common.shard_count} at depth {common.placement_depth}: start it with --shards {shards} "
                f"--shard-depth {depth}")
