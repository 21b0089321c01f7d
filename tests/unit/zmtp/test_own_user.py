"""Where nothing but its user tells a peer, it comes by a Unix socket, and others by no way at all."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from cluster.errors import PEER_KEY_WAYS
from cluster.settings import PeerTls
from tests.authority import Authority
from tests.unit.zmtp.test_sockets import free_port, until
from tools.muster.machine.zmtp import Dealer, LinkOptions, Router, hint_of, own_user
from tools.muster.machine.zmtp.asking import NotOwn, Untrusted, asked_in_clear
from tools.muster.machine.zmtp.codec import GREETING, ready
from tools.muster.machine.zmtp.port import bound
from tools.muster.machine.zmtp.tls import PeerCredentials

NOBODY = 65534
AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user, too")
ADDRESSES = pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
# the codec comes first: another user may not read this Python's folder
OTHER = f"""
import encodings.idna, os, socket, sys
os.setgroups([]), os.setgid({NOBODY}), os.setuid({NOBODY})
host, port, said = sys.argv[1], int(sys.argv[2]), bytes.fromhex(sys.argv[3])
with socket.create_connection((host, port), 20) as s:
    s.sendall(said)
    while data := s.recv(10_000):
        sys.stdout.buffer.write(data)
"""


@pytest.fixture(autouse=True)
def base(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    folder = tempfile.mkdtemp(prefix="m-")
    monkeypatch.setattr(own_user, "BASE", folder)
    yield Path(folder)
    shutil.rmtree(folder)


class World:
    """A router that answers whoever may ask."""

    def __init__(self, host: str = "127.0.0.1", own: bool = True) -> None:
        self.host, self.port = host, free_port()
        self.endpoint = f"tcp://[{host}]:{self.port}" if ":" in host else f"tcp://{host}:{self.port}"
        self.loop = asyncio.get_running_loop()
        self.came: list[bytes] = []
        self.from_where: list[str] = []
        self.heard: list[bytes] = []
        self.dealers: list[Dealer] = []
        self.own = own
        self.router = self.listen()
        self.path = own_user.path_of(host, self.port)

    def listen(self) -> Router:
        return Router(
            self.loop, self.endpoint, self.receive, LinkOptions(10, own_user=self.own), strangers=True)

    def receive(self, parts: list[bytes]) -> None:
        self.came.append(parts[-1])
        self.from_where.append(self.router.address(parts[0]))
        self.router.trust(parts[0])
        self.router.send([parts[0], b"heard " + parts[-1]])

    def dial(self, own: bool = True) -> Dealer:
        dealer = Dealer(
            self.loop, self.endpoint, b"d", lambda parts: self.heard.append(parts[-1]),
            LinkOptions(10, own_user=own))
        self.dealers.append(dealer)
        return dealer

    async def says(self, dealer: Dealer, what: bytes) -> None:
        await until(lambda: dealer.send([what]))
        await until(lambda: b"heard " + what in self.heard)

    async def as_nobody(self, said: bytes) -> bytes:
        """What another user's process is answered until the connection ends."""
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", OTHER, self.host, str(self.port), said.hex(), stdout=subprocess.PIPE)
        return (await process.communicate())[0]


def run(scenario: Callable[[World], Awaitable[None]], host: str = "127.0.0.1", *, own: bool = True) -> str:
    """What is logged."""
    async def main() -> None:
        world = World(host, own)
        try:
            await scenario(world)
        finally:
            for dealer in world.dealers:
                dealer.close()
            world.router.close()

    with capture_logs() as logs:
        asyncio.run(main())
    return "\n".join(map(str, logs))


def mode(path: str | Path) -> int:
    return stat.S_IMODE(os.stat(path).st_mode)


def left(folder: Path) -> list[Path]:
    return list(folder.iterdir())


# -- where


def test_each_loopback_address_and_port_has_a_path_of_its_own_and_no_other_address() -> None:
    one = own_user.path_of("127.0.0.1", 2380)
    assert len({one, own_user.path_of("127.0.0.1", 2381), own_user.path_of("127.0.0.2", 2380)}) == 3
    assert own_user.path_of("::1", 2380) == own_user.path_of("0:0:0:0:0:0:0:1", 2380) != ""
    for host in ("10.0.0.1", "0.0.0.0", "::", "localhost", "unix:a"):
        assert own_user.path_of(host, 2380) == ""
    assert str(os.stat("/proc/self/ns/net").st_ino) in one, "ports are a namespace's"
    assert own_user.path_of("::ffff:127.0.0.1", 2380) == one


