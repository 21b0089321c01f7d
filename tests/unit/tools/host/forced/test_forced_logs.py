"""What ``--force-new-cluster`` makes of the logs of a host that is left."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from base64 import b64decode
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest
import structlog

from cluster.effects import records
from cluster.features.growth import BIRTHS
from cluster.grain import GRAIN
from cluster.members.table import Host
from cluster.order.following.placing import Placing
from cluster.order.log import Cut, Fold, decode_cut, encode_cut, entry, project
from cluster.order.passing import Passing
from cluster.order.salvage import CannotBeKept
from cluster.order.sound import Place, sound
from cluster.placement.changes import shard_item
from cluster.placement.table import State
from cluster.raft import promises
from cluster.raft.promises import Promise
from cluster.raft.types import Configuration, Entry, EntryKind, HardState, SnapshotPosition
from cluster.settings import genesis_file
from node.backup.stopped import dropped
from node.backup.stopped.carrying import fold_of
from node.links.promises import NAME as PROMISES
from node.storage import Position, RaftLog, StateStore, genesis
from node.storage.state.changes import apply
from tests.raft_log import MemoryLog
from tests.unit.backup.orders import GROUP, OTHERS, OWN, PEERS, SHARDS, Order, Version, host_with
from tools.muster.config.parse import ConfigError
from tools.muster.host import salvaging
from tools.muster.host.identity import bootstrap, forcing
from tools.muster.host.supervising.born import finish_drops
from tools.muster.machine.disk import seal

NEW = Host(0xD4, "", ("http://127.0.0.1:2390",), learner=True)


def forced(data_dir: Path, order: Order, places: dict[int, int], ends: dict[int, int]) -> None:
    identity = host_with(order, data_dir, places, ends)
    forcing.force(str(data_dir), identity, structlog.get_logger())


@contextlib.contextmanager
def log_of(data_dir: Path, shard: int) -> Iterator[RaftLog]:
    with contextlib.closing(RaftLog.open(data_dir / f"member/shard-{shard}/log", initial=GROUP)) as log:
        yield log


def written_in(data_dir: Path) -> list[tuple[int, HardState]]:
    """The end of each log."""
    found = []
    for shard in range(SHARDS):
        with log_of(data_dir, shard) as log:
            found.append((log.last_index(), log.hard_state()))
    return found


def rows_in(data_dir: Path) -> list[Host]:
    """The hosts that the order log's last record names."""
    with log_of(data_dir, 0) as log:
        (entry,) = log.entries(log.last_index(), log.last_index(), 1 << 20)
        return [Host.decode(entry.data[at:to]) for kind, at, to in records.items(entry.data)
                if kind == records.Item.HOST]


def test_hosts_that_are_logged_and_not_applied_are_removed_too(tmp_path: Path) -> None:
    order = Order.made(2)
    order.records[50] += records.host(NEW.encode())
    forced(tmp_path, order, dict.fromkeys(range(SHARDS), 20), {s: len(order.entries[s]) for s in OTHERS})
    rows = {row.member_id: row.removed for row in rows_in(tmp_path)}
    assert rows == {PEERS[1].member_id: True, PEERS[2].member_id: True, NEW.member_id: True}


@pytest.mark.parametrize(("known", "added", "removed"), [
    (3, None, None),
    (1, 10, None),
    (1, 50, None),  # logged, and not applied
    (1, 3, 12),  # shard 1 has not applied that it goes
    (1, 12, 15),  # nor that it comes
])
def test_without_a_key_a_host_that_knows_others_is_refused_and_nothing_changes(
    tmp_path: Path, known: int, added: int | None, removed: int | None
) -> None:
    """Its nodes take no peers, and would end: the others could not be added again."""
    order = Order.made(2)
    if added is not None:
        order.records[added] += records.host(NEW.encode())
    if removed is not None:
        order.records[removed] += records.host(replace(NEW, removed=True).encode())
    identity = replace(
        host_with(order, tmp_path, {0: 20, 1: 10, 2: 20}, {s: len(order.entries[s]) for s in OTHERS}),
        peers=PEERS[:known])
    before = written_in(tmp_path)
    with pytest.raises(ConfigError, match=r"takes no peers: .* knows other members\. Nothing was changed"):
        forcing.force(str(tmp_path), identity, structlog.get_logger(), alone=True)
    assert written_in(tmp_path) == before
    assert dropped.found_in(tmp_path / "member") == []
    forcing.force(str(tmp_path), identity, structlog.get_logger(), alone=False)
    assert written_in(tmp_path) != before


