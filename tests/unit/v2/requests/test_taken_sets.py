"""Sets that are taken as their bytes come (proxy.v2.plain.sets) come to what the usual way comes to."""

from __future__ import annotations

import random
import re
from dataclasses import replace
from typing import Any

import pytest

from cluster.faults import faults
from cluster.wire.messages import Method, Status
from proxy.http.http1 import TURN_REQUESTS
from proxy.http.http1_plain import TakenRequest, Taker
from proxy.http.http2 import Limits
from proxy.v2.plain.heads import Heads
from tests.unit.v2.requests.plain_host import FORM, HOST, USUAL, Host, get, put
from tests.unit.v2.requests.test_plain_requests import BODIES, FORMS, KEYS_ASKED, counted, left

MORE_BODIES = (
    *BODIES, b"value=a&ttl=9", b"value=a&ttl=0", b"value=a&ttl=007", b"value=a&ttl=", b"value=a&ttl=9&ttl=x",
    b"ttl=9&value=a", b"value=a&ttl=9&dir=true", b"value=a&prevExist=true", b"value=a&", b"value=a&value=b",
    b"value=" + b"y" * 9000,
)  # fmt: skip


def without_times(answers: bytes) -> bytes:
    """An answer with a TTL has a moment in it, whose length differs."""
    found = USUAL.sub(b"", answers)
    return re.sub(rb"Content-Length: \d+", b"", found) if b'"expiration":' in answers else found


def noted(host: Host, taken: list[bytes] | None = None) -> list[bytes]:
    """What is taken on this connection from now on."""
    taken = [] if taken is None else taken
    take = host.registry.take_whole
    assert take is not None

    def noting(owner: Taker, data: bytes) -> TakenRequest | None:
        found = take(owner, data)
        if found is not None:
            taken.append(data)
        return found

    host.connection._take_whole = noting
    return taken


def ready(**more: Any) -> Host:
    """A host that has seen such header fields."""
    host = Host(**more)
    for body in (b"value=x", b"value=one"):  # a block has the length in it
        host.send(put("/first", body))
    return host


@pytest.mark.parametrize("seed", range(40))
def test_clients_get_and_nodes_are_asked_what_the_usual_way_says(seed: int) -> None:
    chance = random.Random(seed)
    sent = []
    for _ in range(25):
        fields = FORM if chance.random() < 0.8 else chance.choice(FORMS)
        request = put(chance.choice(KEYS_ASKED[:9]), chance.choice(MORE_BODIES), fields)
        if chance.random() < 0.1:
            at = chance.randrange(len(request))
            request = request[:at] + chance.choice((b"\r", b"\n", b" ", b"%", b"&", b"")) + request[at + 1 :]
        sent += [request] * chance.randint(1, 2)
        if chance.random() < 0.1:
            sent[-1] += get("/k")
    sent += [put("/sure", b"value=1")] * 2
    cors = chance.choice((("*",), ("http://o",), ()))
    wanted, found = Host(seed, near=False, plain=False, cors=cors), Host(seed, cors=cors)
    taken: list[bytes] = []
    for request in sent:
        for host in (wanted, found):
            if host.output.closed or host.connection.backlog:  # a request may have been cut short
                host.connect()
        noted(found, taken)
        assert without_times(found.send(request)) == without_times(wanted.send(request)), request
    assert [replace(w, now_ns=0, expires_ns=left(w)) for w in found.wrote] == [
        replace(w, now_ns=0, expires_ns=left(w)) for w in wanted.wrote
    ]
    assert counted(found.traffic) == counted(wanted.traffic)
    assert found.tree.tree.counts == wanted.tree.tree.counts
    assert taken


