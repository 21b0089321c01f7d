"""A host that is not what the others know ends, or is refused."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cluster.settings import Common, NodeSettings
from node.links.incarnations import Incarnations
from node.upkeep.group.agreed import Agreed
from tools.muster.host.identity import bootstrap


class Memory:
    """What a Raft log remembers besides."""

    def __init__(self) -> None:
        self.kept: dict[str, bytes] = {}

    def meta(self, name: str) -> bytes | None:
        return self.kept.get(name)

    def set_meta(self, name: str, value: bytes) -> None:
        self.kept[name] = value

    def sync(self) -> None:
        """Nothing here is lost."""


class Host:
    """Host 1 of three shards at depth 2; it has met who is named."""

    def __init__(self, path: Path, met: Mapping[int, int] | None = None) -> None:
        self.reasons: list[str] = []
        self.refused: list[int] = []
        self.logged: list[bytes] = []
        self.path = path
        incarnations = Incarnations(1, 11, (1, 2, 3), Memory(), {})
        for member_id, incarnation in (met or {}).items():
            assert incarnations.accept(member_id, incarnation)
        self.node: Any = SimpleNamespace(
            writes=SimpleNamespace(leader=None), peers=SimpleNamespace(refuse=self.refused.append),
            incarnations=incarnations, fail=self.reasons.append)
        self.agreed = Agreed(
            self.node, NodeSettings(Common(1, 1, "h1", 3, 2, (), "/nowhere"), 0, str(path), "h", 1))

    def lead(self, term: int) -> None:
        self.node.writes.leader = SimpleNamespace(term=term, append=self.logged.append)


def test_a_host_of_another_layout_ends_and_remembers_the_right_one(tmp_path: Path) -> None:
    host = Host(tmp_path)
    host.agreed.check_bootstrap((1, 3, 2))
    assert (host.reasons, list(tmp_path.iterdir())) == ([], [])
    host.agreed.check_bootstrap((1, 4, 2))
    (reason,) = host.reasons
    assert "--shards 4 --shard-depth 2" in reason
    assert (tmp_path / bootstrap.AGREED).read_text() == "4 2\n", "where the next start looks for it"


@pytest.mark.parametrize(("member_id", "incarnation", "ends", "refused"), [
    (1, 11, False, []), (1, 12, True, []), (2, 22, False, []), (2, 23, False, [2]), (3, 33, False, [])])
def test_who_came_back_as_somebody_else_takes_no_part(
    tmp_path: Path, member_id: int, incarnation: int, ends: bool, refused: list[int]
) -> None:
    host = Host(tmp_path, {2: 22})
    host.agreed.incarnations([(member_id, incarnation)])
    assert (bool(host.reasons), host.refused) == (ends, refused)


def test_a_leader_logs_once_a_term_whom_it_has_met(tmp_path: Path) -> None:
    host = Host(tmp_path, {2: 22})
    host.agreed.log_incarnations()
    assert host.logged == [], "others hear of it from who leads"
    host.lead(5)
    for _ in range(2):
        host.agreed.log_incarnations()
    assert len(host.logged) == 2
    host.agreed.incarnations([(1, 11)])
    host.lead(6)
    host.agreed.log_incarnations()
    assert len(host.logged) == 3, "of what is not agreed yet"