def test_no_path_is_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own_user, "BASE", "/tmp")
    monkeypatch.setattr(os, "geteuid", lambda: 2**32 - 2)
    monkeypatch.setattr(own_user, "_NAMESPACE", "/proc/self/ns/net")
    longest = own_user.path_of("127.255.255.255", 65535).replace(
        str(os.stat("/proc/self/ns/net").st_ino), str(2**32 - 1))
    assert len(longest) <= 107


def test_folders_are_made_private_and_stay_so(base: Path) -> None:
    path = own_user.path_of("127.0.0.1", 1)
    own_user.prepare(path)
    for folder in (Path(path).parent, Path(path).parent.parent):
        assert mode(folder) == 0o700
        folder.chmod(0o755)
    assert not own_user.may_dial(path)
    own_user.prepare(path)
    assert mode(Path(path).parent) == mode(Path(path).parent.parent) == 0o700
    own_user.remove(path)
    assert left(base) == [Path(path).parent.parent], "what is not there cannot be removed"


def test_what_others_may_move_is_not_used(base: Path) -> None:
    path = own_user.path_of("127.0.0.1", 1)
    base.chmod(0o777)
    with pytest.raises(OSError, match="other users may move"):
        own_user.prepare(path)
    base.chmod(0o1777)
    own_user.prepare(path)
    base.chmod(0o777)
    assert not own_user.may_dial(path)


def test_a_link_or_a_file_is_no_folder(base: Path) -> None:
    path = own_user.path_of("127.0.0.1", 1)
    top = Path(path).parent.parent
    (base / "elsewhere").mkdir(mode=0o700)
    top.symlink_to(base / "elsewhere")
    with pytest.raises(OSError, match="another user, or is no directory"):
        own_user.prepare(path)
    top.unlink()
    own_user.prepare(path)
    Path(path).write_text("")
    assert not own_user.may_dial(path)


@AS_ROOT
def test_a_folder_of_another_user_is_not_used_and_its_port_is() -> None:
    top = Path(own_user.path_of("127.0.0.1", 1)).parent.parent
    top.mkdir()
    os.chown(top, NOBODY, NOBODY)

    async def scenario(world: World) -> None:
        assert not own_user.may_dial(world.path)
        await world.says(world.dial(), b"x")
        assert world.from_where[0].startswith("127.0.0.1:")

    assert "it belongs to another user" in run(scenario)


# -- what is said, and by which way


@ADDRESSES
def test_peers_of_one_user_talk_by_a_socket_of_its_alone(base: Path, host: str) -> None:
    async def scenario(world: World) -> None:
        assert (mode(world.path), mode(Path(world.path).parent)) == (0o600, 0o700)
        dealer = world.dial()
        await world.says(dealer, b"x" * 3000)
        assert world.from_where == [f"process {os.getpid()}"]

    assert run(scenario, host) == ""
    assert left(base) == []


@ADDRESSES
def test_a_host_of_an_older_version_is_let_in_by_the_port(host: str) -> None:
    async def scenario(world: World) -> None:
        await world.says(world.dial(own=False), b"old")
        assert not world.from_where[0].startswith("process")

    assert run(scenario, host) == ""


def test_a_host_of_an_older_version_is_dialled_at_its_port() -> None:
    async def scenario(world: World) -> None:
        await world.says(world.dial(), b"new")
        assert not os.path.exists(world.path)

    assert run(scenario, own=False) == ""


def test_a_name_is_dialled_by_what_it_means() -> None:
    async def scenario(world: World) -> None:
        dealer = Dealer(
            world.loop, f"tcp://localhost:{world.port}", b"d", lambda parts: world.heard.append(parts[-1]),
            LinkOptions(10, own_user=True))
        world.dealers.append(dealer)
        await world.says(dealer, b"x")
        assert world.from_where == [f"process {os.getpid()}"]

    assert run(scenario) == ""


def test_a_socket_that_a_killed_process_has_left_is_in_nobodys_way() -> None:
    async def scenario(world: World) -> None:
        world.router.close()
        own_user.prepare(world.path)
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(world.path)
        dealer = world.dial()
        await until(lambda: dealer.trouble == "Connection refused")
        world.router = world.listen()
        await world.says(dealer, b"x")
        assert world.from_where == [f"process {os.getpid()}"]

    run(scenario)


def test_a_host_starts_whatever_lies_at_its_path() -> None:
    async def scenario(world: World) -> None:
        world.router.close()
        Path(world.path).mkdir(parents=True, mode=0o700)
        world.router = world.listen()
        await world.says(world.dial(), b"x")
        assert world.from_where[0].startswith("127.0.0.1:")
        assert left(Path(world.path).parent) == [Path(world.path)]

    assert "cannot listen at a Unix socket" in run(scenario)


def test_who_has_the_port_has_the_path() -> None:
    async def scenario(world: World) -> None:
        with pytest.raises(OSError, match="in use"):
            world.listen()
        await world.says(world.dial(), b"x")

    assert run(scenario) == ""


