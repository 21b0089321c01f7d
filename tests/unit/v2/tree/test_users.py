"""Users and roles of version 2: judged by the tree, changed whole (cluster.features.v2.users)."""

from __future__ import annotations

import json
import random
import struct

import pytest

from cluster.faults import MISTAKES
from cluster.features.v2.changes import answered, evaluate
from cluster.features.v2.refusals import Code
from cluster.features.v2.requests import PROVE, Answer, Get, Op, Scan, Who, Write, grows
from cluster.features.v2.tree import KEYS, Tree
from cluster.features.v2.user_changes import RoleWish, UserChange, UserOp, UserWish, changed, concerns_users
from cluster.features.v2.users import Permissions, Show, What, enabled, fingerprint, refusal, shown

HASH = "$2b$04$hash"
ROOT, ALICE = Who(b"root", fingerprint(b"$2b$04$hash")), Who(b"alice", fingerprint(b"$2b$04$hash"))


def change(tree: Tree, op: UserOp, name: str = "", wish: bytes = b"", who: Who | None = None) -> Answer:
    """A change, taken by the tree."""
    rows, answer = changed(tree, UserChange(op, name.encode(), wish, who, 5).encode())
    tree.take(rows)
    return Answer.decode(answer)


def user(tree: Tree, name: str, *roles: str) -> None:
    wish = UserWish(HASH, roles or None).encode()
    assert change(tree, UserOp.PUT_USER, name, wish).code in (200, 201)


def role(tree: Tree, name: str, read: tuple[str, ...], write: tuple[str, ...] = ()) -> None:
    wish = RoleWish(Permissions(read, write)).encode()
    assert change(tree, UserOp.PUT_ROLE, name, wish).code == 201


@pytest.fixture
def tree() -> Tree:
    """Users count; alice may read ``/a/*`` and ``/one``, and write ``/a/w``."""
    made = Tree()
    role(made, "ra", ("/a/*", "/one"), ("/a/w",))
    user(made, "alice", "ra")
    user(made, "root")
    assert change(made, UserOp.ENABLE).code == 200
    return made


def may(
    tree: Tree, who: Who | None, key: str, recursive: bool = False, write: bool = False, slash: bool = False
) -> int:
    refused = refusal(tree, who, KEYS + key.encode(), slash, recursive, write)
    return 0 if refused is None else refused.code


def test_whoever_asks_may_everything_until_users_count() -> None:
    tree = Tree()
    assert not enabled(tree)
    assert [may(tree, who, "/x", write=True) for who in (None, Who(b""), Who(b"nobody", 7))] == [0, 0, 0]


def test_a_pattern_ends_with_a_star_or_is_the_key(tree: Tree) -> None:
    read = [may(tree, ALICE, key) for key in ("/a/x", "/a/", "/a", "/ab", "/one", "/one/x", "/other", "")]
    assert read == [0, 0, 110, 110, 0, 110, 110, 110]
    assert may(tree, ALICE, "/a", slash=True) == 0
    assert may(tree, ALICE, "/one", slash=True) == Code.UNAUTHORIZED
    assert [may(tree, ALICE, key, write=True) for key in ("/a/w", "/a/x")] == [0, 110]


def test_what_is_recursive_wants_a_pattern_with_a_star(tree: Tree) -> None:
    assert may(tree, ALICE, "/a/x", recursive=True) == 0
    assert may(tree, ALICE, "/one", recursive=True) == Code.UNAUTHORIZED
    assert may(tree, ALICE, "/a/w", recursive=True, write=True) == Code.UNAUTHORIZED
    assert may(tree, ROOT, "/one", recursive=True, write=True) == 0


def test_guests_have_the_role_guest(tree: Tree) -> None:
    assert may(tree, None, "/x", write=True) == 0
    assert may(tree, Who(b"nobody", 0, True), "/x") == 0  # a certificate's name that is no user
    assert change(tree, UserOp.DELETE_ROLE, "guest", who=ROOT).code == 200
    assert [may(tree, who, "/x") for who in (None, Who(b"nobody", 0, True))] == [110, 110]


