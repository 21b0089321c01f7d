"""A backup holds what the store shows at its revision and since the compaction, and nothing else."""

from __future__ import annotations

import itertools
import json
import subprocess
from collections import defaultdict
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest

from cluster.bolt import Database, NotAsLaidOut
from cluster.bolt.etcd import key_in, read_around, read_revision
from cluster.effects import records
from cluster.order import log as order
from node.backup import spool
from node.backup.build import Job, Unfit, gather
from node.backup.rows import Checkpoint
from node.backup.sorting import Sorter, lengths, merged
from node.storage import StateStore
from node.storage.snapshot import SnapshotSource
from tests.unit.bolt.test_bolt import etcdutl
from tests.unit.storage.conftest import OpenStore, open_store
from tests.unit.storage.workload import stream

__all__ = ["open_store"]
BUDGET = 64 << 20
ALIVE: Iterator[None] = itertools.repeat(None)


def filled(store: StateStore, seed: int, records: int) -> None:
    for index, term, data in itertools.islice(stream(seed), records):
        store.apply([(index, term, data)])


def checkpoint(store: StateStore, folder: Path) -> Path:
    return SnapshotSource.create(store, folder / "outgoing").directory


def made(job: Job, output: Path) -> dict[str, int]:
    """Write the backup of a job; its size, revision and rows."""
    Path(job.folder).mkdir()
    plan = gather(job, ALIVE)
    with output.open("xb") as file:
        spool.write(plan, Path(job.folder), file.write, ALIVE)
    return {"size_bytes": plan.layout.size_bytes, "revision": plan.revision, "rows": plan.rows}


def built(folder: Path, checkpoints: list[Path], budget: int = BUDGET) -> tuple[Path, dict[str, int]]:
    output = folder.with_name(folder.name + ".db")
    return output, made(Job([str(c) for c in checkpoints], str(folder), [], budget), output)


@pytest.mark.parametrize("budget", [BUDGET, 20_000])
@pytest.mark.parametrize("seed", range(3))
def test_every_revision_that_may_be_read_reads_the_same(
        open_store: OpenStore, tmp_path: Path, seed: int, budget: int) -> None:
    store = open_store()
    filled(store, seed, 400)
    path, told = built(tmp_path / "out", [checkpoint(store, tmp_path)], budget)
    database = Database(path.read_bytes())
    assert database.check() == []
    assert told["size_bytes"] == path.stat().st_size == database.size_bytes
    assert told["revision"] == store.revision
    versions: dict[bytes, list[tuple[int, bytes]]] = defaultdict(list)
    for key, value in database.rows(b"key"):
        main, _, deleted = read_revision(key)
        versions[key_in(value)].append((main, b"" if deleted else value))
    around = read_around(database)
    assert around.compact_revision == around.finished_compact_revision == store.compact_revision
    keys = {b"/%d/%d" % (a, b) for a in range(3) for b in range(40)}
    assert set(versions) <= keys
    for revision in range(max(store.compact_revision, 1), store.revision + 1):
        for key in keys:
            found = [value for main, value in versions[key] if main <= revision]
            assert (found[-1] if found else b"") == (store.get(key, revision) or b""), (key, revision)
    old = [[main for main, _ in of if main <= store.compact_revision] for of in versions.values()]
    assert max(map(len, old)) <= 1
    assert {(one.lease, one.ttl_s, one.remaining_ttl_s) for one in around.leases} == set(store.leases())


@pytest.mark.parametrize("budget", [BUDGET, 20_000])
def test_tombstones_of_a_delete_of_a_span_have_places_of_their_own(
        open_store: OpenStore, tmp_path: Path, budget: int) -> None:
    """The store has them at one place (D8)."""
    store, keys = open_store(), [b"/s/" + b"\0" * (n % 3) + b"%04d" % n for n in range(600)]
    store.apply([(1, 1, b"".join(records.put(key, 0, 1, b"v", 0) for key in keys))])
    change = [records.put(b"/a", 0, 1, b"x", 0), records.delete_range(b"/s/", b"/s0", 600),
              records.put(b"/z", 0, 1, b"x", 0)]
    store.apply([(2, 1, records.txn(change))])
    path, _ = built(tmp_path / "out", [checkpoint(store, tmp_path)], budget)
    database = Database(path.read_bytes())
    assert database.check() == []
    told = [(*read_revision(at), key_in(value)) for at, value in database.rows(b"key")]
    gone = [(602, 1 + n, True, key) for n, key in enumerate(sorted(keys))]
    assert told[600:] == [(602, 0, False, b"/a"), *gone, (602, 601, False, b"/z")]