def test_a_lone_host_without_a_key_is_forced_as_it_knows_no_others(tmp_path: Path) -> None:
    order = Order.made(2)
    ends = {s: order.cuts[25][s] for s in OTHERS}
    identity = replace(host_with(order, tmp_path, dict.fromkeys(range(SHARDS), 20), ends), peers=PEERS[:1])
    forcing.force(str(tmp_path), identity, structlog.get_logger(), alone=True)
    assert dropped.found_in(tmp_path / "member"), "what its logs lack is dropped"


def test_a_damaged_file_that_nothing_wants_is_told_before_anything_changes(tmp_path: Path) -> None:
    """Node 0 reads all of them as it begins: it would end, and other hosts refuse what was changed."""
    order = Order.made(2)
    ends = {s: len(order.entries[s]) for s in OTHERS}
    identity = host_with(order, tmp_path, dict.fromkeys(range(SHARDS), 20), ends)
    before = written_in(tmp_path)
    kept = tmp_path / "member/shard-0/kept"
    kept.mkdir()
    (kept / "1-0000000000000001-0000000000000009").write_bytes(b"damaged")
    with pytest.raises(ConfigError, match="kept of the order"):
        forcing.force(str(tmp_path), identity, structlog.get_logger())
    assert written_in(tmp_path) == before
    assert dropped.found_in(tmp_path / "member") == []


@pytest.mark.parametrize("seed", range(3))
def test_no_term_that_the_order_names_comes_again(tmp_path: Path, seed: int) -> None:
    """Also where the host has nothing of it: another host may have entries of that term."""
    order = Order.made(seed)
    place = 25
    forced(tmp_path, order, dict.fromkeys(range(SHARDS), place), {s: order.cuts[place][s] for s in OTHERS})
    named = dict.fromkeys(OTHERS, 0)
    for data in order.records:
        for kind, at, to in records.items(data):
            if kind == records.Item.CUT:
                for shard, cut in decode_cut(data, at, to):
                    named[shard] = max(named[shard], cut.term)
    for shard in OTHERS:
        with log_of(tmp_path, shard) as log:
            assert log.hard_state().term == log.term(log.last_index()) > named[shard]
            (last,) = log.entries(log.last_index(), log.last_index(), 1 << 20)
            assert last.kind == EntryKind.CONFIG
            assert Configuration.decode(last.data).members() == {OWN}
            assert order.term(order.cuts[place][shard]) < named[shard]  # its own log said less


def versions_of(lines: list[dropped.Line]) -> set[Version]:
    """Those whose revision is known, without their places."""
    return {
        (line["mod_revision"], 0, b64decode(line["key"]), 0, line.get("version", 0),
         b64decode(line.get("value", "")), line.get("lease", 0))
        for line in lines if "mod_revision" in line
    }  # fmt: skip


def written_behind(order: Order, kept: int, ends: dict[int, int]) -> set[Version]:
    """What the order says behind a record, without what is in entries that the host has not."""
    found = set()
    for revision, _, key, _, version, value, lease in order.versions:
        record = next(i for i, upto in enumerate(order.revisions) if upto >= revision)
        shard = int(key[1:2])
        by_entry = shard and not key.startswith(b"s%d/m" % shard)
        if record > kept and not (by_entry and order.cuts[record][shard] > ends[shard]):
            found.add((revision, 0, key, 0, version, value, lease))
    return found


