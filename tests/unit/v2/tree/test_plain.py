"""Plain sets: what the short cut logs and answers is what the long way does."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.features.rows import Row
from cluster.features.v2.changes import answered, expire
from cluster.features.v2.plain import plain_set
from cluster.features.v2.requests import Answer, Op, Who, Write
from cluster.features.v2.shown import get_json
from cluster.features.v2.text import quoted, quoted_bytes
from cluster.features.v2.tree import SetRows, Tree
from tests.unit.v2.tree.random_writes import NOW_NS, S, random_write
from tests.unit.v2.tree.test_tree import everything


def state(tree: Tree) -> tuple[object, ...]:
    """What of a tree decides about changes."""
    return get_json(tree.root, b"", True, True, 0), tree.index, list(tree.counts), tree.next_expiry_ns


@pytest.mark.parametrize("seed", range(2))
def test_a_plain_set_logs_and_answers_what_any_other_change_would(seed: int) -> None:
    rng = random.Random(seed)
    short, long = Tree(keep_events=False), Tree(keep_events=False)
    replica, other = Tree(), Tree()
    plain = 0
    for step in range(1000):
        now_ns = NOW_NS + step * S // 10
        body = random_write(rng, long, now_ns).encode()
        before = state(short)
        rows: list[Row] = []
        answer = plain_set(short, body, rows)
        logged, expected = answered(long, body)
        long.take(logged)
        if answer is None:
            assert not rows
            assert state(short) == before, "nothing was done"
            rows, answer = answered(short, body)
            short.take(rows)
        else:
            plain += 1
            rows += short.counters()
        assert (rows, answer) == (logged, expected)
        assert state(short) == state(long)
        ends = expire(long, now_ns)
        assert expire(short, now_ns) == ends
        replica.take([*rows, *ends])
        other.take([*logged, *ends])
    assert everything(replica) == everything(other)
    assert plain > 40


PLAIN = Write(Op.SET, b"/1/d/a", b"v", now_ns=NOW_NS)


@pytest.mark.parametrize(
    "other",
    [
        replace(PLAIN, path=b"/1/none/a"),
        replace(PLAIN, path=b"/1/d"),
        replace(PLAIN, path=b"/1"),
        replace(PLAIN, path=b"/"),
        replace(PLAIN, path=b"/2/a"),
        replace(PLAIN, path=b"/1/d/a/b"),
        replace(PLAIN, path=b"/1/d/.."),
        replace(PLAIN, path=b"/1/d/"),
        replace(PLAIN, path=b"/1/d//a"),
        replace(PLAIN, path=b"1/d/a"),
        replace(PLAIN, path=b""),
        replace(PLAIN, expires_ns=1),  # long past: it never does
        replace(PLAIN, expires_ns=-1),
        replace(PLAIN, directory=True),
        replace(PLAIN, refresh=True),
        replace(PLAIN, recursive=True),
        replace(PLAIN, slash=True),
        replace(PLAIN, who=Who(b"root")),
        replace(PLAIN, prev_value=b"v"),
        replace(PLAIN, prev_index=5),
        *[replace(PLAIN, op=op) for op in Op if op != Op.SET],
    ],
)
def test_what_is_no_plain_set_is_left_alone(other: Write) -> None:
    tree = Tree()
    for write in (PLAIN, replace(PLAIN, path=b"/1/d/ends", expires_ns=NOW_NS + S)):
        tree.take(answered(tree, write.encode())[0])
    rows: list[Row] = []
    assert plain_set(tree, other.encode(), rows) is None
    assert not rows
    assert plain_set(tree, PLAIN.encode(), rows) is not None
    assert len(rows) == 2


def test_a_set_with_a_ttl_is_plain_and_so_is_one_of_what_had_one() -> None:
    short, long = Tree(keep_events=False), Tree(keep_events=False)
    for tree in (short, long):
        tree.take(answered(tree, PLAIN.encode())[0])
    ends = replace(PLAIN, expires_ns=NOW_NS + 5 * S + 1)
    for write in (ends, replace(ends, path=b"/1/d/b"), replace(ends, value=b"<"), PLAIN, PLAIN, ends):
        rows: list[Row] = []
        answer = plain_set(short, write.encode(), rows)
        logged, expected = answered(long, write.encode())
        long.take(logged)
        assert ([*rows, *short.counters()], answer) == (logged, expected)
        assert state(short) == state(long)
    late = NOW_NS + 6 * S
    assert expire(short, late) == expire(long, late)
    assert short.next_expiry_ns is None
    assert short.counts == long.counts


@pytest.mark.parametrize("seed", range(4))
def test_a_replica_takes_files_that_were_made_as_it_takes_their_rows(seed: int) -> None:
    rng = random.Random(seed)
    tree, replica, other = Tree(keep_events=False), Tree(), Tree()
    shared = 0
    for step in range(300):
        rows, left = SetRows(), SetRows()
        for _ in range(rng.choice((1, 2, 10))):
            write = random_write(rng, tree, NOW_NS + step * S) if rng.random() < 0.3 else PLAIN
            body = replace(write, value=b"%d" % rng.randrange(5)).encode()
            if plain_set(tree, body, rows) is None:
                changed = answered(tree, body)[0]
                tree.take(changed)
                left += changed
                break
        if rows:
            rows += tree.counters() if not left else [(b"c", None)]
        shared += len(rows.files)
        for taken in rows, left:
            if taken:
                found = replica.take(taken)
                assert found == other.take(list(taken))
    assert everything(replica) == everything(other)
    assert shared > 100
    ends = replace(PLAIN, path=b"/1/d/a", expires_ns=NOW_NS + S)
    for one in replica, other:
        one.take(answered(one, ends.encode())[0])
    rows = SetRows()
    tree.take(answered(tree, replace(ends, expires_ns=0).encode())[0])
    assert plain_set(tree, PLAIN.encode(), rows) is not None
    rows += tree.counters()
    replica.take(rows)
    other.take(list(rows))
    assert (replica.next_expiry_ns, everything(replica)) == (other.next_expiry_ns, everything(other))


def test_a_file_that_was_made_takes_no_directorys_place_but_by_its_row() -> None:
    tree, replica, other = Tree(keep_events=False), Tree(), Tree()
    tree.take(answered(tree, PLAIN.encode())[0])
    rows = SetRows()
    assert plain_set(tree, PLAIN.encode(), rows) is not None
    rows += tree.counters()
    for one in replica, other:
        one.take(answered(one, replace(PLAIN, path=b"/1/d/a/b").encode())[0])
    replica.take(rows)
    other.take(list(rows))
    assert everything(replica) == everything(other)


def test_users_of_version_2_are_asked_the_long_way() -> None:
    tree = Tree()
    for write in (PLAIN, Write(Op.SET, b"/2/enabled", b"true")):
        tree.take(answered(tree, write.encode())[0])
    assert plain_set(tree, PLAIN.encode(), []) is None
    denied = Answer.decode(answered(tree, PLAIN.encode())[1])
    assert denied.code == 110


def test_a_directory_that_was_set_in_and_is_gone_is_not_there() -> None:
    tree = Tree()
    tree.take(answered(tree, PLAIN.encode())[0])
    assert plain_set(tree, PLAIN.encode(), []) is not None
    tree.take(answered(tree, Write(Op.DELETE, b"/1/d", recursive=True).encode())[0])
    assert plain_set(tree, PLAIN.encode(), []) is None
    tree.take(answered(tree, Write(Op.SET, b"/1/d", b"a file").encode())[0])
    assert plain_set(tree, PLAIN.encode(), []) is None


@given(st.binary(max_size=200))
def test_whatever_bytes_come_are_a_plain_set_or_none(body: bytes) -> None:
    tree = Tree()
    whole = PLAIN.encode()
    for some in (body, whole[:18] + body, whole[:10] + body, whole[: len(body) % 40]):
        rows: list[Row] = []
        answer = plain_set(tree, some, rows)
        assert (answer is None) == (not rows)


@given(st.binary(max_size=50) | st.text(max_size=50).map(str.encode))
def test_text_is_quoted_the_same_in_bytes(text: bytes) -> None:
    assert quoted_bytes(text) == quoted(text).encode()


def test_every_octet_and_separator_of_long_text_is_quoted_as_of_short_text() -> None:
    for some in (*(bytes([octet]) for octet in range(256)), "\u2028\u2029\ufffd\xe9\u4e00<\n".encode()):
        assert quoted(some * 5000)[1:-1] == quoted(some)[1:-1] * 5000
