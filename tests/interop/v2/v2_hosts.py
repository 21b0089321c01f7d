"""The v2 API asked of muster and of a real etcd, and answers made comparable: IDs, times, indexes differ."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.cluster.local_cluster import until
from tests.ports import free_ports

ETCD = Path(sys.executable).parent / "etcd"
FORM = "application/x-www-form-urlencoded"
LIMIT_S = 60.0
_COMPARED = ("content-type", "allow", "x-etcd-index", "location", "x-content-type-options")
_PRESENT = ("x-etcd-cluster-id", "x-raft-index", "x-raft-term", "content-length")
_MOMENT = re.compile(r'("(?:expiration|startTime)":)"[^"]+"')
_LEFT = re.compile(r'("ttl":)(\d+)')  # a slow machine shows less
_OVER = re.compile(r'"ttl":-\d+,')  # or that it is over
_INDEX = re.compile(r'("(?:modifiedIndex|createdIndex|index)":)(\d+)')
_IN_ORDER = re.compile(r"/(0{8}\d{12})\b")
_COMPARED_INDEX = re.compile(r"(?<=\[1 != )\d+(?=\])")
_CLEARED = re.compile(r"\[\d+/\d+\]")


@dataclass(slots=True)
class Answer:
    """What came back."""

    status: int
    headers: dict[str, str]
    body: str


@dataclass(slots=True)
class Shown:
    """An answer without what may differ."""

    status: int
    headers: dict[str, str]
    there: list[str]
    body: str


@dataclass(slots=True)
class Server:
    """One client URL."""

    address: str
    base: int = 0  # the index of the tree when a comparison began
    masks: dict[str, str] = field(default_factory=dict)

    def ask(self, method: str, path: str, body: str | bytes | None = None, kind: str | None = FORM) -> Answer:
        """One request on a connection of its own."""
        with contextlib.closing(http.client.HTTPConnection(self.address, timeout=LIMIT_S)) as connection:
            headers = {} if kind is None or body is None else {"Content-Type": kind}
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            found = {name.lower(): value for name, value in answer.getheaders()}
            return Answer(answer.status, found, answer.read().decode("utf-8", "surrogateescape"))

    def wait(self, path: str) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
        """A request whose head has come and whose body may be long in coming. The caller closes it."""
        connection = http.client.HTTPConnection(self.address, timeout=LIMIT_S)
        connection.request("GET", path)
        return connection, connection.getresponse()

    def mask_itself(self) -> None:
        """Its ID and addresses, by what it says of itself."""
        (member,) = json.loads(self.ask("GET", "/v2/members").body)["members"]
        self.masks |= {
            member["id"]: "MEMBER",
            member["peerURLs"][0]: "http://peer",
            member["clientURLs"][0]: "http://client",
        }

    def begin(self) -> None:
        """Indexes count from here on."""
        self.base = self.index()

    def index(self) -> int:
        """The index of the tree."""
        return int(self.ask("GET", "/v2/keys/?quorum=true").headers["x-etcd-index"])

    def shown(self, answer: Answer) -> Shown:
        """What is compared."""
        headers = {name: answer.headers[name] for name in _COMPARED if name in answer.headers}
        if headers.get("x-etcd-index", "0") != "0":
            headers["x-etcd-index"] = str(int(headers["x-etcd-index"]) - self.base)
        body = _LEFT.sub(lambda m: m[1] + str(-(-int(m[2]) // 100) * 100), _MOMENT.sub(r'\1"T"', answer.body))
        body = _OVER.sub("", body)
        body = _INDEX.sub(lambda m: m[1] + (str(int(m[2]) - self.base) if m[2] != "0" else "0"), body)
        body = _IN_ORDER.sub(lambda m: f"/+{int(m[1]) - self.base}", _CLEARED.sub("[N]", body))
        body = _COMPARED_INDEX.sub(
            lambda m: f"+{int(m[0]) - self.base}" if int(m[0]) > self.base else m[0], body
        )
        for text, name in self.masks.items():
            body = body.replace(text, name)
        return Shown(answer.status, headers, [name for name in _PRESENT if name in answer.headers], body)


@contextlib.contextmanager
def etcd_with_v2(directory: Path, *flags: str) -> Iterator[Server]:
    """A real etcd that serves version 2."""
    client, peer = (f"http://127.0.0.1:{port}" for port in free_ports(2))
    line = [
        str(ETCD),
        "--enable-v2=true",
        f"--data-dir={directory}/etcd",
        "--unsafe-no-fsync",
        "--log-level=error",
        "--name=host0",
        f"--listen-client-urls={client}",
        f"--advertise-client-urls={client}",
        f"--listen-peer-urls={peer}",
        f"--initial-advertise-peer-urls={peer}",
        f"--initial-cluster=host0={peer}",
        *flags,
    ]
    process = subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        server = Server(client.removeprefix("http://"))
        until(lambda: serves(server), LIMIT_S)
        yield server
    finally:
        process.kill()
        process.wait()
        shutil.rmtree(directory / "etcd", ignore_errors=True)


def serves(server: Server) -> bool:
    """Whether a read through the log is answered."""
    with contextlib.suppress(OSError, http.client.HTTPException):
        return server.ask("GET", "/v2/members/leader").status == 200
    return False