@pytest.mark.parametrize("seed", range(6))
def test_what_is_dropped_behind_a_gap_is_in_a_file_before_anything_is_changed(
    tmp_path: Path, seed: int
) -> None:
    """Shard 1 lacks what comes behind the place; shard 2 has it all."""
    order = Order.made(seed)
    place = 25
    ends = {1: order.cuts[place][1], 2: len(order.entries[2])}
    forced(tmp_path, order, dict.fromkeys(range(SHARDS), 10), ends)
    kept = max(i for i, cuts in enumerate(order.cuts) if cuts[1] <= ends[1])
    (found,) = dropped.found_in(tmp_path / "member")
    lines = list(dropped.read(found.path))
    assert versions_of(lines) == written_behind(order, kept, ends)
    assert found.changes == sum("key" in line for line in lines) > 0
    unordered = [line for line in lines if "key" in line and "mod_revision" not in line]
    assert all(line["entry"] > order.cuts[-1][2] for line in unordered)
    assert {line["shard"] for line in lines} == set(range(SHARDS))
    keys = {b64decode(line["key"]).decode() for line in lines if "key" in line}
    assert set(found.keys) <= keys
    assert len(found.keys) == min(len(keys), dropped.NAMED)
    assert found.path.stat().st_mode & 0o077 == 0
    leases = [line["type"] for line in lines if line["type"].startswith("LEASE")]
    assert len(leases) == sum(
        kind in (records.Item.LEASE_GRANT, records.Item.LEASE_REVOKE)
        for data in order.records[kept:] for kind, _, _ in records.items(data))


def test_nothing_is_written_where_nothing_is_dropped(tmp_path: Path) -> None:
    order = Order.made(4)
    forced(tmp_path, order, dict.fromkeys(range(SHARDS), 60), {s: order.cuts[60][s] for s in OTHERS})
    assert dropped.found_in(tmp_path / "member") == []
    assert not [path for path in (tmp_path / "member").iterdir() if "dropped" in path.name]


def test_without_room_for_the_file_nothing_is_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sync = os.fsync

    def full(descriptor: int) -> None:
        if "/dropped" in os.readlink(f"/proc/self/fd/{descriptor}"):
            raise OSError(28, "No space left on device")
        sync(descriptor)  # as of a state that is opened

    order = Order.made(3)
    ends = {s: order.cuts[25][s] for s in OTHERS}
    identity = host_with(order, tmp_path, dict.fromkeys(range(SHARDS), 10), ends)
    monkeypatch.setattr("node.backup.stopped.dropped.os.fsync", full)
    with pytest.raises(ConfigError, match=r"No space left on device\. Nothing was changed"):
        forcing.force(str(tmp_path), identity, structlog.get_logger())
    for shard in range(SHARDS):
        with log_of(tmp_path, shard) as log:
            assert log.last_index() == (ends[shard] if shard else 60)
    assert dropped.found_in(tmp_path / "member") == []


def test_what_this_host_had_promised_of_the_dropped_entries_is_forgotten(tmp_path: Path) -> None:
    """A host that joins hears it from the leader, and would refuse this one as one that lost its data."""
    order = Order.made(3)
    ends = {1: order.cuts[25][1], 2: len(order.entries[2])}
    identity = host_with(order, tmp_path, dict.fromkeys(range(SHARDS), 10), ends)
    whole = {0: len(order.records)} | ends
    for shard in range(SHARDS):
        with log_of(tmp_path, shard) as log:
            promised = Promise(log.hard_state().term, whole[shard], whole[shard])
            log.set_meta(PROMISES, promises.encode(dict.fromkeys(GROUP.members(), promised)))
    forcing.force(str(tmp_path), identity, structlog.get_logger())
    for shard in range(SHARDS):
        with log_of(tmp_path, shard) as log:
            kept = promises.decode(log.meta(PROMISES) or b"")
            assert all(known.is_kept(log.hard_state().term, log.last_index()) for known in kept.values())
            assert set(kept) <= {OWN}


def host_with_a_born_shard(tmp_path: Path, formed: int, begins: int, end: int) -> bootstrap.Identity:
    """Its node has not begun. Shard 1's log ends at a place of the order."""
    order, voters = Order.made(4), tuple(sorted(GROUP.voters))
    order.records[formed - 1] += shard_item(SHARDS, State.FORMING, SHARDS, voters)
    ends = {1: order.cuts[end][1], 2: len(order.entries[2])}
    identity = host_with(order, tmp_path, dict.fromkeys(range(SHARDS), 20), ends)
    bootstrap.note_born(str(tmp_path), {SHARDS: voters})
    seal.seal(bootstrap.shard_dir(str(tmp_path), SHARDS), identity.incarnation)
    file = genesis_file(bootstrap.shard_dir(str(tmp_path), 0), SHARDS)
    genesis.write(Path(file), Position(begins, 0, 0, 1, 0), [])
    return bootstrap.known(str(tmp_path))


