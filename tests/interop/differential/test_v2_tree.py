"""The v2 tree beside a real etcd's: generated requests, answered the same, index by index."""

from __future__ import annotations

import http.client
import json
import random
import re
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote, urlencode

import pytest

from cluster.features.v2.changes import evaluate, expire
from cluster.features.v2.events import Action, Event
from cluster.features.v2.refusals import V2Error, http_status
from cluster.features.v2.requests import Op, Write
from cluster.features.v2.shown import event_json, get_json
from cluster.features.v2.tree import KEYS, Tree
from tests.cluster.local_cluster import until
from tests.unit.v2.tree.random_writes import NOW_NS, S, random_path, random_write

from .etcd import running_etcd

_TIMES = re.compile(rb'"(expiration|ttl)":("[^"]*"|-?[0-9]+),')
_METHODS = {Op.CREATE_IN_ORDER: "POST", Op.DELETE: "DELETE", Op.COMPARE_AND_DELETE: "DELETE"}


class Etcd:
    """The real one."""

    def __init__(self, address: str) -> None:
        self._connection = http.client.HTTPConnection(address, timeout=30)

    def close(self) -> None:
        """No more is asked."""
        self._connection.close()

    def ask(
        self, method: str, path: bytes, query: dict[str, bytes | str], form: dict[str, bytes | str]
    ) -> tuple[int, int, bytes]:
        """Status, index, body without times."""
        target = f"/v2/keys{quote(path)}" + (f"?{urlencode(query)}" if query else "")
        body = urlencode(form) if method in ("PUT", "POST") else None
        self._connection.request(
            method,
            target,
            body,
            {"Content-Type": "application/x-www-form-urlencoded"} if body is not None else {},
        )
        answer = self._connection.getresponse()
        text = answer.read()
        return answer.status, int(answer.headers["X-Etcd-Index"] or 0), _TIMES.sub(b"", text)

    def end(self, path: bytes) -> bytes:
        """How a key has ended, which it has."""
        since = 1
        while True:
            query: dict[str, bytes | str] = {"wait": "true", "waitIndex": str(since)}
            body = self.ask("GET", path, query, {})[2]
            if b'"action":"expire"' in body:
                return body
            since = _index(body) + 1

    def write(self, write: Write) -> tuple[int, int, bytes]:
        """A change, as a front would have read it."""
        query: dict[str, bytes | str] = {}
        form: dict[str, bytes | str] = {}
        if write.directory:
            query["dir"] = "true"
        if write.recursive:
            query["recursive"] = "true"
        if write.prev_value:
            query["prevValue"] = write.prev_value
        if write.prev_index:
            query["prevIndex"] = str(write.prev_index)
        if write.op in (Op.CREATE, Op.UPDATE):
            query["prevExist"] = "true" if write.op == Op.UPDATE else "false"
        if write.refresh:
            form["refresh"] = "true"
        else:
            form["value"] = write.value
        if write.expires_ns:
            form["ttl"] = str((write.expires_ns - NOW_NS) // 10**9)
        return self.ask(_METHODS.get(write.op, "PUT"), write.path.removeprefix(KEYS), query, form)


@pytest.fixture
def etcd(tmp_path: Path) -> Iterator[Etcd]:
    """A fresh one, with v2."""
    with running_etcd(tmp_path, "--enable-v2") as endpoint:
        etcd = Etcd(endpoint.address)
        try:
            until(lambda: _serves(etcd))
            yield etcd
        finally:
            etcd.close()


def _serves(etcd: Etcd) -> bool:
    try:
        return etcd.ask("GET", b"/", {}, {})[:2] == (200, 3)
    except OSError:
        return False


class Ours:
    """The tree, and a second one that folds what the first one logs."""

    def __init__(self) -> None:
        self.tree, self.replica = Tree(keep_events=False), Tree()

    def write(self, write: Write) -> tuple[int, int, bytes]:
        """Status, index, body without times."""
        write = Write.decode(write.encode())
        try:
            change = evaluate(self.tree, write)
        except V2Error as error:
            return http_status(error.code), error.index, error.json(KEYS)
        self.tree.take(change.rows)
        events = self.replica.take(change.rows)
        assert [Event.decode(row) for row, _ in events] == [change.event]
        body = event_json(change.event, KEYS)
        return 201 if change.event.created else 200, change.event.index, _TIMES.sub(b"", body)

    def end(self, path: bytes) -> bytes:
        """How a key has ended, which it has."""
        history, since = self.replica.history, 1
        assert history is not None
        while True:
            row = history.scan(KEYS + path, False, since, self.replica.index)
            assert row is not None
            event = Event.decode(row)
            if event.action == Action.EXPIRE:
                return _TIMES.sub(b"", event_json(event, KEYS))
            since = event.index + 1

    def get(self, path: bytes, recursive: bool) -> tuple[int, int, bytes]:
        """Likewise."""
        tree = self.replica
        try:
            body = get_json(tree.find(path), KEYS, recursive, True, NOW_NS)
        except V2Error as error:
            return http_status(error.code), error.index, error.json(KEYS)
        return 200, tree.index, _TIMES.sub(b"", body)


def _known_to_differ(write: Write, tree: Tree) -> bool:
    """etcd 3.5 refuses every change of a directory's TTL with an internal error; 2.x and 3.4 make it."""
    if write.op != Op.UPDATE or write.path == KEYS or write.value:
        return False
    try:
        return tree.find(write.path).children is not None
    except V2Error:
        return False


@pytest.mark.parametrize("seed", range(4))
def test_generated_requests_have_the_same_answers(etcd: Etcd, seed: int) -> None:
    rng, ours = random.Random(seed), Ours()
    for _ in range(700):
        write = random_write(rng, ours.tree, ttls=(1000, 5000))
        if _known_to_differ(write, ours.tree):
            continue
        assert ours.write(write) == etcd.write(write), write
        path, recursive = random_path(rng), rng.random() < 0.5
        query: dict[str, bytes | str] = {"recursive": str(recursive).lower(), "sorted": "true"}
        assert ours.get(path, recursive) == etcd.ask("GET", path.removeprefix(KEYS), query, {})
    _compare_histories(etcd, ours, rng)


def _compare_histories(etcd: Etcd, ours: Ours, rng: random.Random) -> None:
    tree = ours.replica
    assert tree.history is not None
    found = 0
    for _ in range(300):
        path, recursive, since = random_path(rng), rng.random() < 0.3, rng.randrange(1, tree.index)
        row = tree.history.scan(path, recursive, since, tree.index)
        if row is None:
            continue  # etcd would wait
        query: dict[str, bytes | str] = {
            "wait": "true",
            "waitIndex": str(since),
            "recursive": str(recursive).lower(),
        }
        status, index, body = etcd.ask("GET", path.removeprefix(KEYS), query, {})
        if recursive and b"/_" in body[len(path) :]:
            continue  # etcd's look back shows what is hidden; its waits do not, and ours never
        assert (status, index, body) == (
            200,
            tree.index,
            _TIMES.sub(b"", event_json(Event.decode(row), KEYS)),
        )
        found += 1
    assert found > 30


def test_a_look_back_too_far_is_refused_alike(etcd: Etcd) -> None:
    ours = Ours()
    for n in range(1100):
        write = Write(Op.SET, b"/1/k", b"%d" % n, now_ns=NOW_NS)
        assert ours.write(write) == etcd.write(write)
    tree = ours.replica
    assert tree.history is not None
    for since in (1, tree.history.first - 1):
        with pytest.raises(V2Error) as refused:
            tree.history.scan(b"/1/k", False, since, tree.index)
        error = refused.value
        theirs = etcd.ask("GET", b"/k", {"wait": "true", "waitIndex": str(since)}, {})
        assert theirs == (http_status(error.code), error.index, error.json(KEYS))
    row = tree.history.scan(b"/1/k", False, tree.history.first, tree.index)
    theirs = etcd.ask("GET", b"/k", {"wait": "true", "waitIndex": str(tree.history.first)}, {})
    assert row is not None
    assert theirs == (200, tree.index, event_json(Event.decode(row), KEYS))


def _index(body: bytes) -> int:
    """The index of the event that a body shows."""
    return int(json.loads(body)["node"]["modifiedIndex"])


_INDEXES = re.compile(rb'"(modifiedIndex|createdIndex)":[0-9]+')


def test_nodes_end_in_order_of_their_times(etcd: Etcd) -> None:
    ours = Ours()
    for attempt in range(20):
        began, above = time.monotonic(), b"/%d" % attempt
        for path, ttl, directory in (
            (b"/d", 3, True), (b"/d/below", 1000, False), (b"/stays", 1000, False), (b"/first", 0, False)
        ):  # fmt: skip
            write = Write(
                Op.SET, KEYS + above + path, b"", directory, expires_ns=NOW_NS + ttl * S, now_ns=NOW_NS
            )
            assert ours.write(write)[0] == etcd.write(write)[0] == 201
        if time.monotonic() - began < 2.0:
            break  # else something may have ended before all was there: a slow machine
    until(lambda: etcd.ask("GET", above + b"/d", {}, {})[0] == 404)
    ours.replica.take(expire(ours.tree, NOW_NS + 10 * S))
    ends = []
    for path in (b"/first", b"/d", b"/d/below"):
        wanted, found = etcd.end(above + path), ours.end(above + path)
        ends.append(_index(wanted))
        assert _index(found) - _index(ours.end(above + b"/first")) == ends[-1] - ends[0]
        assert _INDEXES.sub(b"", found) == _INDEXES.sub(b"", wanted)
    assert ends[0] < ends[1] == ends[2]
    root: dict[str, bytes | str] = {"recursive": "true", "sorted": "true"}
    left = etcd.ask("GET", above, root, {})[2]
    assert _INDEXES.sub(b"", ours.get(KEYS + above, True)[2]) == _INDEXES.sub(b"", left)
