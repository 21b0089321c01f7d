"""Keys of leases of very many keys: listed in slices, then asked for in one turn."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import pytest

from cluster.effects import records
from cluster.grain import GRAIN
from node.storage import StateStore
from node.storage.state import lease_lists
from node.storage.state.versions import Versions
from tests.unit.storage.state.stores import compact, do, received

LEASE, OTHER = 7, 8


@pytest.fixture
def store(tmp_path: Path) -> Iterator[StateStore]:
    store = StateStore.open(tmp_path / "state")
    do(store, records.lease_grant(LEASE, 60), records.lease_grant(OTHER, 60))
    yield store
    store.close()


def put(store: StateStore, *keys: bytes, lease: int = LEASE) -> None:
    """Each at a revision of its own, in one record."""
    items = []
    for key in keys:
        known = store.current(key)
        create, version = (0, 1) if known is None else (known.create, known.version + 1)
        items.append(records.put(key, create, version, b"v", lease))
    do(store, *items)


def listed(store: StateStore, step: int = 8) -> None:
    for _ in store.lease_lists.read(LEASE, step):
        pass


def read(store: StateStore, lease: int = LEASE) -> list[bytes]:
    """A lease's keys, each from the disk."""
    return [key for key in (row[9:] for row in store.attachment_rows(lease))
            if (known := store.peek(key)) is not None and known.lease == lease]


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The keys that are read from the disk."""
    found: list[bytes] = []
    live = Versions._live

    def counted(self: Versions, key: bytes, revision: int) -> bytes | None:
        found.append(key)
        return live(self, key, revision)

    monkeypatch.setattr(Versions, "_live", counted)
    return found


@pytest.mark.parametrize("size", [5, 600])
def test_a_turn_reads_no_key_of_a_list(store: StateStore, reads: list[bytes], size: int) -> None:
    """Of 70,000 keys, and of keys above 512 bytes, each was read again: the cache had lost it."""
    store.cache.limit = 50  # as 32,768 to 70,000
    keys = [b"%0*d" % (size, number) for number in range(300)]
    put(store, *keys)
    before = list(store.cache.hot)
    reads.clear()
    steps = 0
    for _ in store.lease_lists.read(LEASE, 8):
        assert len(reads) <= 8
        reads.clear()
        steps += 1
    assert steps >= 300 // 8
    assert list(store.cache.hot) == before  # what is written often stays there
    reads.clear()
    assert store.lease_keys(LEASE) == keys
    assert not reads


def test_a_turn_looks_at_what_has_changed_since(store: StateStore, reads: list[bytes]) -> None:
    put(store, *(b"k%03d" % number for number in range(300)))
    listed(store)
    do(store, records.delete(b"k003"))
    put(store, b"k005", b"other")
    put(store, b"k007", lease=0)
    put(store, b"k009", lease=OTHER)
    put(store, b"a", b"z")
    store.forget_versions()
    listed(store)
    do(store, records.delete(b"k100"), records.delete(b"a"))
    reads.clear()
    left = [b"k%03d" % number for number in range(300) if number not in (3, 7, 9, 100)]
    assert store.lease_keys(LEASE) == [*left, b"other", b"z"]
    assert len(reads) <= 2


def apply_something(store: StateStore, random: Random, keys: list[bytes]) -> None:
    """Puts with the lease, with another, with none; deletes of keys and of spans; compactions."""
    key = random.choice(keys)
    doing = random.choice(("put", "put", "leave", "delete", "span", "compact"))
    if doing == "put":
        put(store, *random.sample(keys, 3), lease=random.choice((LEASE, LEASE, OTHER)))
    elif doing == "leave":
        put(store, key, lease=0)
    elif doing == "delete" and store.current(key) is not None:
        do(store, records.delete(key))
    elif doing == "span":
        end = key + b"5"
        if count := store.count(key, end):
            do(store, records.delete_range(key, end, count))
    elif doing == "compact" and store.revision > store.compact_revision:
        compact(store, random.randint(store.compact_revision + 1, store.revision))


@pytest.mark.parametrize("seed", range(8))
def test_a_list_has_what_hangs_on_the_lease_whatever_is_applied_meanwhile(
    store: StateStore, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    monkeypatch.setattr(GRAIN, "lease_changes", 3)
    random = Random(seed)
    keys = [b"%d" % number for number in range(80)]
    for _ in range(20):
        put(store, *random.sample(keys, 40))
        for _ in store.lease_lists.read(LEASE, random.randint(1, 20)):
            apply_something(store, random, keys)
        for _ in range(random.randint(0, 3)):
            assert store.lease_keys(LEASE) == read(store)
            assert store.lease_keys(OTHER) == read(store, OTHER)
            apply_something(store, random, keys)
        if random.random() < 0.5:
            store.lease_lists.drop(LEASE)


def test_very_many_changes_at_one_revision_are_looked_at_in_steps(store: StateStore) -> None:
    put(store, *(b"k%04d" % number for number in range(1500)))
    work = store.lease_lists.read(LEASE, 8)
    next(work)
    do(store, records.delete_range(b"k", b"l", 1500))
    assert sum(1 for _ in work) >= 2 * 1500 // 8 - 10
    assert store.lease_keys(LEASE) == []


def test_a_list_follows_into_a_snapshot(store: StateStore, tmp_path: Path) -> None:
    donor = StateStore.open(tmp_path / "donor")
    do(donor, records.lease_grant(LEASE, 60))
    for number in range(50):
        put(donor, b"d%d" % number)
    put(store, *(b"k%d" % number for number in range(50)))
    sink = received(donor, tmp_path / "outgoing", store.root)
    work = store.lease_lists.read(LEASE, 8)
    next(work)
    store.install(sink)
    for _ in work:
        pass
    assert LEASE in store.lease_lists
    assert store.lease_keys(LEASE) == donor.lease_keys(LEASE)
    donor.close()


def test_a_list_that_lacks_very_many_changes_is_not_worth_the_turn_that_compacts_them(
    store: StateStore, reads: list[bytes]
) -> None:
    """A list of 150,000 keys, all of them deleted since, took 9.9 s in one turn."""
    put(store, *(b"k%04d" % number for number in range(1500)))
    listed(store)
    do(store, records.delete_range(b"k", b"l", 1500))
    put(store, b"z")
    store.cache.forget_versions()
    reads.clear()
    store.lease_lists.changes_go(store.revision)
    assert len(reads) <= GRAIN.lease_changes + 1
    listed(store)
    assert store.lease_keys(LEASE) == [b"z"]


@pytest.mark.parametrize("known", [False, True])
def test_a_list_in_the_making_ends_with_its_lease(store: StateStore, known: bool) -> None:
    """It was kept for half a minute, with the keys of a lease that is gone."""
    put(store, *(b"k%03d" % number for number in range(300)))
    if known:
        listed(store)
        put(store, *(b"l%03d" % number for number in range(300)))
    work = store.lease_lists.read(LEASE, 8)
    next(work)
    store.lease_lists.drop(LEASE)
    assert sum(1 for _ in work) <= 1
    assert LEASE not in store.lease_lists


def test_the_room_of_lists_in_the_making_and_of_changes_counts(
    store: StateStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease_lists, "MOST_BYTES", 1000)
    put(store, *(b"%02d" % number for number in range(10)))
    listed(store)
    assert not store.lease_lists.full
    put(store, *(b"%02d" % number for number in range(10, 20)))
    listed(store)
    assert store.lease_lists.full
    do(store, *(records.delete(b"%02d" % number) for number in range(10, 20)))
    listed(store)
    assert not store.lease_lists.full
    put(store, *(b"o%d" % number for number in range(40)), lease=OTHER)
    work = store.lease_lists.read(OTHER, 8)
    next(work)
    next(work)
    assert store.lease_lists.full


@pytest.mark.parametrize("let_go", [
    pytest.param(lambda store: store.lease_lists.drop(LEASE), id="its-lease-has-ended"),
    pytest.param(lambda store: store.forget_versions(), id="the-term-is-lost"),
    pytest.param(lambda store: [store.lease_lists.second() for _ in range(31)], id="nobody-asks-for-it"),
])
def test_a_list_is_let_go(store: StateStore, let_go: Callable[[StateStore], object]) -> None:
    put(store, b"a", b"b")
    listed(store)
    for _ in range(30):
        store.lease_lists.second()
    assert store.lease_keys(LEASE) == [b"a", b"b"]  # asked for
    assert LEASE in store.lease_lists
    let_go(store)
    assert LEASE not in store.lease_lists
    assert store.lease_keys(LEASE) == [b"a", b"b"]


def test_lists_of_many_leases_take_no_more_than_their_room(
    store: StateStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease_lists, "MOST_BYTES", 1000)
    for lease in range(20, 30):
        do(store, records.lease_grant(lease, 60))
        put(store, *(b"%d/%d" % (lease, number) for number in range(6)), lease=lease)
        for _ in store.lease_lists.read(lease, 8):
            pass
        assert lease in store.lease_lists
        assert not store.lease_lists.full
    assert [lease for lease in range(20, 30) if lease in store.lease_lists] == [28, 29]
    put(store, *(b"%d" % number for number in range(40)))
    listed(store)
    assert store.lease_lists.full  # one may be larger than that
    assert 29 not in store.lease_lists
