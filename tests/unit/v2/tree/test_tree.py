"""The v2 tree: a fold of rows that costs no more the larger it is, and that nothing it reads can end."""

from __future__ import annotations

import itertools
import json
import random
import struct
import time
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.faults import faults
from cluster.features.rows import Row
from cluster.features.v2 import changes, history
from cluster.features.v2.changes import Change, evaluate, expire
from cluster.features.v2.events import Brief, Event, concerns, decode_news, encode_news
from cluster.features.v2.history import MOST_BYTES
from cluster.features.v2.refusals import Code, V2Error
from cluster.features.v2.requests import Answer, Get, Op, Scan, Write
from cluster.features.v2.shown import Listing, event_json, get_json, short_json
from cluster.features.v2.tree import FIRST_INDEX, KEYS, Node, Tree
from tests.unit.v2.tree.random_writes import NOW_NS, S, random_write


def done(tree: Tree, *writes: Write) -> list[Change]:
    """These changes, logged and taken."""
    changes = []
    for write in writes:
        changes.append(evaluate(tree, write))
        tree.take(changes[-1].rows)
    return changes


def everything(tree: Tree) -> tuple[object, ...]:
    """What of a tree can be seen."""
    assert tree.history is not None
    scans = [
        tree.history.scan(b"/", True, since, tree.index)
        for since in range(tree.history.first, tree.index + 2)
    ]
    shown = get_json(tree.root, b"", True, True, NOW_NS)
    return shown, tree.index, tree.counts, tree.next_expiry_ns, scans


@pytest.mark.parametrize("most_bytes", [MOST_BYTES, 9000])
@pytest.mark.parametrize("seed", range(3))
def test_a_fold_of_the_rows_kept_is_the_fold_of_all_that_were_logged(
    seed: int, most_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history, "MOST_BYTES", most_bytes)
    rng, leader, replica = random.Random(seed), Tree(keep_events=False), Tree()
    kept: dict[bytes, bytes] = {}

    def log(rows: list[Row]) -> None:
        replica.take(rows)
        for name, value in rows:
            if value is None:
                del kept[name]  # what is deleted was there
            else:
                kept[name] = value

    now_ns = NOW_NS
    for _ in range(1500):
        now_ns += rng.choice((0, 0, S))
        try:
            change = evaluate(leader, random_write(rng, leader, now_ns))
        except V2Error:
            continue
        leader.take(change.rows)
        log(change.rows)
        log(expire(leader, now_ns))
    again = Tree(sorted(kept.items()))
    replica.counts = leader.counts  # failures are logged with the next change
    again.counts = leader.counts
    assert everything(again) == everything(replica)
    assert leader.index == replica.index
    events = [value for name, value in kept.items() if name[:1] == b"h"]
    assert len(events) <= 1000
    assert sum(map(len, events)) <= most_bytes + 3000, "but for those of the last change"
    assert (leader.copy().sizes.bytes, again.sizes.bytes) == (sum(map(len, events)),) * 2
    assert expire(again, now_ns + 10**6 * S) == expire(leader, now_ns + 10**6 * S)
    assert not leader.next_expiry_ns


def test_a_change_writes_as_many_rows_in_a_large_tree_as_in_a_small_one() -> None:
    small, large = Tree(), Tree()
    done(large, *(Write(Op.SET, b"/1/%d/%d" % (n % 100, n), b"x") for n in range(5000)))
    for write in (Write(Op.SET, b"/1/7/new/deep", b"v"), Write(Op.DELETE, b"/1/7/new", recursive=True)):
        rows = [len(done(tree, write)[0].rows) for tree in (small, large)]
        assert rows[0] - rows[1] == (1 if write.op == Op.SET else 0)  # the small one has no /7 yet


