"""A host that is to join asks again while somebody listens and nobody answers."""

from __future__ import annotations

import itertools
import json
import socket
import threading
from types import SimpleNamespace

import pytest
import zmq

from cluster.members.described import Running
from cluster.members.table import Host
from cluster.settings import PeerTls
from tests.ports import free_ports
from tools.muster.config.parse import ConfigError
from tools.muster.host.identity import joining
from tools.muster.host.identity.joining import QUESTION, join
from tools.muster.machine.zmtp.asking import NotOwn, Untrusted
from tools.muster.machine.zmtp.own_user import NOT_OWN

LIMIT_S = 60.0


class Busy:
    """A member that answers no first question, and each one after it."""

    def __init__(self, port: int, answer: bytes) -> None:
        self.asked = 0
        self._answer = answer
        self._context = zmq.Context()
        self._router = self._context.socket(zmq.ROUTER)
        self._router.linger = 0
        self._router.bind(f"tcp://127.0.0.1:{port}")
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while not self._done.is_set():
            if self._router.poll(100):
                identity, question = self._router.recv_multipart()
                assert question == QUESTION
                self.asked += 1
                if self.asked > 1:
                    self._router.send_multipart([identity, QUESTION + self._answer])

    def close(self) -> None:
        self._done.set()
        self._thread.join()
        self._router.close()
        self._context.term()


def test_a_busy_member_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joining, "_AGAIN_S", LIMIT_S)  # a machine that is busy may be late a second time
    ports = free_ports(2)
    urls = [f"http://127.0.0.1:{port}" for port in ports]
    members = [
        {"id": f"{n + 1:x}", "name": "", "peer_urls": [url], "client_urls": [], "learner": False}
        for n, url in enumerate(urls)
    ]
    told = {"cluster_id": "7", "shards": 1, "depth": 2, "members": members, "removed": []}
    busy = Busy(ports[0], json.dumps(told).encode())
    try:
        running, peers, own = join(
            (("h0", (urls[0],)), ("h1", (urls[1],))), "h1", "", None, lambda url: url
        )
    finally:
        busy.close()
    assert busy.asked > 1
    assert (running.cluster_id, own, [p.name for p in peers]) == (7, 2, ["h0", "h1"])


def test_another_users_process_is_no_answer_until_the_time_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joining, "_PAUSE_S", 0.01)
    asked: list[int] = []
    with socket.create_server(("127.0.0.1", 0)) as other:
        url, own = f"http://127.0.0.1:{other.getsockname()[1]}", f"http://127.0.0.1:{free_ports(1)[0]}"
        initial = ("h0", (url,)), ("h1", (own,))
        members = [
            {"id": f"{n}", "name": "", "peer_urls": [at], "client_urls": [], "learner": False}
            for n, at in enumerate((url, own), 1)]
        told = {"cluster_id": "7", "shards": 1, "depth": 2, "members": members, "removed": []}

        def answered(host: str, port: int, *_: object) -> bytes:
            asked.append(port)
            if len(asked) < 3:
                raise NotOwn(NOT_OWN)
            return QUESTION + json.dumps(told).encode()

        monkeypatch.setattr(joining, "asked_in_clear", answered)
        said: list[str] = []
        assert join(initial, "h1", "", None, lambda url: url, own_user=True, tell=said.append)[2] == 2
        assert ["need the same --peer-key-file" in line for line in said] == [True], "at once, and once"
        asked.clear()
        monkeypatch.setattr(joining, "_AGAIN_S", 0.0)
        with pytest.raises(ConfigError, match="need the same --peer-key-file"):
            join(initial, "h1", "", None, lambda url: url, own_user=True)
        assert len(asked) == 1


def _told(named: str, more: str = "") -> dict[str, object]:
    """Hosts a, b and c of this machine; ``named``: those that have started; ``more``: one that was added."""
    members = [
        {"id": f"{port}", "name": name if name in named else "", "peer_urls": [f"http://127.0.0.1:{port}"],
         "client_urls": [], "learner": False}
        for port, name in enumerate(f"abc{more}", 1)
    ]
    return {"cluster_id": "7", "shards": 1, "depth": 2, "members": members, "removed": []}


