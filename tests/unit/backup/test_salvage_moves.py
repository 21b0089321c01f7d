"""A backup of the files of a host that was killed soon after keys had moved: what moves is in no log, so the
new owner's copy is made again of what the old one has."""

from __future__ import annotations

from pathlib import Path

import pytest

from cluster.bolt import Database
from cluster.order.salvage import CannotBeKept
from node.backup.stopped import salvage as module
from node.backup.stopped.salvage import salvage
from node.storage import ApplyFailed
from tests.unit.backup.moving import END, KEYS, MOVES, SWITCHES, host
from tests.unit.backup.orders import OWN, PEERS
from tests.unit.backup.test_salvage import versions_in


def shown(output: Path) -> set[tuple[int, bytes, bytes]]:
    found = versions_in(Database(output.read_bytes()))
    return {(revision, key, value) for revision, _, key, _, _, value, _ in found}


@pytest.mark.parametrize("source", range(2))
@pytest.mark.parametrize("place", [MOVES, SWITCHES, END])
@pytest.mark.parametrize("copies", [False, True])
def test_what_has_moved_is_as_it_was_when_it_moved(
    tmp_path: Path, source: int, place: int, copies: bool
) -> None:
    folders, output = host(tmp_path, source, place, copies=copies), tmp_path / "backup.db"
    found = salvage(folders, output, PEERS, OWN, False, lambda text: None)
    assert (found.order_index, found.revision) == (END, 4)
    assert shown(output) == {(3, KEYS[source], b"new"), (4, KEYS[0] + b"2", b"x")}


@pytest.mark.parametrize("copies", [False, True])
def test_without_another_copy_it_would_be_older_or_there_would_be_no_backup(
    tmp_path: Path, copies: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders, output = host(tmp_path, 1, END, copies=copies), tmp_path / "backup.db"
    monkeypatch.setattr(module, "pass_switches", lambda *_: None)
    if copies:  # whole, and not of the switch
        salvage(folders, output, PEERS, OWN, False, lambda text: None)
        assert (3, KEYS[1], b"new") not in shown(output)
    else:
        with pytest.raises(ApplyFailed, match="G5"):
            salvage(folders, output, PEERS, OWN, False, lambda text: None)


def test_where_the_old_owner_has_nothing_here_only_an_uneven_one_can_be_made(tmp_path: Path) -> None:
    """It ends before the switch."""
    folders, output = host(tmp_path, 1, MOVES, copies=True), tmp_path / "backup.db"
    del folders[1]
    with pytest.raises(CannotBeKept, match="shard 1 does not have them here"):
        salvage(folders, output, PEERS, OWN, False, lambda text: None)
    found = salvage(folders, output, PEERS, OWN, True, lambda text: None)
    assert (found.order_index, shown(output)) == (SWITCHES - 1, set())