def test_a_refusal_writes_nothing_and_is_counted_with_the_next_change() -> None:
    tree, replica = Tree(), Tree()
    for code, write in (
        (Code.KEY_NOT_FOUND, Write(Op.UPDATE, b"/1/a")),
        (Code.ROOT_READ_ONLY, Write(Op.SET, KEYS)),
        (Code.ROOT_READ_ONLY, Write(Op.DELETE, b"/", recursive=True)),
    ):
        with pytest.raises(V2Error) as refused:
            evaluate(tree, write)
        assert refused.value.code == code
        assert refused.value.index == FIRST_INDEX
    assert tree.index == FIRST_INDEX
    replica.take(done(tree, Write(Op.SET, b"/1/a", b"1"))[0].rows)
    assert replica.counts == tree.counts
    assert replica.counts[:6] == [1, 1, 0, 1, 0, 1]


def test_a_directory_may_get_a_ttl_and_lose_it() -> None:
    """As the articles show; etcd 3.5 alone refuses it."""
    tree = Tree()
    done(tree, Write(Op.SET, b"/1/d", directory=True, now_ns=NOW_NS))
    given_ttl, taken = done(
        tree,
        Write(Op.UPDATE, b"/1/d", directory=True, expires_ns=NOW_NS + 5 * S, now_ns=NOW_NS),
        Write(Op.UPDATE, b"/1/d", directory=True, now_ns=NOW_NS),
    )
    assert event_json(given_ttl.event, KEYS) == (
        b'{"action":"update","node":{"key":"/d","dir":true,"expiration":"2027-01-15T08:00:05Z","ttl":5,'
        b'"modifiedIndex":5,"createdIndex":4},"prevNode":{"key":"/d","dir":true,"modifiedIndex":4,'
        b'"createdIndex":4}}\n'
    )
    assert not taken.event.node.expires_ns
    assert not tree.next_expiry_ns


def test_a_directory_that_ends_takes_what_is_below_along_in_one_event() -> None:
    tree, replica = Tree(), Tree()
    for change in done(
        tree,
        Write(Op.SET, b"/1/d", directory=True, expires_ns=NOW_NS + S),
        Write(Op.SET, b"/1/d/a", b"1", expires_ns=NOW_NS + 2 * S),
        Write(Op.SET, b"/1/d/b/c", b"1"),
    ):
        replica.take(change.rows)
    rows = expire(tree, NOW_NS + 5 * S)
    ((row, swept),) = replica.take(rows)
    assert sorted(swept) == [b"/1/d", b"/1/d/a", b"/1/d/b", b"/1/d/b/c"]
    assert Event.decode(row).index == tree.index == 7
    assert replica.history is not None
    assert replica.history.scan(b"/1/d/b/c", False, 7, 7) == row
    assert replica.history.scan(b"/1/dogs", False, 7, 7) is None
    assert not replica.next_expiry_ns


def test_who_waits_is_woken_as_by_etcd() -> None:
    plain = Brief(9, b"/1/a/_h/b", False, False)
    assert concerns(b"/1/a/_h/b", False, plain, False)
    assert concerns(b"/1/a/_h", True, plain, False)
    assert not concerns(b"/1/a/_h", False, plain, False)
    assert not concerns(b"/1/a", True, plain, False)  # hidden from there
    assert not concerns(b"/1/a/_", True, plain, False)
    assert concerns(b"/", True, Brief(9, b"/1/a", False, False), False)
    assert concerns(b"/1/a/b", False, Brief(9, b"/1/a", False, True), True)
    assert not concerns(b"/1/a", False, Brief(9, b"/1/a", True, False), False)  # a refresh


def test_a_write_makes_directories_of_a_bounded_size() -> None:
    """4 KB asked for 4 MB of rows, or 10 MB with long characters: more than an entry of the log has."""
    tree = Tree()
    done(tree, Write(Op.SET, b"/1/d" + b"/a" * 700, b"v"))
    longer = b"/1/e" + "/\U0001f600".encode() * 700
    for path in (b"/1/e" + b"/a" * 2000, longer, b"/1/d" + b"/a" * 699 + b"/b" * 400):
        with pytest.raises(V2Error, match=r"300 Raft Internal Error \(etcdserver: request is too large\)"):
            evaluate(tree, Write(Op.SET, path, b"v"))
    for depth in range(120, 2000, 120):  # step by step it may be as deep as a path is long
        done(tree, Write(Op.SET, b"/1/e" + b"/a" * depth, directory=True))
    done(tree, Write(Op.SET, b"/1/e" + b"/a" * 1999, b"v"))