@pytest.mark.parametrize(("answers", "ends"), [
    ({1: ("abc", ""), 2: ("abc", ""), 3: ("abc", "")}, True),
    ({1: ("ab", ""), 2: ("ab", "")}, True),  # nobody waits for one that was added and has not started
    ({1: ("abc", ""), 2: ("abc", ""), 3: ("abc", "d")}, False),  # two lag behind the leader
    ({1: ("abc", ""), 2: ("abc", "")}, False),  # the third may be the leader
    ({1: ("", "")}, False),
])  # fmt: skip
def test_a_wrong_list_ends_a_start_once_no_member_can_know_better(
    answers: dict[int, tuple[str, str]], ends: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It took ten seconds without a word."""
    now, said = [0.0], list[str]()

    def answered(host: str, port: int, *_: object) -> bytes:
        return QUESTION + json.dumps(_told(*answers[port])).encode() if port in answers else b""

    monkeypatch.setattr(joining, "asked_in_clear", answered)
    monkeypatch.setattr(joining, "time", SimpleNamespace(
        monotonic=lambda: now[0], sleep=lambda s: now.__setitem__(0, now[0] + s)))  # fmt: skip
    initial = (("a", ("http://127.0.0.1:1",)), ("d", ("http://127.0.0.1:4",)))
    with pytest.raises(ConfigError, match="member count is unequal"):
        join(initial, "d", "", None, str, "", False, said.append)
    assert now == [2.0 if ends else 10.0]
    assert ["member count is unequal" in line for line in said] == [True]


def test_a_name_that_has_no_address_yet_ends_no_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """All members tell the same, and a look-up changes what it means."""
    now, said = [0.0], list[str]()

    def answered(*_: object) -> bytes:
        return QUESTION + json.dumps(_told("abc", "d")).encode()

    def resolved(url: str) -> str:
        return url.replace("d.svc", "127.0.0.1") if now[0] >= 4 else url

    monkeypatch.setattr(joining, "asked_in_clear", answered)
    monkeypatch.setattr(joining, "time", SimpleNamespace(
        monotonic=lambda: now[0], sleep=lambda s: now.__setitem__(0, now[0] + s)))  # fmt: skip
    initial = [(name, (f"http://127.0.0.1:{port}",)) for port, name in enumerate("abc", 1)]
    initial.append(("d", ("http://d.svc:4",)))
    assert join(initial, "d", "", None, resolved, "", False, said.append)[2] == 4
    assert now == [4.0]
    assert ["no match found" in line for line in said] == [True]


def test_an_answer_that_lags_behind_ends_no_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first that answers hears of the added host when the others have known it for long."""
    now = [0.0]

    def answered(host: str, port: int, *_: object) -> bytes:
        late = port == 1 and now[0] < 6
        return QUESTION + json.dumps(_told("abc", "" if late else "d")).encode()

    monkeypatch.setattr(joining, "asked_in_clear", answered)
    monkeypatch.setattr(joining, "time", SimpleNamespace(
        monotonic=lambda: now[0], sleep=lambda s: now.__setitem__(0, now[0] + s)))  # fmt: skip
    initial = [(name, (f"http://127.0.0.1:{port}",)) for port, name in enumerate("abcd", 1)]
    assert join(initial, "d", "", None, str)[2] == 4
    assert now == [6.0]


def test_why_tls_keeps_a_host_out_is_said_once_the_time_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> bytes:
        raise Untrusted("remote error: tls: bad certificate")

    monkeypatch.setattr(joining, "_AGAIN_S", 0.0)
    monkeypatch.setattr(joining, "asked_by_tls", refused)
    monkeypatch.setattr(joining, "PeerCredentials", lambda tls: tls)
    initial = tuple((f"h{n}", (f"https://127.0.0.1:{port}",)) for n, port in enumerate(free_ports(2)))
    with pytest.raises(ConfigError, match="remote error: tls: bad certificate: see --peer-cert-file"):
        join(initial, "h1", "", PeerTls("cert", "key"), lambda url: url)


def test_a_host_without_a_name_is_known_by_its_urls() -> None:
    urls = [f"http://127.0.0.1:{n}" for n in (1, 2)]
    running = Running(7, 1, 2, tuple(Host(n, "", (url,), learner=False) for n, url in enumerate(urls, 5)))
    peers = joining.assigned((("h1", (urls[1],)), ("", (urls[0],))), running, lambda url: url)
    assert [(p.member_id, p.name) for p in peers] == [(5, ""), (6, "h1")]


def test_the_same_urls_match_whatever_their_names_resolve_to() -> None:
    """A name server that turned its answers round kept a host out, and names with one address, as of hosts
    that are down, gave it another member's ID."""
    urls = [(f"http://h{n}:2380",) for n in range(3)]
    running = Running(7, 1, 2, tuple(Host(n, "", at) for n, at in enumerate(urls, 5)))
    turns = itertools.count()
    for resolved in (lambda url: f"http://10.0.0.{next(turns)}:2380", lambda url: "http://10.0.0.1:2380"):
        peers = joining.assigned([(f"h{n}", at) for n, at in enumerate(urls)], running, resolved)
        assert [(p.member_id, p.name) for p in peers] == [(5, "h0"), (6, "h1"), (7, "h2")]


def test_two_members_are_never_one_host_of_the_flags() -> None:
    running = Running(7, 1, 2, tuple(Host(n, "", (f"http://h{n}:2380",)) for n in (1, 2)))
    with pytest.raises(ConfigError, match="no match found for existing member"):
        joining.assigned(
            [("a", ("http://a:2380",)), ("b", ("http://b:2380",))], running, lambda url: "http://10.0.0.1:2380")


def test_where_nobody_listens_nobody_is_waited_for() -> None:
    ports = free_ports(2)
    initial = tuple((f"h{n}", (f"http://127.0.0.1:{port}",)) for n, port in enumerate(ports))
    with pytest.raises(ConfigError, match="could not retrieve cluster information from the given URLs"):
        join(initial, "h1", "", None, lambda url: url)
