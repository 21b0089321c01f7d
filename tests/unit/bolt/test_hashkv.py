"""The hash of a backup's keys is an etcd's: what a compaction has still to remove makes no difference."""

from __future__ import annotations

import google_crc32c
import pytest

from cluster.bolt.etcd import FINISHED, KEY, META, REVISION, SCHEDULED, NoBackup
from cluster.bolt.hashkv import KeysHash, NoSuchRevision, hash_of_keys
from cluster.pb import kv_pb2
from tests.unit.bolt.test_bolt import made

Rows = dict[bytes, bytes]


def row(revision: int, key: bytes, value: bytes | None, sub: int = 0) -> tuple[bytes, bytes]:
    """A version of a key, or its deletion."""
    name = REVISION.pack(revision, b"_", sub)
    if value is None:
        return name + b"t", kv_pb2.KeyValue(key=key).SerializeToString()
    kv = kv_pb2.KeyValue(key=key, value=value, mod_revision=revision, create_revision=revision, version=1)
    return name, kv.SerializeToString()


HISTORY = dict((
    row(2, b"a", b"1"), row(3, b"b", b"1"), row(4, b"a", b"2"), row(5, b"b", None), row(6, b"c", b"1"),
    row(7, b"a", b"3"), row(7, b"d", b"1", 1), row(8, b"c", None),
))  # fmt: skip


def hashed(rows: Rows, compacted: int = 0, revision: int = 0, *, finished: bool = True) -> KeysHash:
    meta = {} if not compacted else {FINISHED if finished else SCHEDULED: REVISION.pack(compacted, b"_", 0)}
    return hash_of_keys(made({KEY: rows, META: meta}), revision)


def plain(*revisions: int) -> int:
    """Of the rows of ``HISTORY`` at these revisions."""
    wanted = [k + v for k, v in sorted(HISTORY.items()) if REVISION.unpack_from(k)[0] in revisions]
    return google_crc32c.extend(0, KEY + b"".join(wanted))


def test_an_empty_store_has_the_hash_that_an_etcd_3_6_tells() -> None:
    assert hashed({}) == KeysHash(1084519789, 1, -1)


def test_every_row_counts_up_to_a_revision() -> None:
    assert hashed(HISTORY) == KeysHash(plain(2, 3, 4, 5, 6, 7, 8), 8, -1)
    assert hashed(HISTORY, revision=5) == KeysHash(plain(2, 3, 4, 5), 5, -1)


@pytest.mark.parametrize("finished", [True, False])
def test_of_what_is_compacted_the_newest_of_each_key_counts(finished: bool) -> None:
    found = hashed(HISTORY, 6, finished=finished)
    # of a and c there are newer ones, b was deleted
    assert found == KeysHash(plain(7, 8), 8, 6)
    assert hashed(HISTORY, 6, 6, finished=finished) == KeysHash(plain(4, 6), 6, 6)
    removed = {k: v for k, v in HISTORY.items() if REVISION.unpack_from(k)[0] not in (2, 3, 5)}
    assert hashed(removed, 6, finished=finished) == found
    assert hashed(removed, 6, 6, finished=finished) == hashed(HISTORY, 6, 6, finished=finished)


def test_a_row_without_a_key_is_refused() -> None:
    with pytest.raises(NoBackup, match=r"^revision 9 does not hold a key$"):
        hashed({**HISTORY, REVISION.pack(9, b"_", 0): b"\x0a"})


def test_a_deletion_at_the_compacted_revision_counts_for_nobody() -> None:
    kept = {k: v for k, v in HISTORY.items() if REVISION.unpack_from(k)[0] not in (6, 8)}
    assert hashed(HISTORY, 8) == KeysHash(plain(7), 8, 8)
    assert hashed(kept, 8).hash == plain(7)


@pytest.mark.parametrize(("revision", "reason"), [(5, "has been compacted"), (9, "is a future revision")])
def test_a_revision_that_is_not_there_is_refused_in_etcds_words(revision: int, reason: str) -> None:
    with pytest.raises(NoSuchRevision, match=f"mvcc: required revision {reason}"):
        hashed(HISTORY, 6, revision)
