"""``--force-new-cluster`` while keys move and shards form."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from cluster.placement.changes import shard_item
from cluster.placement.table import State
from node.backup.stopped.carrying import carry
from node.storage import SyncFailed
from node.storage.keys import range_rows
from node.storage.state.moving import staging
from tests.unit.backup.moving import BASE, KEYS, MOVES, copied, logged, moved, opened_state
from tests.unit.backup.orders import OWN, PEERS
from tools.muster.config.parse import ConfigError
from tools.muster.host.identity import bootstrap, forcing
from tools.muster.host.identity.bootstrap import Identity
from tools.muster.machine.disk import seal


def began(data_dir: Path) -> Identity:
    identity = Identity(0xC1, OWN, 7, BASE.shards, BASE.depth, PEERS)
    for shard in range(BASE.shards):
        folder = bootstrap.shard_dir(str(data_dir), shard)
        seal.seal(folder, identity.incarnation)
        seal.begin(folder, identity.incarnation)
    bootstrap.write_identity(data_dir / "member/identity.json", identity)
    return identity


def full_disk(*_: object) -> Iterator[None]:
    """What a removal of rows comes to there."""
    yield
    raise SyncFailed("IO error: No space left on device")


def test_a_copy_that_is_further_on_than_what_is_kept_begins_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The target had copied what shard 1 had applied. Of that nothing else is left: neither the entry and the
    record, which were not synced, nor the source's state, which was not flushed."""
    order, entries = moved(1)
    folders = [tmp_path / f"member/shard-{shard}" for shard in range(2)]
    with contextlib.ExitStack() as opened:
        logs = [logged(tmp_path / f"lost-{shard}", data) for shard, data in enumerate((order, entries))]
        for log in logs:
            opened.callback(log.close)
        for shard, folder in enumerate(folders):
            logged(folder, (order[:MOVES], entries[:1])[shard]).close()
            with contextlib.closing(opened_state(folder, shard)) as store:
                carry(store, shard, logs[shard], logs[0], MOVES)
        shutil.copytree(folders[1] / "state", tmp_path / "later/state")
        with (contextlib.closing(opened_state(tmp_path / "later", 1)) as source,
              contextlib.closing(opened_state(folders[0], 0)) as target):
            carry(source, 1, logs[1], logs[0], MOVES + 1)
            copied(target, source)
            target.flush()
            assert target.staged is not None
            assert target.staged.whole
    with monkeypatch.context() as patch:
        patch.setattr(staging, "drop_span", full_disk)
        with pytest.raises(ConfigError, match=r"cannot write: .*No space.* start again with the flag"):
            forcing.force(str(tmp_path), began(tmp_path), structlog.get_logger())
    forcing.force(str(tmp_path), began(tmp_path), structlog.get_logger())
    with contextlib.closing(opened_state(folders[0], 0)) as target:
        assert target.staged is None
        assert list(target.rows(*range_rows(KEYS[1], KEYS[1] + b"\0"))) == []


@pytest.mark.parametrize("states", [[], [State.SERVING], [State.SERVING, State.RETIRING]])
def test_a_host_that_lacks_an_added_shard_does_not_go_on_without_its_keys(
    tmp_path: Path, states: list[State]
) -> None:
    order, entries = moved(1)
    order.append(shard_item(2, State.FORMING, 2, (OWN,)))
    order += [shard_item(2, state) for state in states]
    for shard, data in enumerate((order, entries)):
        folder = tmp_path / f"member/shard-{shard}"
        with (contextlib.closing(logged(folder, data)) as log,
              contextlib.closing(opened_state(folder, shard)) as store,
              contextlib.closing(logged(tmp_path / f"order-{shard}", order)) as of_shard_0):
            carry(store, shard, log, of_shard_0, MOVES)
    identity = began(tmp_path)
    if not states:
        forcing.force(str(tmp_path), identity, structlog.get_logger())
        return
    with pytest.raises(ConfigError, match=r"shard 2 was added, and .* nothing of it yet\. Nothing was"):
        forcing.force(str(tmp_path), identity, structlog.get_logger())


def test_a_shard_that_was_there_from_the_beginning_may_retire_before_its_first_flush(tmp_path: Path) -> None:
    folders = [tmp_path / f"member/shard-{shard}" for shard in range(2)]
    order, entries = moved(1)
    order.append(shard_item(1, State.RETIRING))
    with (contextlib.closing(logged(folders[0], order)) as of_shard_0,
          contextlib.closing(opened_state(folders[0], 0)) as store):
        carry(store, 0, of_shard_0, of_shard_0, MOVES)
    logged(folders[1], entries).close()
    opened_state(folders[1], 1).close()
    forcing.force(str(tmp_path), began(tmp_path), structlog.get_logger())


def test_a_host_whose_order_log_ends_before_what_a_node_has_applied_says_so(tmp_path: Path) -> None:
    """A power cut: the others had the records, and this host had not synced them yet."""
    order, entries = moved(1)
    with contextlib.closing(logged(tmp_path / "whole", order)) as whole:
        for shard, data in enumerate((order[:MOVES], entries)):
            folder = tmp_path / f"member/shard-{shard}"
            with (contextlib.closing(logged(folder, data)) as log,
                  contextlib.closing(opened_state(folder, shard)) as store):
                carry(store, shard, log, whole, MOVES + shard)
    with pytest.raises(ConfigError, match=r"up to 4, and its order log ends with record 3\. Nothing was"):
        forcing.force(str(tmp_path), began(tmp_path), structlog.get_logger())