def test_a_set_is_taken_once_its_header_fields_were_seen() -> None:
    host = Host()
    taken = noted(host)
    assert b" 201 " in host.send(put("/new", b"value=1")).partition(b"\r\n")[0]
    assert taken == []
    assert b" 200 " in host.send(put("/new", b"value=2")).partition(b"\r\n")[0]
    for status in b" 201 ", b" 200 ":
        assert status in host.send(put("/new2", b"value=a+b%20c&ttl=9")).partition(b"\r\n")[0]
    assert len(taken) == 2
    assert (host.wrote[-1].value, left(host.wrote[-1])) == (b"a b c", 9 * 10**9)
    assert b'"value":"2"' in host.get("/new")


def test_a_refusal_and_an_unknown_fate_are_told_as_ever() -> None:
    for fails in (False, True):
        answers = []
        for plain in (True, False):
            host = ready(plain=plain)
            taken = noted(host) if plain else []
            host.fails = fails
            answers.append(USUAL.sub(b"", host.send(put("/dir", b"value=x"))))
            assert len(taken) == plain
            assert host.connection.request is None
            assert b'"value":"b"' in host.get("/k")  # the connection goes on
        assert answers[0] == answers[1]


def test_what_comes_behind_a_set_waits_for_its_answer() -> None:
    host = ready()
    taken = noted(host)
    host.connection.receive(put("/k", b"value=one"), 5.0)
    host.connection.receive(get("/k") + put("/k", b"value=two") + get("/k"), 5.0)
    before = len(host.output.data)
    host.pump()
    answers = host.output.data[before:].split(b"HTTP/1.1 200 OK\r\n")[1:]
    assert [answer.partition(b'"value":"')[2][:3] for answer in answers] == [b"one", b"one", b"two", b"two"]
    assert len(taken) == 1


def test_a_client_that_goes_away_is_forgotten_and_counts_as_ever() -> None:
    counts = []
    for plain in (True, False):
        host = ready(plain=plain)
        before = len(host.output.data)
        for _ in range(2):
            host.connection.receive(put("/k", b"value=x"), 5.0)
            host.connection.lost()
            host.pump()
            host.connect()
        assert len(host.output.data) in (0, before)
        assert host.writes == 4
        assert not host.net.router.statistics()["pending"]
        counts.append(counted(host.traffic))
    assert counts[0] == counts[1]


@pytest.mark.parametrize("what", ["crowded", "unsent", "named", "users", "turn", "small", "draining"])
def test_what_is_not_for_all_goes_the_usual_way(what: str) -> None:
    answers = []
    for plain in (True, False):
        host = ready(plain=plain)
        if what == "small":
            host.connect(Limits(max_body_bytes=20))
        taken = noted(host) if plain else []
        output = host.output
        if what == "crowded":
            output.crowded = True
        elif what == "unsent":
            output.unsent_bytes = lambda: 1 << 30  # type: ignore[method-assign]
        elif what == "named":
            host.connection.peer_name = "someone"
        elif what == "users":
            host.net.context.principals.enabled = True
        elif what == "turn":
            host.connection._served = TURN_REQUESTS
            host.now -= 0.001
            output.again = lambda: None  # type: ignore[method-assign]
        elif what == "draining":
            host.connection.request = held = host.connection._find  # type: ignore[assignment]
            host.connection.drain()
            host.connection.request = None
            assert held is not None
        answers.append(USUAL.sub(b"", host.send(put("/k", b"value=y"))))
        assert taken == []
    assert answers[0] == answers[1]


def test_a_front_that_is_read_only_takes_none() -> None:
    host = ready()
    take = host.registry.take_whole
    assert take is not None
    ways: Any = take.__self__._ways  # type: ignore[attr-defined]
    ways.serves_writes = False
    assert take(host.connection, put("/k", b"value=x")) is None


def test_a_set_has_its_turn_later_where_others_have_had_this_one() -> None:
    host = ready()
    taken = noted(host)
    host.output.later = lambda: True  # type: ignore[method-assign]
    host.connection.receive(put("/k", b"value=x"), 5.0)
    host.pump()
    assert host.writes == 2
    host.output.later = lambda: False  # type: ignore[method-assign]
    host.connection.go_on()
    assert len(taken) == 1
    host.pump()
    assert (host.writes, host.connection.backlog, host.connection.request) == (3, 0, None)
    assert host.output.data.endswith(b"}\n")


