"""Reads of files, answered as their bytes come (proxy.v2.plain_reads), say what the usual way says."""

from __future__ import annotations

import random
import re
from types import SimpleNamespace
from typing import Any

import pytest

from cluster.errors import TIMEOUT, EtcdError
from cluster.features.v2.changes import evaluate
from cluster.features.v2.refusals import V2Error
from cluster.features.v2.requests import Op, Write
from cluster.features.v2.shown import LatelyShown
from cluster.features.v2.tree import AUTH, KEYS, Node, Tree
from cluster.wire.messages import HEAD, READ, Method, Status
from node.serving.v2 import V2Tree
from proxy.http.http1 import TURN_REQUESTS, Http1Connection
from proxy.http.http2 import Limits
from proxy.listener.filter import FilteredRegistry
from proxy.v2.endpoints import register_v2
from proxy.v2.traffic import Traffic
from tests.unit.grpc.test_http1_fuzz import Output
from tests.unit.proxy.fakes import Net
from tests.unit.v2.random_writes import NOW_NS, S, random_write

TERM = 3
HOST = b"Host: x\r\n"
USUAL = re.compile(rb"date: [^\r]*|\"ttl\":-?\d+")  # what time changes


class Near:
    """The node of this process, as ``tools.muster.joined`` shows it."""

    def __init__(self, tree: V2Tree) -> None:
        self.revision = self.order_index = 1
        self.guarded = False
        self.files = 0
        self._tree = tree

    def get(self, key: bytes) -> tuple[int, int, bytes]:
        raise AssertionError("no key of version 3 is read here")

    def v2_file(self, path: bytes, after: int, now_ns: int) -> tuple[int, int, int, bytes] | None:
        found = self._tree.file(path, after, now_ns)
        self.files += found is not None
        return found


class Host:
    """A front and the node of its host in one process, with a tree that some clients have written."""

    def __init__(self, seed: int = 1, *, near: bool = True, cors: tuple[str, ...] = ("*",),
                 hosts: tuple[str, ...] = ()) -> None:  # fmt: skip
        self.net = Net(hosts=1).started()
        node = self.net.nodes[1]
        node.term = TERM
        self.writer = Tree(keep_events=False)
        self.state: Any = SimpleNamespace(enabled=False)
        self.node: Any = SimpleNamespace(
            store=SimpleNamespace(feature_rows=lambda _: [], revision=1), raft=SimpleNamespace(term=TERM),
            applied_index=71, guard=SimpleNamespace(state=self.state), loop=self.net.loop,
            patience=SimpleNamespace(hurried=lambda: None), _mark_dirty=lambda link: None)  # fmt: skip
        self.tree = V2Tree(self.node)
        chance = random.Random(seed)
        for _ in range(40):
            self.write(random_write(chance, self.writer))
        self.set(b"/k", b"b")
        self.set(b"/dir/10.0.0.1:80", b"<&>\n\xff")
        self.set(b"/ends", b"soon", NOW_NS + 10**6 * S)
        self.registry = FilteredRegistry(cors, hosts)
        self.traffic: Traffic = register_v2(self.registry, self.net.context, bytes)
        self.near = Near(self.tree)
        if near:
            link = node.link
            assert link is not None
            link.near = self.near
        self.asked = 0  # reads that came by a frame
        self.now = 0.0
        self.connect()

    def write(self, write: Write) -> None:
        try:
            rows = evaluate(self.writer, write).rows
        except V2Error:
            return
        self.writer.take(rows)
        self.tree.tree.take(rows)

    def set(self, key: bytes, value: bytes, expires_ns: int = 0) -> None:
        self.write(Write(Op.SET, KEYS + key, value, expires_ns=expires_ns, now_ns=NOW_NS))

    def connect(self, limits: Limits | None = None) -> None:
        self.output = Output()
        self.connection = Http1Connection(
            self.registry.find_http, limits or Limits(), self.output, "p", 0.0, self.registry.at_once)  # fmt: skip

    def pump(self) -> None:
        """The node answers what comes by a frame."""
        self.net.run()
        node = self.net.nodes[1]
        while requests := node.take():
            for request in requests:
                if request.method == Method.V2_READ:
                    self.asked += 1
                    try:
                        self.tree.read(self._link(), request.rid, request.body[READ.size :])
                    except EtcdError as error:
                        node.answer(request.rid, Status.ERROR, error.encode())
                elif request.method == Method.V2_WRITE:
                    node.answer(request.rid, Status.ERROR, EtcdError(TIMEOUT).encode())
            self.net.run()

    def _link(self) -> Any:
        node = self.net.nodes[1]

        def ok(rid: int, revision: int, term: int, tail: bytes) -> None:
            node.answer(rid, Status.OK, HEAD.pack(revision, term) + tail)

        return SimpleNamespace(ok=ok, awaits=lambda rid: True)

    def send(self, *pieces: bytes) -> bytes:
        """What a client gets for what it sends."""
        before = len(self.output.data)
        for piece in pieces:
            self.now += 0.001
            self.connection.receive(piece, self.now)
            self.pump()
        return self.output.data[before:]

    def get(self, key: str, fields: bytes = HOST) -> bytes:
        return self.send(get(key, fields))


def get(key: str, fields: bytes = HOST) -> bytes:
    return f"GET /v2/keys{key} HTTP/1.1\r\n".encode() + fields + b"\r\n"


KEYS_ASKED = (
    "/k", "/k?quorum=false", "/b", "/dir/10.0.0.1:80", "/dir", "/ends", "/none", "/k/b", "/", "", "/k/",
    "//k",
    "/./k", "/k?", "/k?recursive=true", "/k?quorum=x", "/%6b", "/_h", "/k#b", "/k;b", "/k?wait=x",
    "/k?sorted=true&quorum=false",
)  # fmt: skip
FIELDS = (
    HOST, b"Host: y\r\nOrigin: http://o\r\nAccept: */*\r\n", b"Host: x\r\nAuthorization: Basic eDp5\r\n",
    b"Host: x\r\nContent-Length: 0\r\n", b"Host: x\r\nContent-Length: 3\r\n", b"",
    b"Host: x\r\nConnection: close\r\n",
    b"Host: x\r\nExpect: 100-continue\r\n", b"Host: x\r\nConnection: keep-alive\r\n", b"Host : x\r\n",
)  # fmt: skip


@pytest.mark.parametrize("seed", range(150))
def test_what_clients_get_is_what_the_usual_way_says(seed: int) -> None:
    chance = random.Random(seed)
    data = bytearray()
    for _ in range(chance.randint(1, 5)):
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
    found, wanted = Host(seed, **hosts), Host(seed, near=False, **hosts)
    answers = [USUAL.sub(b"", host.send(*sent)) for host in (found, wanted)]
    assert answers[0] == answers[1], sent
    assert found.output.closed == wanted.output.closed
    assert wanted.near.files == 0
    assert found.near.files + found.asked == wanted.asked
    assert counted(found.traffic) == counted(wanted.traffic)


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


def test_the_first_read_of_a_front_asks_how_far_the_order_is() -> None:
    host = Host()
    host.net.router.recent.knows = False
    host.send(get("/k"))
    assert (host.near.files, host.output.data) == (0, b"")


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
    assert b"connection: close\r\n" in host.get("/k")
    assert host.output.closed


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