def test_a_tree_of_any_depth_is_read_and_swept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changes, "_MOST_MADE_BYTES", 1 << 30)
    tree = Tree()
    deep = b"/1" + b"/x" * 5000
    done(tree, Write(Op.SET, deep, b"v"))
    assert get_json(tree.find(KEYS), KEYS, True, True, 0).count(b'"dir":true') == 5000
    done(tree, Write(Op.DELETE, b"/1/x", recursive=True))
    assert get_json(tree.find(KEYS), KEYS, True, True, 0) == b'{"action":"get","node":{"dir":true}}\n'


def test_the_rows_of_a_deep_path_are_each_put_below_the_one_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """4 KB in a request: a walk from the root for each row kept a replica's loop busy for 300 ms."""
    monkeypatch.setattr(changes, "_MOST_MADE_BYTES", 1 << 30)
    rows = evaluate(Tree(), Write(Op.SET, b"/1/d" + b"/x" * 2000, b"v")).rows
    tree, began = Tree(), time.process_time()
    tree.take(rows)
    assert time.process_time() - began < 0.1
    assert tree.find(b"/1/d" + b"/x" * 2000).value == b"v"


@pytest.mark.parametrize("expires_ns", [-7_353_132_269 * S, S])
def test_a_ttl_that_wraps_ends_what_is_changed_and_not_what_is_set(expires_ns: int) -> None:
    tree = Tree()
    names = b"/1/set", b"/1/old", b"/1/cas"
    done(tree, *(Write(Op.SET, name, b"v", expires_ns=expires_ns) for name in names))
    assert not tree.next_expiry_ns
    updated, swapped = done(
        tree, Write(Op.UPDATE, b"/1/old", b"w", expires_ns=expires_ns, now_ns=NOW_NS),
        Write(Op.COMPARE_AND_SWAP, b"/1/cas", b"w", prev_value=b"v", expires_ns=expires_ns, now_ns=NOW_NS))
    shown = "1736-12-27T07:15:31Z" if expires_ns < 0 else "1970-01-01T00:00:01Z"
    for change in (updated, swapped):
        assert f'"expiration":"{shown}","ttl":-'.encode() in event_json(change.event, b"/1")
    assert expire(tree, NOW_NS)
    assert list(tree.find(b"/1").children or ()) == [b"set"]


def test_a_key_that_is_refreshed_for_ever_leaves_nothing_behind() -> None:
    tree = Tree(keep_events=False)
    for n in range(1, 3000):
        done(tree, Write(Op.SET, b"/1/k", b"v", expires_ns=NOW_NS + n * S, refresh=n > 1))
    assert len(tree._heap) < 200
    assert tree.next_expiry_ns == NOW_NS + 2999 * S


@given(st.lists(st.tuples(st.binary(max_size=40), st.none() | st.binary(max_size=90))))
def test_rows_that_nobody_can_read_change_nothing(rows: list[Row]) -> None:
    tree = Tree(rows)
    tree.take(rows)
    get_json(tree.root, KEYS, True, True, 0)
    expire(tree, 2**62)
    faults.take()  # such rows are told of


@given(st.binary(max_size=90))
def test_a_request_that_is_none_is_refused(data: bytes) -> None:
    for kind in (Write, Get, Scan):
        try:
            asked = kind.decode(data)
        except (ValueError, struct.error):
            continue
        assert kind.decode(asked.encode()) == asked


