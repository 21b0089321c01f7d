"""Whole answers of version 2, and hosts that refuse, break off or stand still."""

from __future__ import annotations

import asyncio
import itertools
import json
import math
import posixpath
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from muster_client import DeadlineExceeded, MusterError, Tls, Unreachable, v2
from muster_client.v2 import client as asking
from muster_client.v2 import http
from muster_client.v2.sync import Client

from tests.authority import Authority
from tests.unit.v2.host import BROKEN, Asked, Said, host

NODE = {"action": "get", "node": {"key": "/a", "value": "1"}}


@pytest.fixture
def silent() -> Iterator[str]:
    """``host:port`` where connections are taken, and nothing is read."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"127.0.0.1:{listener.getsockname()[1]}"


def test_a_whole_answer() -> None:
    with host(lambda asked: (201, {"users": ["ada"]})) as (url, seen):
        client = Client(url, user="ada", password="b:c")
        answer = client.ask("PUT", "/auth/users/a b", body={"user": "a b"})
        assert (answer.status, answer.headers["x-etcd-index"], answer.index) == (201, "7", 7)
        assert json.loads(answer.body) == answer.told() == {"users": ["ada"]}
        client.ask(
            "POST", "/keys/q", query={"prevExist": True, "x": None}, form={"value": "1 & ä", "dir": False})
        ada = "Basic YWRhOmI6Yw=="
        form = "application/x-www-form-urlencoded"
        assert seen == [("PUT /v2/auth/users/a%20b", "application/json", '{"user": "a b"}', ada),
                        ("POST /v2/keys/q?prevExist=true", form, "value=1+%26+%C3%A4&dir=false", ada)]


def test_a_host_of_another_scheme_is_not_asked_in_clear() -> None:
    """A mistyped https sent names and passwords in clear."""
    with host(lambda asked: (200, NODE)) as (url, seen):
        wrong = url.replace("http:", "htps:")
        with pytest.raises(Unreachable, match="neither http nor https"):
            Client(wrong, user="ada", password="b").get("/a")
        assert seen == []
        assert Client(f"{wrong},{url.replace('http:', 'HTTP:')}").set("/a", "1").node.value == "1"


def test_a_ttl_that_hosts_take_for_one_in_the_past_is_refused() -> None:
    """Their nanoseconds wrap at 64 bits: the key was gone at once."""
    with host(lambda asked: (200, NODE)) as (url, seen):
        client = Client(url)
        for write in (client.set, client.append):
            with pytest.raises(ValueError, match="136 years"):
                write("/a", "1", ttl=10**10)
        with pytest.raises(ValueError, match="136 years"):
            client.refresh("/a", 10**10)
        client.set("/a", "1", ttl=1 << 32)
    assert [asked.body for asked in seen] == ["value=1&ttl=4294967296"]


def test_a_key_has_no_empty_and_dotted_parts_and_nul_does_not_end_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """With ``normpath`` before Python 3.11.5 it does: another directory was deleted."""
    normpath = posixpath.normpath
    monkeypatch.setattr(posixpath, "normpath", lambda path: normpath(path.partition("\0")[0]))
    keys = ("/dir\0x/", "a", "//a/./b/../c", "/", "", "/..", "../.b/", "/%00ä")
    with host(lambda asked: (200, NODE)) as (url, seen):
        client = Client(url)
        for key in keys:
            client.delete(key)
    assert [asked.line.removeprefix("DELETE /v2/keys") for asked in seen] == [
        "/dir%00x", "/a", "/a/c", "/", "/", "/", "/.b", "/%2500%C3%A4"]


@pytest.mark.parametrize(("said", "kind", "text", "code", "maybe_done"), [
    ((401, {"errorCode": 110, "message": "No", "cause": "a guest"}), v2.Unauthorized, "No (a guest)", 110,
     False),
    ((401, {"message": "Insufficient credentials"}), v2.Unauthorized, "Insufficient credentials", 0, False),
    ((404, "404 page not found"), v2.NotServed, "status 404: b'404 page not found'", 0, False),
    ((404, {"message": "auth: no user"}), v2.V2Error, "auth: no user", 0, False),
    ((404, {"errorCode": 100, "message": "Key not found", "index": 7}), v2.KeyNotFound, "Key not found", 100,
     False),
    ((500, {"errorCode": 300, "message": "Raft"}), v2.V2Error, "Raft", 300, True),
    ((502, "<html>"), v2.V2Error, "status 502: b'<html>'", 0, True),
    ((307, ""), v2.V2Error, "status 307: b''", 0, False),
    ((200, "[1]"), v2.V2Error, "status 200: b'[1]'", 0, False),
    ((200, {"action": "set"}), v2.V2Error, "no node in {'action': 'set'}", 0, False),
])  # fmt: skip
def test_a_refusal(said: Said, kind: type[v2.V2Error], text: str, code: int, maybe_done: bool) -> None:
    with host(lambda asked: said) as (url, seen), pytest.raises(v2.V2Error) as met:
        Client(url).set("/a", "1")
    assert (type(met.value), str(met.value)) == (kind, text)
    assert (met.value.code, met.value.maybe_done, len(seen)) == (code, maybe_done, 1)


def deep(levels: int) -> str:
    """A directory in a directory, and so on, as a recursive read shows them."""
    return f'{{"action":"get","node":{_LEVEL * levels}{{"key":"/a","value":"1"}}{"]}" * levels}}}'


_LEVEL = '{"key":"/a","dir":true,"nodes":['


@pytest.mark.parametrize("levels", [100, 450, 700, 960, 1500, 2047, 100_000])
def test_a_tree_that_is_too_deep_to_be_read_is_told_as_other_errors_are(levels: int) -> None:
    """Whoever writes one deep key would end the loops of all programs that read the whole tree."""
    said, told, found = deep(levels), "", 0
    with host(lambda asked: (200, said)) as (url, _):
        try:
            node = Client(url).get("/", recursive=True).node
        except v2.V2Error as error:
            told = str(error)
        else:
            while node.directory:
                (node,) = node.nodes
                found += 1
    assert (told, found) in (("the answer is nested too deep", 0), ("", levels))
    assert bool(told) or levels < 100_000
    assert bool(found) or levels > 100


@pytest.mark.parametrize("trouble", [(503, "no leader"), None])
def test_what_only_reads_is_tried_at_the_next_host(trouble: Said | None) -> None:
    with host(lambda asked: trouble) as (bad, refused), host(lambda asked: (200, NODE)) as (good, asked):
        client = Client([bad, good])
        assert client.get("/a").node.value == "1"
        assert len(refused) == len(asked) == 1
        client.get("/a")  # begins with the next host
        assert (len(refused), len(asked)) == (1, 2)
        with pytest.raises(MusterError) as met:
            client.set("/a", "1")
        assert met.value.maybe_done
        assert (len(refused), len(asked)) == (2, 2)


def test_the_last_answer_is_told_where_no_host_has_a_better_one() -> None:
    with host(lambda asked: (500, {"errorCode": 301, "message": "During Leader Election"})) as (url, seen):
        with pytest.raises(v2.V2Error, match="During Leader Election") as met:
            Client(url).get("/a")
        assert (met.value.code, len(seen)) == (301, 2)


def test_a_host_that_stands_still(silent: str) -> None:
    with host(lambda asked: (200, NODE)) as (good, seen):
        assert Client([silent, good], timeout=3).get("/a").node.value == "1"
        Client([f"https://{silent}", good], timeout=3).set("/a", "1")  # TLS does not begin: nothing was sent
        assert len(seen) == 2
        with pytest.raises(DeadlineExceeded) as met:
            Client([silent, good], timeout=0.3).set("/a", "1")
        assert met.value.maybe_done
        assert len(seen) == 2
    for client in (Client(silent, timeout=0.2), Client([silent, "127.0.0.1:1"], timeout=0.4)):
        with pytest.raises((DeadlineExceeded, Unreachable)) as met:
            client.get("/a")
        assert not met.value.maybe_done
    with pytest.raises(DeadlineExceeded) as met:
        Client(f"https://{silent}", timeout=0.2).set("/a", "1")
    assert not met.value.maybe_done
    with pytest.raises(DeadlineExceeded):
        Client(silent).ask("GET", "/members", timeout=0.2)


def test_the_end_of_a_call_waits_for_no_farewell_of_tls(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    pair = authority.issue("host", "127.0.0.1")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(pair.cert, pair.key)
    over = threading.Event()

    def serve() -> None:
        with listener.accept()[0] as plain, context.wrap_socket(plain, server_side=True):
            over.wait(60)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        began = time.monotonic()
        with pytest.raises(DeadlineExceeded) as met:
            Client(f"127.0.0.1:{listener.getsockname()[1]}", tls=Tls(ca=str(authority.file)), timeout=2).set(
                "/a", "1")
        assert met.value.maybe_done
        assert time.monotonic() - began < 20  # asyncio waits for a farewell for 30 s
        over.set()
        thread.join()


def test_renewed_certificates_count_from_the_next_call_on(tmp_path: Path) -> None:
    """The host changes to another authority, which then signs both sides."""
    old, new = Authority(tmp_path, "old"), Authority(tmp_path, "new")
    tls = Tls(*(str(tmp_path / name) for name in ("ca.pem", "cert.pem", "key.pem")))

    def renew(authority: Authority) -> ssl.SSLContext:
        pair = authority.issue(f"all-{authority.file.stem}", "127.0.0.1")
        for path, name in ((authority.file, tls.ca), (pair.cert, tls.cert), (pair.key, tls.key)):
            Path(name).write_bytes(path.read_bytes())
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=tls.ca)
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_cert_chain(pair.cert, pair.key)
        return context

    shown = renew(old)  # before there is a client
    with host(lambda asked: (200, NODE), wrap=lambda plain: shown.wrap_socket(plain, True)) as (url, _):
        client = Client(url.replace("http:", "https:"), tls=tls, timeout=20)
        for authority in (old, new):
            shown = renew(authority)
            made = http._loaded.cache_info().misses
            for _ in range(2):
                assert client.get("/a").node.value == "1"
            assert http._loaded.cache_info().misses == made + 1, "files that stay are read once"
        Path(tls.cert).unlink()
        with pytest.raises(Unreachable, match=r"cert\.pem"):
            client.get("/a")
    with pytest.raises(FileNotFoundError, match=r"cert\.pem"):
        Client(tls=tls)


def test_a_wait_looks_whether_its_host_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """It has no time limit: a host that lost its power would never be noticed."""
    found, connect = list[int](), asyncio.open_connection

    class Writer:
        def __init__(self, writer: asyncio.StreamWriter) -> None:
            self._writer = writer

        def __getattr__(self, name: str) -> Any:
            if name == "drain":  # behind what is set, before the answer
                connection = self._writer.get_extra_info("socket")
                found.append(connection.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE))
            return getattr(self._writer, name)

    async def connected(*args: Any, **others: Any) -> Any:
        reader, writer = await connect(*args, **others)
        return reader, Writer(writer)

    monkeypatch.setattr(asyncio, "open_connection", connected)
    with host(lambda asked: (200, NODE)) as (url, _):
        Client(url).wait("/a")
    assert found == [1]


@pytest.mark.parametrize(("index", "ended", "first", "again"), [
    (7, (200, ""), 0, "&waitIndex=8"),
    (7, (200, BROKEN), 0, "&waitIndex=8"),
    (7, (200, ""), 3, "&waitIndex=3"),
    (7, (503, ""), 0, ""),
    (0, (200, ""), 0, ""),  # it had not begun
])  # fmt: skip
def test_a_wait_goes_on_from_where_it_began(index: int, ended: Said, first: int, again: str) -> None:
    """It began anew, "from now on": what had happened meanwhile was lost."""
    event = {"action": "delete", "node": {"key": "/a", "modifiedIndex": 8}}
    answers = iter([ended, (200, event)])
    with host(lambda asked: next(answers), index) as (url, seen):
        assert Client(url).wait("/a", index=first).action == "delete"
    line = "GET /v2/keys/a?wait=true&recursive=false"
    assert [asked.line for asked in seen] == [line + ("&waitIndex=3" if first else ""), line + again]


OUTDATED = {"errorCode": 401, "message": "outdated", "cause": "cleared [1000/8]", "index": 2000}


@pytest.mark.parametrize("ended", ["", BROKEN])
def test_a_wait_from_now_on_goes_on_where_its_place_is_outdated(ended: object) -> None:
    """A quiet key of a busy cluster: each stop of a host ended the wait with error 401."""
    answers = iter([(200, ended), (400, OUTDATED), (200, NODE)])
    with host(lambda asked: next(answers)) as (url, seen):
        assert Client(url).wait("/a").node.value == "1"
    assert [asked.line.partition("&waitIndex=")[2] for asked in seen] == ["", "8", "2001"]


GONE = {"errorCode": 100, "message": "Key not found", "index": 2000}


@pytest.mark.parametrize(("recursive", "now", "again"), [
    (False, (200, {"key": "/a", "modifiedIndex": 2}), True),
    (True, (200, {"key": "/a", "modifiedIndex": 2}), True),
    (False, (200, {"key": "/a", "modifiedIndex": 2, "dir": True}), False),  # it does not show its updates
    (True, (200, {"key": "/a", "modifiedIndex": 2, "dir": True}), False),  # one below it may be deleted
    (False, (200, {"key": "/a", "modifiedIndex": 3}), False),
    (False, (404, GONE), False),
    (False, (400, {"errorCode": 104, "message": "Not a directory", "index": 2000}), False),
    (False, (500, {"errorCode": 300, "message": "Raft Internal Error", "index": 2000}), False),
])  # fmt: skip
def test_a_wait_from_an_index_that_is_outdated_goes_on_where_the_key_has_not_changed(
    recursive: bool, now: Said, again: bool
) -> None:
    """A watch of a quiet key of a busy cluster ended with error 401 at each stop of a host."""
    status, told = now
    read = (status, told if status != 200 else {"action": "get", "node": told})
    later = itertools.repeat((200, NODE) if again else read)
    answers = itertools.chain([(200, ""), (400, OUTDATED), read], later)
    with host(lambda asked: next(answers), index=2100) as (url, seen):
        if again:
            assert Client(url).wait("/a", index=3, recursive=recursive).node.value == "1"
            assert seen[-1].line.endswith("&waitIndex=2101")
        else:
            with pytest.raises(v2.EventIndexCleared):
                Client(url).wait("/a", index=3, recursive=recursive)
    assert seen[2].line == "GET /v2/keys/a?recursive=false&sorted=false&quorum=true"


@pytest.mark.parametrize(("key", "path"), [
    ("/a//b", "/a/b"), ("//a/./b/../c/", "/a/c"), ("a b", "/a%20b"), ("..", "/"), ("", "/"), ("/", "/"),
])  # fmt: skip
def test_a_key_is_asked_for_by_its_clean_path(key: str, path: str) -> None:
    """Hosts send clients from another path to it, and the library does not follow."""
    with host(lambda asked: (200, NODE)) as (url, seen):
        Client(url).set(key, "1")
    assert [asked.line for asked in seen] == [f"PUT /v2/keys{path}"]


def test_a_wait_goes_on_however_often_its_connection_breaks(monkeypatch: pytest.MonkeyPatch) -> None:
    """It gave up after two breaks for each host in its whole life, or in the second of a host's restart."""
    answers = iter([None, None, (200, BROKEN), (503, ""), (200, NODE)])
    with host(lambda asked: next(answers)) as (url, _):
        assert Client(url, timeout=10).wait("/a", index=3).node.value == "1"
    monkeypatch.setattr(http, "_LIVED_S", 0.0)
    broken = itertools.repeat((200, BROKEN), 12)
    with host(lambda asked: next(broken, (200, NODE))) as (url, seen):
        monkeypatch.setattr(asking, "time", SimpleNamespace(monotonic=lambda: 6.0 * len(seen)))
        assert Client(url, timeout=10).wait("/a", index=3).node.value == "1"


