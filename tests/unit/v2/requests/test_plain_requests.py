"""Reads of files, answered as their bytes come (proxy.v2.plain.reads), say what the usual way says."""

from __future__ import annotations

import random
import re
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from cluster.features.v2.changes import evaluate
from cluster.features.v2.requests import Op, Write
from cluster.features.v2.shown import LatelyShown
from cluster.features.v2.tree import AUTH, KEYS, Node
from cluster.version import MADE
from cluster.wire.messages import READ, Method, Status
from node.serving import v2
from proxy.http.http1 import TURN_BYTES, TURN_REQUESTS
from proxy.http.http1_plain import Plain
from proxy.http.requests import HttpHandler
from proxy.listener.filter import FilteredRegistry
from proxy.v2.endpoints import register_v2
from proxy.v2.traffic import Traffic
from tests.unit.proxy.fakes import FakeNode
from tests.unit.v2.requests.plain_host import FORM, HOST, TERM, USUAL, Host, get, put
from tests.unit.v2.tree.random_writes import NOW_NS, S

KEYS_ASKED = (
    "/k", "/k?quorum=false", "/b", "/dir/10.0.0.1:80", "/dir", "/ends", "/none", "/k/b", "/", "", "/k/",
    "//k",
    "/k?quorum=true", "/none?quorum=true", "/dir?quorum=true", "/ends?quorum=true",
    "/./k", "/k?", "/k?recursive=true", "/k?quorum=x", "/%6b", "/_h", "/k#b", "/k;b", "/k?wait=x",
    "/k?sorted=true&quorum=false",
)  # fmt: skip
FIELDS = (
    HOST, b"Host: y\r\nOrigin: http://o\r\nAccept: */*\r\n", b"Host: x\r\nAuthorization: Basic eDp5\r\n",
    b"Host: x\r\nContent-Length: 0\r\n", b"Host: x\r\nContent-Length: 3\r\n", b"",
    b"Host: x\r\nConnection: close\r\n",
    b"Host: x\r\nExpect: 100-continue\r\n", b"Host: x\r\nConnection: keep-alive\r\n", b"Host : x\r\n",
)  # fmt: skip
FORMS = (
    FORM + b"Authorization: Basic eDp5\r\n", HOST, HOST + b"Content-Type: text/plain\r\n",
    FORM + b"Origin: http://o\r\n", FORM + b"Connection: close\r\n",
    HOST + b"Content-Type: application/x-www-form-urlencoded; charset=utf-8\r\n",
)  # fmt: skip
BODIES = (
    b"value=x", b"value=", b"value=a+b%20c%ff=&d", b"value=a+b%20c%ff=d", b"value=%zz", b"value=%",
    b"value=a;dir=true", b"value=a&ttl=x", b"dir=true", b"value", b"", b"value=\xff\x00<", b"Value=x",
    b"value=" + b"y" * 300,
)  # fmt: skip


@pytest.mark.parametrize("seed", range(200))
def test_what_clients_get_is_what_the_usual_way_says(seed: int) -> None:
    chance = random.Random(seed)
    data = bytearray()
    for _ in range(chance.randint(1, 5)):
        if chance.random() < 0.3:
            fields = FORM if chance.random() < 0.7 else chance.choice(FORMS)
            data += put(chance.choice(KEYS_ASKED[:9]), chance.choice(BODIES), fields)
            continue
        fields = HOST if chance.random() < 0.6 else chance.choice(FIELDS)
        line = get(chance.choice(KEYS_ASKED), fields)
        method = b"GET" if chance.random() < 0.9 else chance.choice((b"HEAD", b"PATCH", b"get"))
        data += line.replace(b"GET", method)
    if seed % 3 == 0:
        for _ in range(chance.randint(1, 3)):
            data[chance.randrange(len(data))] = chance.choice(b"\r\n :/\0\xffaG1%?")
    cuts = sorted(chance.sample(range(len(data)), min(len(data), chance.choice((0, 0, 1, 3)))))
    sent = [bytes(data[a:b]) for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True) if a < b]
    hosts = {"cors": chance.choice((("*",), ("http://o",), ())), "hosts": chance.choice(((), ("*",), ("y",)))}
    wanted = Host(seed, near=False, plain=False, **hosts)
    said = USUAL.sub(b"", wanted.send(*sent))
    for near in (True, False):
        found = Host(seed, near=near, **hosts)
        assert USUAL.sub(b"", found.send(*sent)) == said, sent
        assert found.output.closed == wanted.output.closed
        assert found.near.files + found.asked == wanted.asked
        assert found.writes == wanted.writes
        assert counted(found.traffic) == counted(wanted.traffic)
        assert found.tree.tree.counts == wanted.tree.tree.counts


