"""A member's clock counts in what comes through a proxy, whatever the clock of the proxy's machine says."""

from __future__ import annotations

import json
import random
from types import SimpleNamespace
from typing import Any

import pytest

from cluster.features.v2.changes import answered, evaluate, expire
from cluster.features.v2.requests import Answer, Get, Kind, Op, Write, by_clock, get_of, read_body
from cluster.features.v2.tree import KEYS, Tree
from cluster.features.v2.user_changes import UserChange, UserOp
from cluster.wire.messages import Method
from node.links.fronts import NODE_IDENTITY, FrontLink
from node.serving.auth.admission import Admission
from node.serving.v2 import V2Tree
from proxy.v2.keys import operation, path_of
from proxy.v2.request import parse_key_request
from tests.unit.v2.tree.random_writes import NOW_NS, S

FORM = "application/x-www-form-urlencoded"
PATH = KEYS + b"/lock"
MEMBER = SimpleNamespace(wall_time=lambda: NOW_NS / 1e9)
SKEWS_S = (0, -10, 60, -50 * 365 * 86_400, 50 * 365 * 86_400)


def link(member_id: int, identity: bytes = b"front") -> FrontLink:
    return FrontLink(identity, lambda parts: True, b"", 1, member_id)


def taken_in(of: FrontLink, method: int, body: bytes) -> bytes:
    """What the node goes on with."""
    seen: list[Any] = []
    node: Any = SimpleNamespace(
        settings=SimpleNamespace(growth="off"),
        guard=SimpleNamespace(state=SimpleNamespace(enabled=False)),
        machine=MEMBER,
        store=SimpleNamespace(feature_rows=lambda _: []),
        catch_up=lambda: None,
        take_requests=lambda link, requests: seen.extend(requests),
    )
    node.serve = SimpleNamespace(v2=V2Tree(node))
    Admission(node).requests(of, [(1, Method.PUT, 7000, b"k"), (2, method, 7000, body)])
    assert seen[0] == (1, Method.PUT, 7000, b"k")
    assert seen[1][:3] == (2, method, 7000)
    return bytes(seen[1][3])


def put(form: bytes, now_ns: int) -> bytes:
    """A write as a front with this clock sends it."""
    asked = parse_key_request("PUT", "/v2/keys/lock", "", form, FORM, now_ns)
    return Write(
        operation(asked),
        path_of(asked),
        asked.value.encode(),
        prev_value=asked.prev_value.encode(),
        expires_ns=asked.expiration_ns,
        refresh=bool(asked.refresh),
        now_ns=now_ns,
    ).encode()


@pytest.mark.parametrize("skew_s", SKEWS_S)
def test_a_key_set_through_a_proxy_ends_after_its_ttl(skew_s: int) -> None:
    tree = Tree()
    wish = put(b"value=me&ttl=5&prevExist=false", NOW_NS + skew_s * S)
    rows, body = answered(tree, taken_in(link(0), Method.V2_WRITE, wish))
    tree.take(rows)
    node = json.loads(Answer.decode(body).body)["node"]
    assert (node["ttl"], node["expiration"]) == (5, "2027-01-15T08:00:05Z")
    assert not expire(tree, NOW_NS + 5 * S - 1)
    assert expire(tree, NOW_NS + 5 * S)


def test_what_a_proxy_asks_is_what_a_member_would_have_asked() -> None:
    chance = random.Random(1)
    ttls = [0, 1, 5, 2**31, 2**63 // S, 2**63 // S + 1, 2**64 // S, 2**64 - 1]
    for ttl in [*ttls, *(chance.randrange(2**64) for _ in range(200))]:
        form = chance.choice((b"value=1&ttl=%d", b"refresh=true&ttl=%d", b"value=1&prevValue=2&ttl=%d")) % ttl
        for skew_s in SKEWS_S:
            asked = put(form, NOW_NS + skew_s * S)
            assert by_clock(asked, NOW_NS) == put(form, NOW_NS)


def test_what_is_to_stay_stays() -> None:
    asked = put(b"value=1", NOW_NS + 60 * S)
    assert taken_in(link(0), Method.V2_WRITE, asked) == put(b"value=1", NOW_NS)


@pytest.mark.parametrize("of", [link(3), link(0, NODE_IDENTITY + b"1")], ids=["a host's front", "a node"])
def test_others_are_taken_at_their_word(of: FrontLink) -> None:
    asked = put(b"value=1&ttl=5", NOW_NS - 10 * S)
    assert taken_in(of, Method.V2_WRITE, asked) == asked


@pytest.mark.parametrize(("method", "body"), [
    (Method.V2_WRITE, UserChange(UserOp.PUT_USER, b"a" * 40, now_ns=NOW_NS - 10 * S).encode()),
    (Method.V2_WRITE, b""), (Method.V2_WRITE, b"\1" * 33), (Method.TXN, b"\1" * 40),
])  # fmt: skip
def test_what_has_no_ttl_is_as_it_came(method: int, body: bytes) -> None:
    assert taken_in(link(0), method, body) == body


@pytest.mark.parametrize(("member_id", "ttl"), [(0, 20), (3, 30)], ids=["a proxy", "a host's front"])
def test_a_read_through_a_proxy_shows_what_is_left(member_id: int, ttl: int) -> None:
    writer, rows = Tree(), []
    for number in range(300):
        wish = Write(Op.SET, KEYS + b"/%d" % number, b"x", expires_ns=NOW_NS + 20 * S, now_ns=NOW_NS)
        rows.append(evaluate(writer, wish).rows)
        writer.take(rows[-1])
    started: list[Any] = []
    node: Any = SimpleNamespace(
        store=SimpleNamespace(feature_rows=lambda _: [row for some in rows for row in some], revision=1),
        guard=SimpleNamespace(state=SimpleNamespace(enabled=False)),
        raft=SimpleNamespace(term=1),
        reads=SimpleNamespace(start=lambda link, rid, work: started.append(work)),
        applied_index=1,
        machine=MEMBER,
        mark_dirty=lambda link: None,
    )
    told: list[bytes] = []
    front: Any = SimpleNamespace(member_id=member_id, ok=lambda rid, revision, term, tail: told.append(tail))
    tree, before_ns = V2Tree(node), NOW_NS - 10 * S
    tree.read(front, 1, get_of(KEYS + b"/7", 0, before_ns))
    tree.read(front, 2, read_body(Kind.GET, 0, Get(KEYS, True, now_ns=before_ns).encode()))
    for _ in started[0]:
        pass
    one, every = (json.loads(Answer.decode(body).body)["node"] for body in told)
    assert {node["ttl"] for node in (one, *every["nodes"])} == {ttl}