def test_a_born_shard_that_has_not_begun_begins_alone_once_the_rest_is_forced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise CannotBeKept("a gap")

    identity = host_with_a_born_shard(tmp_path, formed=30, begins=40, end=60)
    with monkeypatch.context() as patch:
        patch.setattr(forcing, "_planned", refuse)
        with pytest.raises(ConfigError, match=r"a gap\. Nothing was changed"):
            forcing.force(str(tmp_path), identity, structlog.get_logger())
    assert bootstrap.known(str(tmp_path)) == identity
    found = forcing.force(str(tmp_path), identity, structlog.get_logger())
    assert found.born == ((SHARDS, (OWN,)),)
    assert bootstrap.known(str(tmp_path)) == found
    assert list(tmp_path.glob("member/shard-0/genesis-*")), "of what is kept"


@pytest.mark.parametrize("formed", [30, 50])
def test_a_born_shard_never_begins_with_what_is_dropped(tmp_path: Path, formed: int) -> None:
    """The host goes on behind record 46. One that formed later is unknown, and its id comes again."""
    identity = host_with_a_born_shard(tmp_path, formed, begins=55, end=45)
    folder = Path(bootstrap.shard_dir(str(tmp_path), SHARDS))
    (folder / "state").mkdir()  # its node died after it had taken it
    found = forcing.force(str(tmp_path), identity, structlog.get_logger())
    assert not list(tmp_path.glob("member/shard-0/genesis-*"))
    assert not (folder / "state").exists()
    assert found.born == (((SHARDS, (OWN,)),) if formed == 30 else ())
    assert folder.exists() == (formed == 30)
    assert forcing.force(str(tmp_path), found, structlog.get_logger()) == found