def test_a_wait_leaves_a_host_that_stands_still(silent: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It stayed there for ever, and missed all events."""
    monkeypatch.setattr(http, "_LOOKS_S", 0.1)

    def waited(urls: list[str], timeout: float) -> v2.Result:
        return asyncio.run(asyncio.wait_for(v2.Client(urls, timeout=timeout).wait("/a"), 10))

    def begin_and_stop(listener: socket.socket) -> None:
        stopped, _ = listener.accept()
        stopped.sendall(b"HTTP/1.1 200 OK\r\nX-Etcd-Index: 7\r\nContent-Length: 9\r\n\r\n")
        asks, _ = listener.accept()  # it is looked at, and does well the first time
        asks.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
        ended.wait()
        asks.close()
        stopped.close()

    with host(lambda asked: (200, NODE)) as (good, seen):
        assert waited([silent, good], 1).node.value == "1"
        ended = threading.Event()
        with socket.create_server(("127.0.0.1", 0)) as listener:
            stopping = threading.Thread(target=begin_and_stop, args=(listener,))
            stopping.start()
            try:
                assert waited([f"127.0.0.1:{listener.getsockname()[1]}", good], 1).node.value == "1"
            finally:
                ended.set()
                stopping.join()
        assert seen[-1].line.endswith("&waitIndex=8")
    with pytest.raises(Unreachable, match="no answer in time"):
        waited([silent], 0.3)


@pytest.mark.parametrize("query", [{"wait": True}, {}])
def test_an_answer_whose_head_comes_late_is_waited_for(query: dict[str, bool]) -> None:
    """A proxy of etcd's, or one that collects answers, sends a wait's head with the event."""
    def slow(asked: Asked) -> Said:
        time.sleep(0 if asked.line == "GET /version" else 1.5)
        return 200, NODE

    with host(slow) as (url, seen):
        assert Client(url, timeout=1).ask("GET", "/keys/a", query=query, timeout=math.inf).status == 200
        assert sum(asked.line != "GET /version" for asked in seen) == 1


@pytest.mark.parametrize("answer", [None, (200, BROKEN)])
def test_a_wait_that_no_host_takes_ends_after_the_client_s_time(
    answer: Said | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    with host(lambda asked: answer) as (url, seen):
        monkeypatch.setattr(asking, "time", SimpleNamespace(monotonic=lambda: 30.0 if len(seen) > 2 else 0.0))
        with pytest.raises(Unreachable):
            Client([url, "127.0.0.1:1"], timeout=30).wait("/a", index=3)
    assert len(seen) == 3