def test_a_set_that_fails_as_it_is_taken_later_is_asked_once() -> None:
    host = ready()
    host.net.router.routes[0].leader_link = None
    host.net.router.routes[0].queue.extend([None] * 20_000)  # type: ignore[list-item]
    host.output.later = lambda: True  # type: ignore[method-assign]
    before = len(host.output.data)
    host.connection.receive(put("/k", b"value=x"), 5.0)
    host.output.later = lambda: False  # type: ignore[method-assign]
    host.connection.go_on()
    said = host.output.data[before:]
    assert said.count(b"HTTP/1.1 ") == said.count(b"HTTP/1.1 500 ") == 1
    assert (host.writes, host.connection.backlog, host.connection.request) == (2, 0, None)


def test_a_fault_before_anything_is_asked_goes_the_usual_way_and_one_behind_it_ends_the_request() -> None:
    host = ready()

    def broken(owner: Taker, data: bytes) -> TakenRequest | None:
        raise RuntimeError("a mistake")

    host.connection._take_whole = broken
    assert b" 200 " in host.send(put("/first", b"value=y")).partition(b"\r\n")[0]
    assert host.writes == 3
    host.connect()
    router: Any = host.net.router
    write = router.write

    def written(*args: Any) -> None:
        write(*args)
        raise RuntimeError("a mistake")

    router.write = written
    said = host.send(put("/first", b"value=z"))
    assert said.startswith(b"HTTP/1.1 500 ")
    assert (said.count(b"HTTP/1.1 "), host.writes) == (1, 4)
    router.write = write
    assert b'"value":"z"' in host.get("/first")
    assert [type(met[1]) for met in faults.take()] == [RuntimeError, RuntimeError]


def test_a_set_that_waits_in_vain_for_a_leader_is_told_so() -> None:
    answers = []
    for plain in (True, False):
        host = ready(plain=plain)
        taken = noted(host) if plain else []
        host.connection.receive(put("/k", b"value=x"), 5.0)
        host.net.run()
        (question,) = host.net.nodes[1].take()
        assert question.method == Method.V2_WRITE
        before = len(host.output.data)
        host.net.nodes[1].answer(question.rid, Status.UNKNOWN, b"\x0e\0etcdserver: request timed out")
        host.net.run()
        answers.append(USUAL.sub(b"", host.output.data[before:]))
        assert len(taken) == plain
    assert answers[0] == answers[1]
    assert b" 500 " in answers[0].partition(b"\r\n")[0]


def test_a_refusal_that_cannot_be_read_ends_the_request_and_not_its_connection() -> None:
    host = ready()
    taken = noted(host)
    host.connection.receive(put("/k", b"value=x"), 5.0)
    host.net.run()
    (question,) = host.net.nodes[1].take()
    before = len(host.output.data)
    host.net.nodes[1].answer(question.rid, Status.ERROR, b"")
    host.net.run()
    assert host.output.data[before:].startswith(b"HTTP/1.1 500 ")
    assert (len(taken), host.connection.request) == (1, None)
    assert b'"value":"b"' in host.get("/k")
    assert len(faults.take()) == 1


def test_what_is_kept_of_an_answer_follows_its_place_and_time() -> None:
    heads = Heads(7, lambda headers: [])
    for index, place, term, second in ((5, 9, 2, 1), (6, 9, 2, 1), (7, 10, 2, 2), (8, 10, 3, 2)):
        made = heads.answer(b"begin\r\n", index, place, term, b"body", second * 10**9)
        fresh = Heads(7, lambda headers: [])
        assert made == fresh.answer(b"begin\r\n", index, place, term, b"body", second * 10**9)


def test_a_form_without_its_type_is_taken_by_nobody() -> None:
    host = ready()
    taken = noted(host)
    for _ in range(2):
        host.send(put("/k", b"value=x", HOST))
    assert taken == []
