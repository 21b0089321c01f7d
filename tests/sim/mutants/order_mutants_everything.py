"""Rules that only everything at once can see: each is taken out of the code, and a check must name it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from cluster.evaluate import feature_table
from cluster.features.auth import judge
from cluster.members.host_changes import HostChange, Kind
from cluster.wire.messages import Method
from node.backup import build as backup
from node.backup import users
from node.members.changes import Changes
from node.members.roster import Roster
from node.replica.shards.order_role import OrderRole
from node.serving.v2 import V2Tree
from node.storage import Position
from node.upkeep.log.flushes import Flushes
from proxy.watch.permissions import Permissions
from proxy.watch.stream import WatchStream
from tests.sim.everything.order_backups import RULE

Patch = pytest.MonkeyPatch


@dataclass
class Mutant:
    """One rule less."""

    remove: Callable[[Patch], None]
    rules: tuple[str, ...]  # that may notice it
    shards: int = 2
    first: int = 0  # seed
    ways: tuple[str, ...] = ()  # of its plan

    def __str__(self) -> str:
        return self.remove.__name__


def anybody_changes_the_members(patch: Patch) -> None:
    """MEMBERS is root's alone."""
    patch.setitem(judge._NEEDS, Method.MEMBERS, (bytes, lambda asked, body: None))


def v2_goes_on_while_users_are_on(patch: Patch) -> None:
    """Users of version 3 are none of version 2's."""
    evaluate = feature_table.WRITES[Method.V2_WRITE]

    class NoUsers:
        def __init__(self, leader: Any) -> None:
            self._leader, self.auth = leader, type("Off", (), {"enabled": False})

        def __getattr__(self, name: str) -> Any:
            return getattr(self._leader, name)

    patch.setitem(feature_table.WRITES, Method.V2_WRITE, lambda leader, body: evaluate(NoUsers(leader), body))  # type: ignore[arg-type]


def v2_ends_what_is_not_over(patch: Patch) -> None:
    """A leader goes by its wall, and by nothing later."""
    look = V2Tree.look

    def early(self: V2Tree) -> None:
        machine: Any = self._node.machine
        wall, machine.wall_time = machine.wall_time, lambda: wall() + 1.5
        try:
            look(self)
        finally:
            machine.wall_time = wall

    patch.setattr(V2Tree, "look", early)


def who_was_removed_is_not_told(patch: Patch) -> None:
    """A host that group 0 has let go ends, and is told so by the others."""
    patch.setattr(Roster, "is_removed", lambda self, member_id: False)


def a_shard_that_is_behind_is_taken(patch: Patch) -> None:
    """A backup is of shard 0's place of the order: the others are there, or further."""

    class Anything(Position):
        order_index = property(lambda self: 0)  # type: ignore[assignment]

    class Checkpoint(backup.Checkpoint):
        def __init__(self, path: Path, shard: int = 0) -> None:
            super().__init__(path, shard)
            self.position = Anything(*self.position)

    patch.setattr(backup, "Checkpoint", Checkpoint)


def tokens_of_before_count(patch: Patch) -> None:
    """Tokens were signed by the cluster that the backup is of."""

    class User(users.User):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args[:4], 0)

    patch.setattr(users, "User", User)


def removals_are_answered_when_they_are_logged(patch: Patch) -> None:
    """MemberRemove is answered once the host is out of every group."""
    finished = Changes._finished
    patch.setattr(
        Changes, "_finished", lambda self, change: change.kind is Kind.REMOVE or finished(self, change))


def promotions_are_answered_when_group_0_has_them(patch: Patch) -> None:
    """MemberPromote is answered once the host votes in every group."""
    finished = Changes._finished

    def early(self: Changes, change: HostChange) -> bool:
        if change.kind is Kind.PROMOTE:
            return change.member_id in self._node.raft.committed_configuration.voters
        return finished(self, change)

    patch.setattr(Changes, "_finished", early)


def changes_of_members_do_not_wait(patch: Patch) -> None:
    """A change begins once most of those that vote then have on disk what may be no order record any more."""
    patch.setattr(OrderRole, "covers", lambda self, voters, last: True)
    patch.setattr(Flushes, "hasten", lambda self, *, wanted, anew=False: None)


def watches_outlive_permissions(patch: Patch) -> None:
    """A watch ends when its user loses the permission."""
    patch.setattr(Permissions, "changed", lambda self: None)


def watches_in_doubt_go_on(patch: Patch) -> None:
    """A watch gets nothing from a change of users on until it is judged anew."""
    patch.setattr(WatchStream, "doubt", lambda self, change: None)


def anybody_watches(patch: Patch) -> None:
    """A watch is created once its user may read the range."""
    patch.setattr(Permissions, "may_watch", lambda self, call, ranges, then: False)


def backups_show_what_has_left(patch: Patch) -> None:
    """A version of a key comes out of the shard that owned it then (G6)."""

    class Checkpoint(backup.Checkpoint):
        def __init__(self, path: Path, shard: int = 0) -> None:
            super().__init__(path, shard)
            self._owned = None

    patch.setattr(backup, "Checkpoint", Checkpoint)


MUTANTS = [
    Mutant(removals_are_answered_when_they_are_logged, ("liveness", "I2", "I17"), first=5),
    Mutant(promotions_are_answered_when_group_0_has_them, ("who was promoted",), first=11),
    Mutant(changes_of_members_do_not_wait, ("I17 who votes",), shards=3, first=13),
    Mutant(anybody_changes_the_members, ("P1",), first=2),
    Mutant(v2_goes_on_while_users_are_on, ("v2: nobody writes while",)),
    Mutant(v2_ends_what_is_not_over, ("v2: no node ends early",)),
    Mutant(who_was_removed_is_not_told, ("liveness", "I23"), first=3),
    Mutant(a_shard_that_is_behind_is_taken, (RULE,), first=10),
    Mutant(tokens_of_before_count, (RULE,)),
    Mutant(
        watches_outlive_permissions, ("P5 no watch stands", "P5 no watch shows"), first=14, ways=("more",)),
    Mutant(watches_in_doubt_go_on, ("P5 no watch shows",), first=63, ways=("more",)),
    Mutant(backups_show_what_has_left, (RULE,), first=50, ways=("moves", "real")),
    Mutant(anybody_watches, ("P5 nobody watches",), ways=("more",)),
]