def counted(traffic: Traffic) -> list[tuple[str, dict[str, str], float]]:
    """All that is counted, but for times."""
    return [
        (sample.name, sample.labels, sample.value)
        for metric in traffic.samples()
        for sample in metric.samples
        if not sample.name.endswith(("_sum", "_bucket"))
    ]


def test_a_plain_read_asks_by_no_frame() -> None:
    host = Host()
    for key in ("/k", "/k?quorum=false", "/dir/10.0.0.1:80", "/ends"):
        assert host.get(key).startswith(b"HTTP/1.1 200 OK\r\n")
    assert (host.near.files, host.asked) == (4, 0)
    for key in ("/dir", "/none", "/k?recursive=true", "/k/"):
        host.get(key)
    assert (host.near.files, host.asked) == (4, 4)


@pytest.mark.parametrize("plain", [True, False])
@pytest.mark.parametrize("query", ["", "?recursive=true&sorted=true"])
def test_a_sign_that_a_list_goes_on_is_no_answer(
    plain: bool, query: str, monkeypatch: pytest.MonkeyPatch,
) -> None:
    host = Host(plain=plain)
    for number in range(20):
        host.set(b"/list/%d" % number, b"v")
    expected = host.get("/list" + query)
    signs: list[int] = []
    answer = FakeNode.answer

    def counted(node: FakeNode, rid: int, status: int, *rest: Any) -> None:
        signs.append(status == Status.PARTIAL)
        answer(node, rid, status, *rest)

    monkeypatch.setattr(FakeNode, "answer", counted)
    monkeypatch.setattr(v2, "_SLICE", 2)
    monkeypatch.setattr(v2, "_SIGN_STEPS", 1)
    found = host.get("/list" + query)
    assert sum(signs) > 5
    assert found.count(b"HTTP/1.1 200 OK") == 1
    assert USUAL.sub(b"", found) == USUAL.sub(b"", expected)


def test_the_body_of_a_read_is_no_request_though_a_set_had_the_same_fields() -> None:
    hidden = get("/dir/10.0.0.1:80")
    body = b"value=%b" % (b"x" * (len(hidden) - 6))
    fields = FORM + b"Content-Length: %d\r\n" % len(hidden)
    answers = []
    for plain in (True, False):
        host = Host(plain=plain)
        assert b'"action":"set"' in host.send(put("/k", body))
        answers.append(USUAL.sub(b"", host.get("/k", fields) + host.send(hidden)))
        assert host.output.data.count(b"HTTP/1.1 200 OK\r\n") == 2
    assert answers[0] == answers[1]


def usual(host: Host) -> bool:
    """Whether a read goes the usual way, and is answered."""
    asked = host.asked
    assert host.get("/k")
    return host.asked == asked + 1


def test_a_read_waits_for_what_this_front_has_shown_of_the_tree() -> None:
    host = Host()
    index = host.tree.tree.index
    assert host.get("/k")
    host.tree.tree.index = index - 1  # as another replica would be
    assert host.get("/k") == b""
    assert (host.near.files, host.asked) == (1, 1)
    host.tree.tree.index = index
    host.tree._release()
    host.pump()
    assert b"X-Etcd-Index: %d\r\n" % index in host.output.data


def test_a_read_waits_for_what_this_front_has_shown_of_the_keys_of_version_3() -> None:
    host = Host()
    host.net.router.highest = 2
    assert host.get("/k") == b""
    assert (host.near.files, host.asked) == (0, 0)
    host.near.revision = 2
    host.net.nodes[1].watermark(2)
    host.pump()
    assert host.output.data.startswith(b"HTTP/1.1 200 OK\r\n")
    assert not usual(host)


def test_what_may_be_refused_goes_the_usual_way() -> None:
    host = Host()
    assert not usual(host)
    host.near.guarded = host.state.enabled = True
    assert b" 401 " in host.get("/k").partition(b"\r\n")[0]
    host.near.guarded = host.state.enabled = False
    host.net.context.principals.enabled = True
    assert b" 401 " in host.get("/k").partition(b"\r\n")[0]
    host.net.context.principals.enabled = False
    assert not usual(host)
    for key, value in ((b"/users/root", b'{"user":"root","roles":["root"]}'), (b"/enabled", b"true")):
        host.write(Write(Op.SET, AUTH + key, value, now_ns=NOW_NS))
    assert b" 401 " in host.get("/k").partition(b"\r\n")[0]
    assert host.near.files == 2