def test_a_password_is_compared_anew_once_it_has_changed(tree: Tree) -> None:
    asked = refusal(tree, Who(b"alice"), KEYS + b"/a/x", False, False, write=False)
    assert asked is not None
    assert (asked.code, asked.body) == (PROVE, HASH.encode())
    wish = UserWish("$2b$04$other").encode()
    assert change(tree, UserOp.PUT_USER, "alice", wish, ROOT).code == 200
    assert may(tree, ALICE, "/a/x") == PROVE
    assert may(tree, Who(b"alice", fingerprint(b"$2b$04$other")), "/a/x") == 0
    assert may(tree, Who(b"alice", 0, True), "/a/x") == 0  # her certificate says who she is


def test_who_is_nobody_may_nothing_though_guests_may(tree: Tree) -> None:
    assert [may(tree, who, "/x") for who in (Who(b""), Who(b"nobody"), Who(b"nobody", 7))] == [110] * 3


def test_only_root_sees_and_changes_users(tree: Tree) -> None:
    for who in (None, ALICE, Who(b"nobody"), Who(b"nobody", 0, True)):
        for what in (What.MAY, What.USERS, What.USER, What.ROLES, What.ROLE):
            assert shown(tree, Show(what, who, b"alice")).code == 401
        for op in UserOp:
            assert change(tree, op, "alice" if op < UserOp.ENABLE else "", who=who).code == 401
    assert shown(tree, Show(What.ENABLED)).body == b'{"enabled":true}\n'
    assert shown(tree, Show(What.USERS, ROOT)).code == 200
    assert b"$2b" not in shown(tree, Show(What.USERS, ROOT)).body


def test_a_write_is_judged_by_the_tree_that_it_changes(tree: Tree) -> None:
    write = Write(Op.SET, KEYS + b"/a/x", b"1", who=ALICE, now_ns=5)
    rows, answer = answered(tree, write.encode())
    assert (rows, Answer.decode(answer).code, Answer.decode(answer).index) == ([], Code.UNAUTHORIZED, 0)
    rows, answer = answered(tree, Write(Op.SET, KEYS + b"/a/w", b"1", who=ALICE, now_ns=5).encode())
    assert (len(rows) > 0, Answer.decode(answer).code) == (True, 0)


def test_the_first_change_takes_five_indexes_and_others_one_each() -> None:
    """Three directories, the switch, and the user, as in etcd; each index is one event's."""
    tree = Tree()
    before = tree.index
    user(tree, "alice")
    assert tree.index == before + 5
    user(tree, "root")
    assert tree.index == before + 6
    assert change(tree, UserOp.ENABLE).code == 200
    assert tree.index == before + 8  # the role guest and the switch
    assert tree.history is not None
    assert len(tree.history.since(before + 1)) == 8


def test_a_change_that_is_refused_leaves_the_tree_as_it_is(tree: Tree) -> None:
    before = tree.index
    wish = UserWish(grant=("ra",)).encode()
    assert change(tree, UserOp.PUT_USER, "alice", wish, ROOT).code == 409
    assert change(tree, UserOp.DELETE_USER, "root", who=ROOT).code == 403
    assert change(tree, UserOp.ENABLE, who=ROOT).code == 409
    assert tree.index == before


def test_a_role_is_bounded(tree: Tree) -> None:
    wish = RoleWish(grant=Permissions(("x" * (1 << 20),))).encode()
    assert change(tree, UserOp.PUT_ROLE, "ra", wish, ROOT).code == 500
    assert may(tree, ALICE, "/a/x") == 0


def test_a_user_who_names_a_long_role_often_is_refused_and_not_shown() -> None:
    tree = Tree()
    role(tree, "long", tuple(f"/k{i}" for i in range(10_000)))
    user(tree, "bob", *("long",) * 15_000)
    assert shown(tree, Show(What.USER, None, b"bob")).code == 500
    assert shown(tree, Show(What.USERS)).code == 500
    assert shown(tree, Show(What.ROLES)).code == 200


def test_a_request_is_judged_by_a_bounded_part_of_the_roles() -> None:
    tree = Tree()
    for i in range(20):
        role(tree, f"r{i:02}", (*(f"/{i}/{at}" for at in range(9_000)), f"/{i}"))
    user(tree, "root")
    user(tree, "alice", *(f"r{i:02}" for i in range(20)))
    assert change(tree, UserOp.ENABLE).code == 200
    assert may(tree, ALICE, "/0") == 0
    assert may(tree, ALICE, "/19") == Code.UNAUTHORIZED
    assert may(tree, ROOT, "/19") == 0