def test_etcdutl_says_of_it_what_it_holds(open_store: OpenStore, tmp_path: Path) -> None:
    store = open_store()
    filled(store, 5, 300)
    path, told = built(tmp_path / "out", [checkpoint(store, tmp_path)])
    done = subprocess.run(
        [etcdutl(), "snapshot", "status", path, "-w", "json"], capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    assert (found["revision"], found["totalSize"]) == (told["revision"], told["size_bytes"])


def test_a_shard_that_is_further_on_shows_what_it_had_at_the_revision(
        open_store: OpenStore, tmp_path: Path) -> None:
    first, early, second = open_store("a"), open_store("early"), open_store("b")
    filled(early, 19, 10)
    filled(second, 19, 30)
    assert early.compact_revision == second.compact_revision
    first.apply([(1, 1, order.skip(early.revision - 1))])
    wanted, _ = built(tmp_path / "wanted", [checkpoint(early, tmp_path / "1")])
    both = [checkpoint(first, tmp_path / "2"), checkpoint(second, tmp_path / "3")]
    found, told = built(tmp_path / "out", both)
    rows = list(Database(found.read_bytes()).rows(b"key"))
    assert rows == list(Database(wanted.read_bytes()).rows(b"key"))
    assert told["rows"] == len(rows) > 0
    assert told["revision"] == early.revision < second.revision


def test_checkpoints_that_were_compacted_beyond_the_revision_are_refused(
        open_store: OpenStore, tmp_path: Path) -> None:
    first, second = open_store("a"), open_store("b")
    filled(first, 9, 50)
    filled(second, 9, 400)
    assert second.compact_revision > first.revision
    with pytest.raises(Unfit):
        built(tmp_path / "out", [checkpoint(first, tmp_path / "1"), checkpoint(second, tmp_path / "2")])


def test_a_shard_that_has_not_applied_as_much_of_the_order_is_refused(
        open_store: OpenStore, tmp_path: Path) -> None:
    """It lacks keys of the revision that the file would be of."""
    first, second = open_store("a"), open_store("b")
    filled(first, 9, 20)
    filled(second, 9, 19)
    assert second.compact_revision <= first.revision
    both = [checkpoint(first, tmp_path / "1"), checkpoint(second, tmp_path / "2")]
    with pytest.raises(Unfit, match="is behind it"):
        built(tmp_path / "out", both)


def test_rows_come_in_order_whatever_the_memory(tmp_path: Path) -> None:
    rows = [(b"%05d" % (n * 7919 % 5000), b"v" * (n % 300)) for n in range(5000)]
    for budget in (1 << 30, 100_000, 1_000):
        sorter = Sorter(tmp_path, budget)
        for at in range(0, len(rows), 100):
            sorter.add(rows[at : at + 100])
        runs = sorter.runs()
        for _ in range(2):
            assert list(merged(runs)) == sorted(rows)
        sizes = [(key, len(size)) for key, size in lengths(merged(runs))]
        assert sizes == [(key, len(value)) for key, value in sorted(rows)]
        for run in runs:
            run.unlink()


def test_a_run_that_is_cut_short_is_noticed(tmp_path: Path) -> None:
    sorter = Sorter(tmp_path, 1 << 20)
    sorter.add([(b"%d" % n, b"value") for n in range(9)])
    (run,) = sorter.runs()
    run.write_bytes(run.read_bytes()[:-1])
    with pytest.raises(OSError, match="shorter"):
        list(merged([run]))


@pytest.mark.parametrize(("spare_bytes", "short"), [(0, False), (1, False), (1 << 60, True)])
def test_a_backup_ends_where_the_disk_would_be_short(
        open_store: OpenStore, tmp_path: Path, spare_bytes: int, short: bool) -> None:
    store = open_store()
    store.apply([(1, 1, records.put(b"k", 0, 1, bytes(1 << 20), 0))])
    folder = tmp_path / "rows"
    folder.mkdir()
    job = Job([str(checkpoint(store, tmp_path))], str(folder), [], BUDGET, spare_bytes=spare_bytes)
    with pytest.raises(OSError, match=f"less than {1 << 60} bytes free") if short else nullcontext():
        gather(job, ALIVE)


def test_large_rows_are_read_some_at_a_time(open_store: OpenStore, tmp_path: Path) -> None:
    """In lots of a megabyte: 512 rows at once may be 768 MB."""
    store = open_store()
    for index in range(1, 9):
        store.apply([(index, 1, records.put(b"/%d" % index, 0, 1, bytes(600_000), 0))])
    opened = Checkpoint(checkpoint(store, tmp_path))
    assert [len(some) for some in opened.keys(store.revision, 0)] == [2, 2, 2, 2, 0]
    opened.close()


def test_a_file_whose_rows_are_not_all_there_lacks_its_end(open_store: OpenStore, tmp_path: Path) -> None:
    store = open_store()
    filled(store, 3, 300)
    folder = tmp_path / "out"
    folder.mkdir()
    plan = gather(Job([str(checkpoint(store, tmp_path))], str(folder), [], 20_000), ALIVE)
    assert spool.kept(folder) == plan
    (folder / "run-0").write_bytes(b"")
    written: list[bytes] = []
    with pytest.raises(NotAsLaidOut):
        spool.write(plan, folder, written.append, ALIVE)
    assert sum(map(len, written)) < plan.layout.size_bytes


def test_members_that_were_removed_are_named(open_store: OpenStore, tmp_path: Path) -> None:
    """In hexadecimal, as etcd does, so that none of them is taken for a new one."""
    store = open_store()
    filled(store, 1, 20)
    output = tmp_path / "backup.db"
    made(Job([str(checkpoint(store, tmp_path))], str(tmp_path / "out"), [], BUDGET, [0xB00, 5]), output)
    database = Database(output.read_bytes())
    assert database.check() == []
    assert list(database.rows(b"members_removed")) == [(b"5", b"removed"), (b"b00", b"removed")]