def test_a_read_with_a_quorum_asks_for_an_index_after_it_came_and_for_nothing_else() -> None:
    host = Host()
    node = host.net.nodes[1]
    host.connection.receive(get("/k?quorum=true"), 0.0)
    host.net.run()
    (question,) = node.take()
    assert (question.method, host.near.files, host.output.data) == (Method.READ_INDEX, 0, b"")
    first = host.output
    host.connect()
    host.connection.receive(get("/k?quorum=true"), 0.0)  # while the question is under way
    host.net.run()
    (another,) = node.take()
    node.index(question, 1)
    host.net.run()
    assert (host.near.files, host.output.data) == (1, b"")
    assert b'"value":"b"' in first.data
    node.index(another, 1)
    host.net.run()
    assert b'"value":"b"' in host.output.data
    assert node.take() == []


def test_a_read_with_a_quorum_waits_for_the_index_where_the_replica_is_behind_it() -> None:
    host = Host()
    host.near.order_index = 6
    host.connection.receive(get("/k?quorum=true"), 0.0)
    host.net.run()
    node = host.net.nodes[1]
    (question,) = node.take()
    node.index(question, 7)
    host.net.run()
    (read,) = node.take()
    assert (read.method, READ.unpack_from(read.body)[0], host.near.files) == (Method.V2_READ, 7, 0)


def test_a_write_whose_fate_is_unknown_is_told_as_ever() -> None:
    answers = []
    for plain in (True, False):
        host = Host(plain=plain)
        host.fails = True
        answers.append(USUAL.sub(b"", host.send(put("/k", b"value=x"))))
        labels = {"method": "PUT", "code": "500"}
        assert ("etcd_http_failed_total", labels, 1.0) in counted(host.traffic)
    assert answers[0] == answers[1]
    assert b" 500 " in answers[0].partition(b"\r\n")[0]


@pytest.mark.parametrize("body", [
    *BODIES, b"value=a&ttl=9", b"value=a&ttl=0", b"value=a&ttl=007", b"value=&ttl=999999999",
    b"value=a&ttl=9999999999",
    b"value=a&ttl=", b"value=a&ttl=-1", b"value=a&ttl=9&ttl=x", b"ttl=9&value=a", b"value=a&ttl=9&dir=true",
    b"value=a&prevExist=true", b"value=a&TTL=9", b"value=a&ttl=%39", b"value=a&", b"value=a&&ttl=9",
])  # fmt: skip
def test_a_node_is_asked_for_the_same_write(body: bytes) -> None:
    wrote = []
    for plain in (True, False):
        host = Host(plain=plain)
        host.send(put("/k", body))
        wrote.append([replace(w, now_ns=0, expires_ns=left(w)) for w in host.wrote])
    assert wrote[0] == wrote[1]


def left(write: Write) -> int:
    """What there is of a TTL; below 0: there is none."""
    return write.expires_ns - write.now_ns if write.expires_ns else -1


def test_what_a_write_has_shown_a_read_of_a_replica_behind_it_waits_for() -> None:
    host = Host()
    index = host.tree.tree.index
    assert b'"modifiedIndex":%d,' % (index + 1) in host.send(put("/k", b"value=x"))
    host.tree.tree.index = index
    assert host.get("/k") == b""


def test_a_client_that_goes_away_is_forgotten() -> None:
    host = Host()
    for request in (get("/dir"), get("/k?quorum=true"), put("/k", b"value=x")):
        host.connect()
        host.connection.receive(request, 0.0)
        host.connection.lost()
        host.pump()
        host.net.pass_time(0.2)
        host.pump()
        assert host.output.data == b""
    assert not host.net.router.statistics()["pending"]


def test_who_is_named_by_a_certificate_asks_the_usual_way() -> None:
    host = Host()
    host.connection.peer_name = "someone"
    found: list[Any] = []
    find = host.registry.find_plain
    assert find is not None

    def noted(plain: Plain) -> HttpHandler | None:
        found.append(plain)
        return find(plain)

    host.connection._find_plain = noted
    assert host.send(put("/k", b"value=x"))
    assert (host.writes, found) == (1, [])


