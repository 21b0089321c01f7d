"""A host that is to join asks again while somebody listens and nobody answers."""

from __future__ import annotations

import json
import threading

import pytest
import zmq

from tests.ports import free_ports
from tools.muster.config.parse import ConfigError
from tools.muster.host.identity import joining
from tools.muster.host.identity.joining import QUESTION, join

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


def test_where_nobody_listens_nobody_is_waited_for() -> None:
    ports = free_ports(2)
    initial = tuple((f"h{n}", (f"http://127.0.0.1:{port}",)) for n, port in enumerate(ports))
    with pytest.raises(ConfigError, match="could not retrieve cluster information from the given URLs"):
        join(initial, "h1", "", None, lambda url: url)