@AS_ROOT
@ADDRESSES
def test_another_users_process_is_told_who_belongs_to_the_cluster_and_says_nothing(host: str) -> None:
    async def scenario(world: World) -> None:
        await world.says(world.dial(), b"x")
        answer = await world.as_nobody(GREETING + ready(b"DEALER", b"d") + b"\0\x05hello")
        assert b"the other end is not this user's, but that of uid %d" % NOBODY in answer
        for said in (GREETING[:20], b"\0" * 100):
            assert b"READY" not in await world.as_nobody(said)
        assert (await world.as_nobody(b"GET /version HTTP/1.1\r\n\r\n")).startswith(b"HTTP/1.1 200 OK")
        assert world.came == [b"x"]

    text = run(scenario, host)
    assert f"uid {NOBODY}" in text
    assert "need the same --peer-key-file" in text


@AS_ROOT
def test_another_users_process_that_listens_at_a_peers_port_is_told_nothing() -> None:
    port = free_port()
    code = f"""
import encodings.idna, os, socket
os.setgroups([]), os.setgid({NOBODY}), os.setuid({NOBODY})
with socket.create_server(("127.0.0.1", {port})) as s:
    print(flush=True)
    for _ in range(2):
        c, _ = s.accept()
        c.sendall(bytes.fromhex({(GREETING + ready(b"ROUTER", b"")).hex()!r}))
        c.settimeout(5)
        try:
            while data := c.recv(1000):
                assert b"secret" not in data
                if b"question" in data:
                    c.sendall(b"\\0\\x09qanswered")
        except OSError:
            pass
"""

    async def main() -> None:
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stdout=subprocess.PIPE)
        assert process.stdout is not None
        await process.stdout.readline()
        dealer = Dealer(
            asyncio.get_running_loop(), f"tcp://127.0.0.1:{port}", b"d", lambda parts: None,
            LinkOptions(3, own_user=True), redials=False)
        await until(lambda: own_user.NOT_OWN in dealer.trouble)
        assert not dealer.send([b"secret"])
        assert dealer.hint() == hint_of(dealer.trouble) != ""
        dealer.close()
        with pytest.raises(NotOwn, match="uid"):
            await asyncio.to_thread(asked_in_clear, "127.0.0.1", port, b"question", 20.0, "", True)
        assert await process.wait() == 0

    asyncio.run(main())


@pytest.mark.parametrize("by_socket", [True, False])
def test_a_question_is_answered_by_either_way(by_socket: bool) -> None:
    async def scenario(world: World) -> None:
        for host in ("127.0.0.1", "localhost"):
            answer = await asyncio.to_thread(
                asked_in_clear, host, world.port, b"heard?", 20.0, "", by_socket)
            assert answer == b"heard heard?"
            assert world.from_where.pop().startswith("process" if by_socket else "127.0.0.1")

    run(scenario)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2"])
def test_certificates_that_sign_themselves_say_nothing_of_the_user(tmp_path: Path, host: str) -> None:
    """Those of ``--peer-auto-tls``: the socket goes without, the port takes the same user alone."""
    pair = Authority(tmp_path).issue("host", host)

    async def main() -> None:
        loop, endpoint = asyncio.get_running_loop(), f"tcp://{host}:{free_port()}"
        tls = PeerCredentials(PeerTls(str(pair.cert), str(pair.key), verifies=False))
        came: list[bytes] = []
        router = Router(
            loop, endpoint, lambda parts: came.append(parts[-1]), LinkOptions(9, tls=tls, own_user=True),
            strangers=True)
        for own in (True, False):
            dealer = Dealer(loop, endpoint, b"d", lambda parts: None, LinkOptions(9, tls=tls, own_user=own))
            await until(lambda dealer=dealer, own=own: dealer.send([b"%d" % own]))
            await until(lambda own=own: b"%d" % own in came)
            dealer.close()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(own_user, "_uid", lambda *_: os.geteuid() + 1)
            dealer = Dealer(loop, endpoint, b"d", lambda parts: None, LinkOptions(9, tls=tls))
            await until(lambda: own_user.NOT_OWN in dealer.trouble)
            dealer.close()
        router.close()

    asyncio.run(main())