def test_a_front_that_is_read_only_takes_no_write() -> None:
    host = Host()
    settings: Any = host.net.context.settings
    object.__setattr__(settings, "read_only", True)
    object.__setattr__(settings, "discovery_service", True)
    registry = FilteredRegistry((), (), read_only=True)
    register_v2(registry, host.net.context, bytes)
    host.registry = registry
    host.connect()
    assert b" 501 " in host.send(put("/k", b"value=x")).partition(b"\r\n")[0]
    assert b" 404 " in host.send(b"GET /new?size=3 HTTP/1.1\r\nHost: x\r\n\r\n").partition(b"\r\n")[0]
    assert host.writes == 0


def test_the_first_read_of_a_front_asks_how_far_the_order_is() -> None:
    host = Host()
    host.net.router.recent.knows = False
    host.connection.receive(get("/k"), 1.0)
    host.net.run()
    (question,) = host.net.nodes[1].take()
    assert (question.method, host.near.files, host.output.data) == (Method.READ_INDEX, 0, b"")
    host.net.nodes[1].index(question, 60)
    host.net.run()
    (lacking,) = host.net.nodes[1].take()
    outputs = [host.output]
    host.connect()
    outputs.append(host.output)
    assert host.get("/k") == b"", "the node has not applied so much"
    host.net.nodes[1].ok(lacking)
    host.pump()
    assert all(b'"value":"b"' in output.data for output in outputs)
    assert host.near.files == 0
    assert host.get("/k")
    assert host.near.files == 1


def test_a_host_that_is_cut_off_from_the_leader_asks_where_that_can_be_reached() -> None:
    host = Host()
    host.net.router.routes[0].replica = None
    assert host.get("/k") == b""
    assert host.near.files == 0


def test_a_change_shows_at_once_and_a_ttl_is_told_anew() -> None:
    host = Host()
    for value in (b"one", b"two"):
        host.set(b"/k", value)
        assert value in host.get("/k")
        assert value in host.get("/k")
    place = KEYS + b"/ends"
    for second in (0, 1):
        found = host.tree.file(place, 0, NOW_NS + second * S)
        assert found is not None
        assert b'"ttl":%d' % (10**6 - second) in found[3]
    host.write(Write(Op.DELETE, KEYS + b"/k"))
    assert b'"errorCode":100' in host.get("/k")


def test_a_snapshot_that_is_installed_shows_at_once() -> None:
    host = Host()
    assert b'"value":"b"' in host.get("/k")
    host.set(b"/k", b"later")
    rows = list(evaluate(host.writer, Write(Op.SET, KEYS + b"/k", b"last", now_ns=NOW_NS)).rows)
    host.node.store.feature_rows = lambda _: rows
    host.tree.replaced()
    assert b'"value":"last"' in host.get("/k")


def test_pipelined_reads_are_answered_in_turns_and_in_one_write() -> None:
    host = Host()
    turns: list[int] = []
    host.output.again = lambda: turns.append(host.near.files)  # type: ignore[method-assign]
    host.connection.receive(get("/k") * 40, 0.0)
    while len(turns) < 3 and host.near.files < 40:
        host.connection.go_on()
    assert turns == [TURN_REQUESTS, 2 * TURN_REQUESTS]
    assert (host.near.files, host.output.writes, host.asked) == (40, 3, 0)
    assert host.output.data.count(b"HTTP/1.1 200 OK\r\n") == 40


def test_long_files_are_read_one_after_the_other_and_answers_at_once_have_a_bound() -> None:
    host = Host()
    host.set(b"/long", b"<" * 20_000)
    host.connection.receive(get("/long") * 16, 0.0)
    assert (host.near.files, host.output.data) == (0, b"")
    host.pump()
    assert (host.near.files, host.asked) == (0, 16)
    assert host.output.data.count(b"HTTP/1.1 200 OK\r\n") == 16
    host.connect()
    host.set(b"/short", b"<" * 4_000)
    host.connection.receive(get("/short") * 16, 1.0)
    assert TURN_BYTES <= len(host.output.data) < 2 * TURN_BYTES
    host.pump()
    assert host.output.data.count(b"HTTP/1.1 200 OK\r\n") == 16


def test_of_pipelined_reads_one_alone_is_answered_when_others_have_had_the_turn() -> None:
    host = Host()
    waits = True
    host.output.later = lambda: waits  # type: ignore[method-assign]
    host.connection.receive(get("/k") * 10, 0.0)
    assert host.output.data.count(b"HTTP/1.1 200 OK\r\n") == host.near.files == 1
    waits = False
    host.connection.go_on()
    assert host.output.data.count(b"HTTP/1.1 200 OK\r\n") == host.near.files == 10
    assert host.asked == 0