def test_answers_and_reads_come_back_as_they_went() -> None:
    answer = Answer(7, b"{}\n", 100, 2, True, 99)
    assert Answer.decode(b"head" + answer.encode(), 4) == answer
    for asked in (Get(b"/1/a", True, True, 5), Scan(b"/1", True, 8)):
        assert type(asked).decode(asked.encode()) == asked
    assert short_json(1) == b'{"action":"set"}\n'


def test_a_list_shows_the_tree_as_it_was_when_it_was_begun() -> None:
    tree = Tree()
    done(tree, *(Write(Op.SET, b"/1/d/%d" % n, b"old") for n in range(1000)))
    listing = Listing(tree.find(KEYS), KEYS, True, True, NOW_NS)
    whole = get_json(tree.find(KEYS), KEYS, True, True, NOW_NS)
    parts = []
    for part in listing.parts(100):
        if not part:  # others have their turn
            done(tree, Write(Op.SET, b"/1/d/%d" % len(parts), b"new"), Write(Op.SET, b"/1/e/%d" % len(parts)))
            done(tree, Write(Op.UPDATE, b"/1/d", expires_ns=NOW_NS + S))
        parts.append(part)
    assert parts.count("") == 10
    assert "".join(parts).encode() == whole
    done(tree, Write(Op.DELETE, b"/1/d", recursive=True))