def test_what_is_folded_from_rows_is_judged_alike() -> None:
    """A replica that starts from its rows, and one that has followed, are equal."""
    rng = random.Random(7)
    leader, follower, kept = Tree(), Tree(), dict[bytes, bytes]()
    names = ("alice", "root", "ra", "guest")
    for _ in range(400):
        op = rng.choice(list(UserOp))
        some = tuple(rng.sample(names, rng.randint(0, 2))) or None
        patterns = [rng.choice((None, Permissions(("/a/*",), None), Permissions(None, ("/b", "/a*"))))] * 2
        wish = UserWish(rng.choice(("", HASH)), *rng.sample((some, None, None), 3)).encode()
        if op in (UserOp.PUT_ROLE, UserOp.DELETE_ROLE):
            wish = RoleWish(Permissions(), *patterns).encode()
        name = "" if op >= UserOp.ENABLE else rng.choice(names)
        rows, _ = changed(leader, UserChange(op, name.encode(), wish, ROOT, 5).encode())
        leader.take(rows)
        follower.take(rows)
        for row, value in rows:
            if value is None:
                kept.pop(row)
            else:
                kept[row] = value
    started = Tree(sorted(kept.items(), key=lambda row: (row[0][:1] != b"n", row[0])))
    seen = [
        [(tree.index, enabled(tree)), *(shown(tree, Show(what, Who(b"root", 0, True))) for what in What)]
        for tree in (leader, follower, started)
    ]
    assert seen[0] == seen[1] == seen[2]


def test_requests_say_who_asks_on_the_wire() -> None:
    for who in (None, Who(b"", 0), Who(b"n\xff", 1 << 63 | 5, True)):
        for slash in (True, False):
            write = Write(Op.SET, KEYS + b"/a", b"v", False, b"p", 3, who=who, slash=slash, recursive=True)
            assert Write.decode(write.encode()) == write
            get = Get(KEYS + b"/a", True, True, 7, who, slash)
            assert Get.decode(get.encode()) == get
            scan = Scan(KEYS + b"/a", True, 9, who, slash)
            assert Scan.decode(scan.encode()) == scan
        show = Show(What.USER, who, b"a b")
        assert Show.decode(show.encode()) == show
        asked = UserChange(UserOp.PUT_USER, b"a b", b"{}", who, 7)
        assert UserChange.decode(asked.encode()) == asked


def test_a_request_of_nobody_is_as_long_as_ever() -> None:
    assert len(Get(KEYS + b"/a", now_ns=7).encode()) == 1 + 8 + 4


def test_changes_of_users_are_told_from_those_of_keys() -> None:
    assert not concerns_users(Write(Op.COMPARE_AND_DELETE, KEYS + b"/a").encode())
    assert not concerns_users(b"")
    bodies = {op: UserChange(op, b"a").encode() for op in UserOp}
    assert all(map(concerns_users, bodies.values()))
    shrinks = {UserOp.DELETE_USER, UserOp.DELETE_ROLE, UserOp.DISABLE}
    assert {op for op, body in bodies.items() if not grows(body)} == shrinks


def test_a_change_that_is_none_is_no_request(tree: Tree) -> None:
    good = UserChange(UserOp.PUT_USER, b"bob", UserWish(HASH, ("a",)).encode(), ROOT).encode()
    bad = [good[:n] for n in range(1, len(good))]
    bad += [
        UserChange(UserOp.PUT_USER, name, UserWish(HASH).encode(), ROOT).encode()
        for name in (b"", b"a/b", b"..")
    ]
    bad += [
        UserChange(UserOp.PUT_USER, b"x", json.dumps(wish).encode(), ROOT).encode()
        for wish in ({}, [], [1, [2]])
    ]
    before = tree.index
    for body in bad:
        try:
            rows, answer = changed(tree, body)
        except (*MISTAKES, struct.error):
            continue  # the leader answers it so, and has changed nothing
        assert (rows, Answer.decode(answer).code) == ([], PROVE) or Answer.decode(answer).code >= 400
    assert tree.index == before


def test_a_tree_whose_keys_are_named_like_users_is_open() -> None:
    """``/v2/keys/2/enabled`` is a key like others."""
    tree = Tree()
    tree.take(evaluate(tree, Write(Op.SET, KEYS + b"/2/enabled", b"true")).rows)
    assert not enabled(tree)