def test_a_turn_has_so_many_reads_however_they_come() -> None:
    host = Host()
    turns: list[int] = []
    host.output.again = lambda: turns.append(host.near.files)  # type: ignore[method-assign]
    for _ in range(TURN_REQUESTS + 1):
        host.connection.receive(get("/k"), 1.0)
    assert turns == [TURN_REQUESTS]
    host.connection.go_on()
    host.connection.receive(get("/k"), 2.0)
    assert (host.near.files, host.asked) == (TURN_REQUESTS + 2, 0)


def test_a_client_for_which_there_is_no_room_gets_no_answer_at_once() -> None:
    host = Host()
    host.output.crowded = True
    assert host.get("/k").startswith(b"HTTP/1.1 429 ")
    host.connect()
    host.output.unsent_bytes = lambda: 1 << 30  # type: ignore[method-assign]
    assert host.get("/k") == b""
    assert host.near.files == 0


def test_a_connection_that_ends_is_told_so() -> None:
    host = Host()
    host.get("/k")
    host.connection.request = held = SimpleNamespace()  # type: ignore[assignment]
    host.connection.drain()
    host.connection.request = None
    assert held is not None
    assert b"Connection: close\r\n" in host.get("/k")
    assert host.output.closed


@pytest.mark.parametrize("fields", [b"Host: x\r\n", b"Host: x\r\nTE: trailers\r\n"])
@pytest.mark.parametrize("target", ["/k", "/none"])
def test_names_of_fields_are_spelt_as_go_spells_them(target: str, fields: bytes) -> None:
    """Scripts look for Content-Length, letter by letter. The second fields are h11's to read."""
    head = Host().get(target, fields).partition(b"\r\n\r\n")[0]
    names = [line.partition(b":")[0] for line in head.split(b"\r\n")[1:]]
    assert {b"Content-Type", b"Content-Length", b"Date", b"X-Etcd-Index"} <= set(names)
    assert names == [name.title() for name in names]


def test_blocks_and_answers_that_are_kept_are_bounded() -> None:
    host = Host()
    for number in range(2000):
        assert host.get("/k", b"Host: x\r\nX-Request: %d\r\n" % number)
    assert host.get("/k", b"Host: x\r\nX-Long: %s\r\n" % (b"y" * 2000))
    reads: Any = host.registry.at_once
    assert len(reads.__self__._blocks) <= 512
    assert host.asked == 1  # of the long block
    kept = LatelyShown(limit_bytes=16_000)
    nodes = [Node(b"/1/%d" % n, False, 1, 1, 0, b"") for n in range(1000)]
    for node in nodes:
        kept.keep(node, b"x" * 300)
        assert kept.get(node) == b"x" * 300
    assert sum(kept.get(node) is not None for node in nodes) <= 20
    kept.keep(nodes[0], b"x" * 1000)
    assert kept.get(nodes[0]) is None


@pytest.mark.parametrize("front", [TERM - 1, TERM + 1], ids=["it voted", "it has not heard yet"])
def test_a_wait_shows_the_term_of_its_replica_as_reads_do(front: int) -> None:
    """Patroni leaves a member whose term goes back. The leader that a front knows may be of another one."""
    host = Host()
    host.net.context.router.routes[0].term = front
    terms = [
        re.findall(rb"X-Raft-Term: (\d+)", host.send(sent))
        for sent in (get("/k?quorum=false"), get("/k"), get("/k?wait=true&waitIndex=1"), get("/k"))
    ]
    assert terms == [[b"%d" % (TERM + MADE)]] * 4


@pytest.mark.parametrize(("front", "shown"), [(TERM - 1, TERM), (TERM + 1, TERM + 1)])
def test_a_wait_that_looks_nowhere_shows_the_newest_term_that_its_front_knows(front: int, shown: int) -> None:
    """Its client has ended its side while no replica is there, and the last look back may be long ago."""
    host = Host()
    host.send(get("/k?wait=true&waitIndex=1"))
    host.net.cut(1)
    host.net.context.router.routes[0].term = front
    host.connect()
    host.send(get("/k?wait=true"))
    host.connection.half_closed()
    assert re.findall(rb"X-Raft-Term: (\d+)", host.output.data) == [b"%d" % (shown + MADE)]