@pytest.mark.parametrize("in_order", [False, True])
def test_a_large_directory_is_gathered_and_sorted_in_steps(
    in_order: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """300,000 files held a node for 0.2 s, and for 0.6 s where they are sorted."""
    tree, looked, most = Tree(keep_events=False), 0, 0
    names = [b"%05d" % n for n in range(5000)] + [b"_%d" % n for n in range(50)]
    random.Random(1).shuffle(names)
    done(tree, *(Write(Op.SET, b"/1/d/" + name, b"v") for name in names))
    hidden = vars(Node)["hidden"].fget

    def counted(node: Node) -> bool:
        nonlocal looked
        looked += 1
        return bool(hidden(node))

    monkeypatch.setattr(Node, "hidden", property(counted))
    parts = []
    for part in Listing(tree.find(b"/1/d"), b"/1", False, in_order, 0).parts(200):
        parts.append(part)
        if not part:
            most, looked = max(most, looked), 0
    assert most <= 1300
    found = [node["key"] for node in json.loads("".join(parts))["node"]["nodes"]]
    wanted = [f"/d/{name.decode()}" for name in names if name[:1] != b"_"]
    assert found == (sorted(wanted) if in_order else wanted)


def test_a_copy_goes_its_own_way() -> None:
    tree, rng = Tree(), random.Random(8)
    for _ in range(500):
        with suppress(V2Error):
            done(tree, random_write(rng, tree))
    before = everything(tree)
    other = tree.copy()
    assert get_json(other.root, b"", True, True, 0) == get_json(tree.root, b"", True, True, 0)
    for _ in range(500):
        with suppress(V2Error):
            done(other, random_write(rng, other))
    expire(other, NOW_NS + 10**6 * S)
    assert everything(tree) == before
    assert not other.next_expiry_ns


def test_news_say_whose_directory_went_whatever_a_path_holds() -> None:
    swept = (b"/1/d", b"/1/d/x\0", b"/1/d/x\0/1", b"/1/d/x\0/1/victim")
    told = [(b"row", swept), (b"other", ()), (b"one", (b"/1/d",))]
    assert decode_news(encode_news(7, False, told)) == (7, False, told)


def test_what_ends_together_ends_in_entries_of_bounded_size() -> None:
    leader, steps = Tree(keep_events=False), 0
    for number in range(12):
        write = Write(Op.SET, KEYS + b"/k%d" % number, b"x" * 1_000_000, expires_ns=NOW_NS + S, now_ns=NOW_NS)
        leader.take(evaluate(leader, write).rows)
    while rows := expire(leader, NOW_NS + 2 * S):
        assert sum(len(value or b"") for _, value in rows) < 6_000_000
        steps += 1
    assert (steps, leader.find(KEYS).children) == (3, {})


def test_long_values_make_a_list_long() -> None:
    tree = Tree()
    for number in range(20):
        tree.take(evaluate(tree, Write(Op.SET, KEYS + b"/k%d" % number, b"x" * 1_000_000)).rows)
    listing = Listing(tree.find(KEYS), KEYS, False, False, NOW_NS)
    assert listing.size > 9_000
    assert sum(not part for part in listing.parts(200)) >= 20


def test_the_history_has_so_many_bytes_at_most_and_its_oldest_events_go_first() -> None:
    tree, replica = Tree(keep_events=False), Tree()
    stored: dict[bytes, bytes] = {}
    for _ in range(120):  # each event holds its value and the one before
        for change in done(tree, Write(Op.SET, b"/1/k", b"v" * (1 << 19))):
            replica.take(change.rows)
            for name, value in change.rows:
                stored[name] = value or b""
    again = Tree(sorted((name, value) for name, value in stored.items() if value))
    for some in (replica, again):
        assert some.history is not None
        first = some.history.first
        assert 40 < some.index - first < 80
        kept = some.history.since(0)
        assert [Brief.of(row).index for row in kept] == list(range(first, some.index + 1))
        assert MOST_BYTES - (2 << 20) < sum(map(len, kept)) <= MOST_BYTES + (2 << 20)
        assert some.history.scan(b"/1/k", False, first, some.index) == kept[0]
        with pytest.raises(V2Error, match="cleared") as refused:
            some.history.scan(b"/1/k", False, first - 1, some.index)
        assert refused.value.code == Code.EVENT_INDEX_CLEARED
        assert some.sizes.bytes == tree.sizes.bytes


_ODD = [b"/1/d/a", b"/1/d/b", b"/a", b"a", b"", b"/", b"d/a", b"//a", b"/1/d", b"/1"]


@given(st.lists(st.sampled_from(_ODD)))
def test_rows_of_odd_paths_come_to_the_same_whatever_was_asked_before(paths: list[bytes]) -> None:
    """What a tree remembers of the directory that it looked at last decides nothing."""
    rows: list[Row] = [(b"n" + path, b"\0" + struct.pack("<QQq", 4, 4, 0) + b"v") for path in paths]
    at_once, anew = Tree(), Tree()
    at_once.take(rows)
    for row in rows:
        anew.children_of(b"/1")
        anew.take([row])
        anew = anew.copy()
    faults.take()
    assert get_json(at_once.root, b"", True, True, 0) == get_json(anew.root, b"", True, True, 0)


@pytest.mark.parametrize("seed", range(3))
def test_a_look_back_finds_the_first_event_that_concerns_a_path(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng, tree = random.Random(seed), Tree()
    names = [b"/1/a", b"/1/a/b", b"/1/a/b/c", b"/1/ab", b"/1/a/d", b"/1/a/b/c/e"]
    for _ in range(2500):
        op = rng.choice((Op.SET, Op.SET, Op.DELETE))
        with suppress(V2Error):
            tree.take(evaluate(tree, Write(op, rng.choice(names), b"x", recursive=True)).rows)
    kept = tree.history
    assert kept is not None
    rows = kept.since(0)
    assert kept.scan(b"/1/a", False, kept.first, tree.index)
    monkeypatch.setattr(history, "Brief", None)  # what is listed is not read again
    for since in (*rng.sample(range(kept.first, tree.index), 40), tree.index):
        for path, recursive in itertools.product((*names, b"/1", b"/1/a/b/c/e/f"), (False, True)):
            briefs = [(row, Brief.of(row)) for row in rows[since - kept.first :]]
            swept = [brief.sweeps and path.startswith(brief.key + b"/") for _, brief in briefs]
            wanted = next((row for (row, brief), gone in zip(briefs, swept, strict=True)
                           if concerns(path, recursive, brief, gone)), None)  # fmt: skip
            assert kept.scan(path, recursive, since, tree.index) == wanted