def test_an_address_that_others_reach_takes_no_peers(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even this user's: what its forwarder hands on may be from anywhere. HTTP is answered."""
    monkeypatch.setattr(own_user, "is_near", lambda host: False)  # 127.0.0.1 stands for another address

    async def scenario(world: World) -> None:
        dealer = world.dial(own=False)
        await until(lambda: own_user.BEYOND in dealer.trouble)
        assert hint_of(dealer.trouble) == PEER_KEY_WAYS
        with socket.create_connection(("127.0.0.1", world.port)) as asks:
            asks.setblocking(False)
            await world.loop.sock_sendall(asks, b"GET /members HTTP/1.1\r\n\r\n")
            await until(lambda: bool(world.came))

    assert own_user.BEYOND in run(scenario)
    assert left(base) == [], "there is no Unix socket"


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_of_all_addresses_loopback_ones_take_peers_of_the_own_user(host: str) -> None:
    async def scenario(world: World) -> None:
        world.endpoint = f"tcp://127.0.0.1:{world.port}"
        await world.says(world.dial(), b"x")
        if os.geteuid() == 0:
            world.host = "127.0.0.1"
            said = await world.as_nobody(GREETING + ready(b"DEALER", b"x"))
            assert own_user.NOT_OWN.encode() in said

    run(scenario, host)


def test_where_the_namespace_is_not_known_ports_take_the_same_user_alone(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(own_user, "_NAMESPACE", f"{base}/none")

    async def scenario(world: World) -> None:
        await world.says(world.dial(), b"x")
        assert world.from_where[0].startswith("127.0.0.1:")
        assert await asyncio.to_thread(
            asked_in_clear, "127.0.0.1", world.port, b"heard?", 20.0, "", True) == b"heard heard?"
        monkeypatch.setattr(own_user, "_uid", lambda *_: os.geteuid() + 1)
        for own in (False, True):  # the router refuses, or both
            dealer = world.dial(own)
            await until(lambda dealer=dealer: own_user.NOT_OWN in dealer.trouble)
        assert world.came == [b"x", b"heard?"]
        with pytest.raises(NotOwn):
            await asyncio.to_thread(asked_in_clear, "127.0.0.1", world.port, b"heard?", 20.0, "", True)

    assert "the network namespace is not known" in run(scenario)
    assert left(base) == []


def test_of_two_that_start_at_one_port_the_one_that_listens_has_the_path(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(world: World) -> None:
        world.router.close()
        with socket.socket() as other:
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            before = bound._bound_near

            def late(path: str) -> socket.socket | None:
                near = before(path)
                other.listen()
                return near

            other.bind((world.host, world.port))
            own_user.prepare(world.path)
            Path(world.path).write_text("the other's")
            monkeypatch.setattr(bound, "_bound_near", late)
            with pytest.raises(OSError, match="in use"):
                world.listen()
        assert left(Path(world.path).parent) == [Path(world.path)]
        assert Path(world.path).read_text() == "the other's"

    run(scenario)


def test_an_answer_of_one_that_is_gone_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own_user, "may_dial", lambda path: False)

    async def scenario(world: World) -> None:
        monkeypatch.setattr(own_user, "foreign", lambda sock: own_user.GONE)
        with pytest.raises(Untrusted, match="does not answer"):
            await asyncio.to_thread(asked_in_clear, "127.0.0.1", world.port, b"heard?", 20.0, "", True)

    run(scenario, own=False)


# -- the kernel's word


def test_an_end_that_is_gone_is_nobodys() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        client = socket.create_connection(server.getsockname())
        assert own_user.foreign(client) != "", "nobody has taken it yet"
        taken = server.accept()[0]
        assert own_user.foreign(client) == own_user.foreign(taken) == ""
        client.close()
        assert own_user.foreign(taken) == own_user.GONE, "nobody is said to be another user"
        taken.close()


@pytest.mark.parametrize(("listens", "dials"), [
    ("127.0.0.1", "::ffff:127.0.0.1"), ("::ffff:127.0.0.1", "127.0.0.1"), ("::1", "::1")])
def test_ends_of_either_family_are_found(listens: str, dials: str) -> None:
    with socket.socket(socket.AF_INET6 if ":" in listens else socket.AF_INET) as server:
        server.bind((listens, 0))
        server.listen()
        at = dials, server.getsockname()[1]
        with socket.create_connection(at) as client, server.accept()[0] as taken:
            assert own_user.foreign(client) == own_user.foreign(taken) == ""


def test_of_users_that_are_not_known_here_nobody_is_the_own_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own_user, "_uid", lambda *_: NOBODY)
    monkeypatch.setattr(os, "geteuid", lambda: NOBODY)
    with socket.socket() as server, socket.socket() as client:
        server.bind(("127.0.0.1", 0))
        server.listen()
        client.connect(server.getsockname())
        whole = own_user._knows_all_users()
        for knows in (True, False):
            monkeypatch.setattr(own_user, "_knows_all_users", lambda knows=knows: knows)
            assert (own_user.foreign(client) == "") == knows
    assert whole == (Path("/proc/self/uid_map").read_text().split() == ["0", "0", "4294967295"])