def test_a_state_that_cannot_be_removed_ends_a_forced_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It stayed unseen, and its node began with what was dropped."""
    def fail(path: str | Path, *_: object, **__: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    identity = host_with_a_born_shard(tmp_path, formed=30, begins=55, end=45)
    state = Path(bootstrap.shard_dir(str(tmp_path), SHARDS), "state")
    state.mkdir()
    (state / "CURRENT").touch()
    with monkeypatch.context() as patch:
        patch.setattr(os, "rmdir", fail)
        with pytest.raises(ConfigError, match=r"cannot write: .*start again with the flag"):
            forcing.force(str(tmp_path), identity, structlog.get_logger())
    synced: list[Path] = []
    monkeypatch.setattr(forcing, "sync_directory", synced.append)
    forcing.force(str(tmp_path), identity, structlog.get_logger())
    assert not state.exists()
    assert state.parent in synced


def host_without_shard_1(tmp_path: Path, ends: int, level: int) -> bootstrap.Identity:
    """Its log of shard 2 ends at a place of the order; record 51 drops shard 1."""
    order = Order.made(4)
    order.records[50] += shard_item(1, State.RETIRING) + shard_item(1, State.DROPPED)
    ends_with = {1: len(order.entries[1]), 2: order.cuts[ends][2]}
    identity = replace(host_with(order, tmp_path, dict.fromkeys(range(SHARDS), 20), ends_with), level=level)
    shutil.rmtree(bootstrap.shard_dir(str(tmp_path), 1))
    bootstrap.write_identity(tmp_path / "member/identity.json", identity)
    return identity


@pytest.mark.parametrize("ends", [60, 30])
def test_a_first_shard_that_has_retired_is_no_gap(tmp_path: Path, ends: int) -> None:
    host_without_shard_1(tmp_path, ends, BIRTHS)
    finish_drops(str(tmp_path))  # the logs say that it has retired
    identity = bootstrap.known(str(tmp_path))
    assert identity.shards == (0, 2)
    if ends == 60:
        assert forcing.force(str(tmp_path), identity, structlog.get_logger()) == identity
        return
    with pytest.raises(ConfigError, match=r"shard 1 has retired, and .* that only\. Nothing was changed"):
        forcing.force(str(tmp_path), identity, structlog.get_logger())


@pytest.mark.parametrize(("level", "why"), [
    (0, "no node of this host has begun"), (BIRTHS, "shard 1 has keys, and nothing of it is here"),
])
def test_a_first_shard_whose_files_are_lost_is_missed(tmp_path: Path, level: int, why: str) -> None:
    host_without_shard_1(tmp_path, 30, level)
    with pytest.raises(ConfigError, match=why):
        salvaging.save(str(tmp_path), tmp_path / "backup.db", False, lambda text: None)


def half_applied(store: StateStore, order: Order, data_dir: Path, last: int) -> None:
    """Shard 1 applies the order up to a record, in slices, and its process ends before the last one."""
    with (contextlib.closing(RaftLog.open(data_dir / "member/whole/shard-0/log", initial=GROUP)) as records_,
          contextlib.closing(RaftLog.open(data_dir / "member/whole/shard-1/log", initial=GROUP)) as own):
        placing = Placing(1, fold_of(store), lambda first, to: own.entries(first, to, 1 << 20))
        run = [(e.index, e.term, sound(project(sound(e.data, Place.ORDER), 1), Place.FED))
               for e in records_.entries(store.position.order_index + 1, last, 1 << 24)]
        placed = placing.take(run, store.position.shard_index, store.position.term, None)
        with (GRAIN.finer(apply_slice_bytes=1), pytest.MonkeyPatch.context() as patch,
              contextlib.suppress(InterruptedError)):
            patch.setattr(apply.Fold, "finish", Mock(side_effect=InterruptedError))
            store.apply_changes(
                placed.changes, (last, placed.index, placed.term, placing.fold.revision), meta={})


def test_what_a_half_apply_left_of_dropped_records_never_shows(tmp_path: Path) -> None:
    order, place = Order.made(0), 20
    ends = {1: len(order.entries[1]), 2: order.cuts[25][2]}
    identity = host_with(order, tmp_path, dict.fromkeys(range(SHARDS), place), ends)
    kept = max(at for at, cuts in enumerate(order.cuts) if cuts[2] <= ends[2])
    state = tmp_path / "member/shard-1/state"
    with contextlib.closing(StateStore.open(state, range_cache_bytes=0, shard=1)) as store:
        half_applied(store, order, tmp_path, 45)
        store.flush()
        assert store.above > order.revisions[kept]
        shown = list(store.scan(b"\0", b"\0"))
    forcing.force(str(tmp_path), identity, structlog.get_logger())
    with contextlib.closing(StateStore.open(state, range_cache_bytes=0, shard=1)) as store:
        at = store.position
        # revisions of other shards
        store.apply_changes([], (kept + 1, at.shard_index, at.term, order.revisions[-1] + 60))
        assert list(store.scan(b"\0", b"\0")) == shown
        assert [change for change in store.changes(1) if change[0] > at.revision] == []


def test_what_a_file_and_the_order_log_both_hold_is_planned_once() -> None:
    """A run that is passed over goes on behind the log's beginning, and ends with a cut of its shard."""
    order = [encode_cut({1: Cut(5, 1, 5)}), *(encode_cut({2: Cut(n, 1, n)}) for n in range(2, 10)),
             encode_cut({1: Cut(8, 1, 8)}), encode_cut({2: Cut(20, 1, 20)})]
    fold = Fold()
    fold.take(order[0], 0)
    passing = Passing(1, 2, fold)
    log: Any = MemoryLog(GROUP)
    log.position, log.first_index = SnapshotPosition(6, 1, GROUP), lambda: 7
    log.log = [Entry(n, 1, EntryKind.RECORD, order[n - 1]) for n in range(7, 12)]
    for index in range(2, 12):
        passing.take(index, 1, 100, order[index - 1])
    piece = passing.finished()

    def replica(log: Any, at: int, index: int) -> Any:
        return SimpleNamespace(
            log=log, position=SimpleNamespace(order_index=at, shard_index=index), table=None)

    found = forcing._planned(
        {0: replica(log, 11, 11), 1: replica(MemoryLog(GROUP), 1, 5), 2: replica(MemoryLog(GROUP), 11, 20)},
        lambda shard: [piece] if shard == 1 else [])
    assert [made.index for made in found.made_up[1]] == [6, 7, 8]
    assert (found.order_index, found.last[1]) == (11, 8)


