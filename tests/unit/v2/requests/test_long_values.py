"""Long values of version 2 are quoted at the front, in many turns of its loop (cluster.features.v2.text)."""

from __future__ import annotations

import gc
from collections.abc import Callable
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest

from cluster.features.v2 import text
from cluster.features.v2.changes import answered, evaluate
from cluster.features.v2.events import encode_news
from cluster.features.v2.requests import LEFT, PROVE, Answer, Op, Who, Write, taken
from cluster.features.v2.shown import Listing, get_json
from cluster.features.v2.text import LONG_BYTES, in_steps, quoted_bytes
from cluster.features.v2.tree import KEYS, Tree
from cluster.features.v2.users import fingerprint
from cluster.wire.messages import Method
from proxy.v2.keys import Keys
from proxy.v2.request import KeyRequest
from proxy.v2.waiting.feed import Feed, Fired
from tests.unit.proxy.fakes import Net
from tests.unit.v2.requests.plain_host import Host, put
from tests.unit.v2.requests.test_large_bodies import Asked
from tests.unit.v2.requests.waiting.feeding import Router

MOST_BYTES = 6 * 32_768  # of a step, where each octet is escaped
LONG = b"\xff" * 200_000


@pytest.mark.parametrize("seed", range(4))
def test_a_text_in_steps_is_as_at_once(seed: int) -> None:
    chance = Random(seed)
    characters = [b"\xff", b"\x80", b"\xe2\x80", b"\xf0\x9f\x98\x80", b"\xc3\xa4", b"a", b'"', b"\0"]
    some = chance.sample(characters, 2)
    left = [b"".join(chance.choices(some, k=50_000)), b"\x80" * 100_000, b""]
    steps = list(in_steps(b"{\0,\0,\0}", left))
    assert max(map(len, steps)) <= MOST_BYTES
    assert b"".join(steps) == b"{%b,%b,%b}" % tuple(map(quoted_bytes, left))


@pytest.fixture
def longest(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How long what is escaped at once is."""
    found = [0]
    escaped = text.json_escaped

    def counted(value: bytes) -> bytes:
        found[0] = max(found[0], len(value))
        return escaped(value)

    monkeypatch.setattr(text, "json_escaped", counted)
    return found


def test_a_leader_quotes_no_long_value(longest: list[int]) -> None:
    tree = Tree()
    path = KEYS + b"/k"
    for write, refusal, octets in (
        (Write(Op.SET, path, LONG), 0, len(LONG)),
        (Write(Op.SET, path, LONG[1:]), 0, 2 * len(LONG) - 1),
        (Write(Op.COMPARE_AND_SWAP, path, LONG, prev_value=LONG), 101, 2 * len(LONG) - 1),
    ):
        rows, encoded = answered(tree, write.encode())
        tree.take(rows)
        answer = Answer.decode(encoded)
        assert answer.code == LEFT
        assert longest == [0]
        code, steps = taken(answer)
        body = b"".join(steps)
        assert (code, body.count(b"\\ufffd")) == (refusal, octets)
        longest[0] = 0


def test_a_long_value_of_a_list_is_quoted_in_steps(longest: list[int]) -> None:
    tree = Tree()
    for name in (b"a", b"b"):
        tree.take(evaluate(tree, Write(Op.SET, KEYS + b"/d/" + name, LONG)).rows)
    node = tree.find(KEYS + b"/d")
    parts = list(Listing(node, KEYS, True, True, 0).parts(200))
    assert longest[0] <= 32_768
    assert max(map(len, parts)) <= MOST_BYTES
    assert parts.count("") > 10
    assert "".join(parts).encode() == get_json(node, KEYS, True, True, 0)
    assert "".join(parts).count("\\ufffd") == 2 * len(LONG)


def test_a_front_quotes_a_long_value_in_steps(longest: list[int]) -> None:
    host = Host()
    host.set(b"/long", LONG)
    assert host.get("/long").count(b"\\ufffd") == len(LONG)
    assert host.send(put("/long", b"value=short")).count(b"\\ufffd") == len(LONG)
    assert host.send(put("/long", b"value=" + LONG[1:])).count(b"\\ufffd") == len(LONG) - 1
    assert host.send(put("/long", b"value=x&prevValue=" + LONG)).startswith(b"HTTP/1.1 412 ")
    assert host.send(put("/long?noValueOnSuccess=true", b"value=" + LONG)).endswith(b'{"action":"set"}\n')
    assert 0 < longest[0] <= 32_768


def test_a_wait_gets_a_long_event_once_its_turns_are_over(longest: list[int]) -> None:
    router: Any = Router()
    feed = Feed(router)
    told: list[bytes] = []

    def woken(fired: Fired | None) -> None:
        told.append(b"" if fired is None else fired.json)

    waiters = [feed.wait(KEYS + b"/k", False, 0, True, lambda _: None, woken) for _ in range(2)]
    for waiter in waiters:
        router.answer(waiter, Answer(3, b""))
    tree = Tree()
    rows = []
    for value in (LONG, b"short"):
        rows.append(evaluate(tree, Write(Op.SET, KEYS + b"/k", value)).rows)
        tree.take(rows[-1])
    events = [(value, ()) for some in rows for name, value in some if name[:1] == b"h" and value is not None]
    assert len(events[0][0]) > LONG_BYTES
    router.v2_news(router.routes[0].replica, encode_news(tree.index, False, events))
    turns = 0
    while router.soon:
        turns, before = turns + 1, len(told)
        router.turn()
        assert len(told) <= before + 2
        assert not any(len(line) > LONG_BYTES for line in told[before + 1 :]), "a long line has a turn"
    assert [body.count(b"\\ufffd") for body in told] == [len(LONG)] * 4
    assert turns > 10
    assert longest[0] <= 32_768


def test_a_long_value_is_held_once_while_its_write_waits_for_its_turn() -> None:
    """Its form, its text of four bytes for each character, and the write were."""
    net, proven = Net().started(), list[Callable[[bool], None]]()
    net.context.passwords = SimpleNamespace(check=lambda asks, password, known, then: proven.append(then))
    keys, node = Keys(net.context), net.nodes[1]
    value = 2 * "\U0001f600\xe4" * 100_000
    head = {"content-type": "application/x-www-form-urlencoded", "authorization": "Basic YTpi"}
    form = f"value={value}&prevValue=a&unknown={LONG.hex()}".encode()
    requests = [Asked("PUT", "/v2/keys/k", "", head, form, f"p{client}") for client in range(2)]
    for request in requests:
        keys.serve(request)
    net.run()
    (asked,) = node.take(Method.V2_WRITE)
    large = net.router.in_turn.large
    assert large.waiting == 1
    assert sum(len(request.body) for request in requests) < 2.1 * len(value.encode())
    assert not [held for held in gc.get_objects() if isinstance(held, KeyRequest) and held.value == value]
    wish = Write.decode(asked.body)
    assert (wish.value, wish.prev_value) == (value.encode(), b"a")
    node.ok(asked, 7, Answer(9, b"hash", PROVE).encode())
    net.run()
    proven.pop()(True)
    net.run()
    (other,) = node.take(Method.V2_WRITE)
    assert other.body == requests[1].body
    node.ok(other, 8, Answer(10, b"{}").encode())
    net.run()
    (again,) = node.take(Method.V2_WRITE)
    wish.who = Who(b"a", fingerprint(b"hash"))
    assert Write.decode(again.body) == wish