def test_an_uneven_backup_has_it_beside_it_and_names_its_keys(tmp_path: Path) -> None:
    order, host = Order.made(3), tmp_path / "host"
    ends = {1: order.cuts[25][1], 2: len(order.entries[2])}
    forced(host, order, dict.fromkeys(range(SHARDS), 10), ends)
    (found,) = dropped.found_in(host / "member")
    file = tmp_path / "backup.db"
    even = "\n".join(salvaging.described(salvaging.save(str(host), file, False, print)))
    assert "--uneven copies them" in even
    assert not salvaging.beside(file).exists()
    said = "\n".join(salvaging.described(salvaging.save(str(host), file, True, print), file))
    assert f"has dropped {found.changes} changes, of {found.keys[0]}, " in said
    assert str(salvaging.beside(file)) in said
    assert salvaging.beside(file).read_bytes() == found.path.read_bytes()
    assert salvaging.beside(file).stat().st_mode & 0o077 == 0
    found.path.write_text("no JSON\n")
    with pytest.raises(ConfigError, match="line 1 is no JSON"):
        salvaging.save(str(host), file, True, print)
    found.path.unlink()
    salvaging.save(str(host), file, True, print)
    assert not salvaging.beside(file).exists(), "it was another backup's"


def test_what_is_dropped_takes_its_place_with_the_backup(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order, host, file = Order.made(3), tmp_path / "host", tmp_path / "backup.db"
    forced(host, order, dict.fromkeys(range(SHARDS), 10), {1: order.cuts[25][1], 2: len(order.entries[2])})
    file.write_text("older")
    salvaging.beside(file).write_text("older")
    monkeypatch.setattr(salvaging, "_seal", Mock(side_effect=OSError(errno.ENOSPC, "No space left")))
    with pytest.raises(OSError, match="No space left"):
        salvaging.save(str(host), file, True, print)
    assert file.read_text() == salvaging.beside(file).read_text() == "older"


def test_files_behind_one_that_was_removed_are_found(tmp_path: Path) -> None:
    names = []
    for _ in range(11):
        one = dropped.write(tmp_path, [{"shard": 0}])
        assert one is not None
        names.append(one.path.name)
    (tmp_path / names[0]).unlink()
    (tmp_path / "dropped-old.jsonl").touch()
    assert [one.path.name for one in dropped.found_in(tmp_path)] == names[1:]
    last = dropped.write(tmp_path, [{"shard": 0}])
    assert last is not None
    assert last.path.name == "dropped-12.jsonl"


def test_entries_that_made_up_ones_take_the_place_of_are_in_the_file(tmp_path: Path) -> None:
    """Another leader's, which the order does not name: they have no revision."""
    order, place = Order.made(0), 40
    later = max(p for p in range(place, 61) if not any(place < r <= p and 1 in s for r, s in order.multis))
    end, index = order.cuts[place][1], order.cuts[later][1]
    assert end < index
    identity = host_with(order, tmp_path, {0: later, 1: place, 2: later}, {1: end, 2: len(order.entries[2])})
    other = entry(0, records.put(b"s1/other", 0, 1, b"value", 0))
    with log_of(tmp_path, 1) as log:
        log.append([Entry(i, 50, EntryKind.RECORD, other) for i in range(end + 1, index + 1)],
                   HardState(50, OWN, 0))
        log.sync()
    forcing.force(str(tmp_path), identity, structlog.get_logger())
    (found,) = dropped.found_in(tmp_path / "member")
    theirs = [line for line in dropped.read(found.path) if line["shard"] == 1 and "entry" in line]
    assert [(line["entry"], b64decode(line["key"]), line.get("mod_revision")) for line in theirs] == [
        (i, b"s1/other", None) for i in range(end + 1, index + 1)]
