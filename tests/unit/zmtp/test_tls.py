"""Links between hosts by TLS: what a stream sees of them, whom they refuse, and what they survive."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import ssl
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zmq
from cryptography import x509
from structlog.testing import capture_logs

from cluster.settings import PeerTls
from tests.authority import Authority, Pair, replace
from tests.ports import free_ports
from tests.unit.tls.rekeying import Rekeying
from tools.muster.machine.zmtp import Dealer, LinkOptions, Router
from tools.muster.machine.zmtp import tls as shaking
from tools.muster.machine.zmtp.asking import Untrusted
from tools.muster.machine.zmtp.curve.keys import CurveKeys
from tools.muster.machine.zmtp.links import Links
from tools.muster.machine.zmtp.stream import CLOSED
from tools.muster.machine.zmtp.tls import BAD_CERTIFICATE, Handshake, PeerCredentials, TlsSocket, asked_by_tls

NAME = "127.0.0.1"


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def credentials(authority: Authority, pair: Pair, **rest: Any) -> PeerCredentials:
    settings = PeerTls(str(pair.cert), str(pair.key), trusted_ca_file=str(authority.file), **rest)
    return PeerCredentials(settings)


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.001)


async def shaken(
    mine: PeerCredentials, theirs: PeerCredentials, name: str = NAME
) -> tuple[list[TlsSocket], list[str]]:
    """Both ends of a pair of sockets with small buffers, and what went wrong."""
    loop, ends, wrong = asyncio.get_running_loop(), socket.socketpair(), list[str]()
    found: dict[str, TlsSocket] = {}
    for end in ends:
        end.setblocking(False)
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 20_000)
    for end, holder, dialled in zip(ends, (mine, theirs), (name, ""), strict=True):

        def done(sock: TlsSocket, who: str = dialled) -> None:
            found[who] = sock

        Handshake(loop, end, holder, dialled, done, wrong.append)
    await until(lambda: len(found) + len(wrong) == 2 or (wrong and not name))
    return [found[who] for who in (name, "") if who in found], wrong


@pytest.mark.parametrize("seed", range(6))
def test_bytes_come_as_they_were_sent_however_little_the_kernel_takes(
    authority: Authority, seed: int
) -> None:
    rng = random.Random(seed)
    pair = authority.issue("host", NAME)

    async def scenario() -> None:
        (one, two), wrong = await shaken(credentials(authority, pair), credentials(authority, pair))
        assert not wrong
        for sender, receiver in ((one, two), (two, one)):
            wanted = b"".join(rng.randbytes(rng.choice((1, 100, 16_384, 300_000))) for _ in range(20))
            left, got = memoryview(wanted), bytearray()
            while len(got) < len(wanted):
                if left and rng.random() < 0.6:
                    with contextlib.suppress(BlockingIOError):
                        left = left[sender.send(left[: rng.choice((1, 7, 70_000, len(left)))]) :]
                else:
                    try:
                        got += receiver.recv(rng.choice((4096, 65_536)))
                    except BlockingIOError:
                        assert left, "all of it was taken, and some is left behind"
            assert bytes(got) == wanted
        one.close()
        assert two.recv(100) == b""
        two.close()

    asyncio.run(scenario())


def from_a_client(authority: Authority, folder: Path) -> tuple[socket.socket, TlsSocket, Rekeying]:
    """Its end of the connection, the host's, and what goes on for it after the handshake."""
    context = ssl.create_default_context(cafile=str(authority.file))
    context.keylog_filename = str(folder / "secrets")
    end, other = socket.socketpair()
    end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4_000_000)
    other.setblocking(False)
    incoming, outgoing, there, back = (ssl.MemoryBIO() for _ in range(4))
    listening = credentials(authority, authority.issue("host", NAME)).for_listening()
    listening.verify_mode = ssl.CERT_NONE
    host = listening.wrap_bio(incoming, outgoing, server_side=True)
    client = context.wrap_bio(back, there, server_hostname=NAME)
    for _ in range(4):
        for side in (client, host):
            with contextlib.suppress(ssl.SSLWantReadError):
                side.do_handshake()
        incoming.write(there.read())
        back.write(outgoing.read())
    return end, TlsSocket(other, host, incoming, outgoing), Rekeying(client, folder / "secrets")


def received(sock: TlsSocket, size: int) -> bytes:
    """All that comes before it has to wait."""
    data = b""
    with contextlib.suppress(BlockingIOError):
        while piece := sock.recv(size):
            data += piece
    return data


@pytest.mark.parametrize("data", [b"", b"x"], ids=["alone", "between data"])
def test_key_updates_of_a_stranger_end_its_connection(
    authority: Authority, tmp_path: Path, data: bytes
) -> None:
    """One read went on for as long as they came: no timer ran, and no other link was served."""
    end, sock, client = from_a_client(authority, tmp_path)
    with end, contextlib.closing(sock):
        # in one go: the kernel keeps 768 bytes for each piece, and by its defaults takes 554 of them
        end.sendall(b"".join(client.update() + (client.data(data) if data else b"") for _ in range(500)))
        with pytest.raises(OSError, match="tls: too many ignored records"):
            received(sock, 4096)
        assert sock._out.pending <= 17 * 27


def test_key_updates_now_and_then_harm_no_link(authority: Authority, tmp_path: Path) -> None:
    end, sock, client = from_a_client(authority, tmp_path)
    with end, contextlib.closing(sock):
        for _ in range(50):
            end.sendall(b"".join(client.update() for _ in range(16)))
            for _ in range(5):
                end.sendall(client.data(bytes(16_000)))
            assert len(received(sock, 65_536)) == 80_000


def test_a_peers_name_may_have_its_final_dot(authority: Authority) -> None:
    held = credentials(authority, authority.issue("host", NAME, "host.test"))

    async def scenario() -> None:
        found, wrong = await shaken(held, held, "host.test.")
        assert (len(found), wrong) == (2, [])
        for one in found:
            one.close()

    asyncio.run(scenario())


def test_messages_go_both_ways_and_large_ones_whole(authority: Authority) -> None:
    pair = authority.issue("host", NAME)

    async def scenario() -> None:
        loop, endpoint = asyncio.get_running_loop(), f"tcp://{NAME}:{free_ports(1)[0]}"
        told: list[list[bytes]] = []
        came: list[list[bytes]] = []
        held = credentials(authority, pair)
        router = Router(loop, endpoint, told.append, LinkOptions(1000, tls=held), strangers=True)
        dealer = Dealer(loop, endpoint, b"me", came.append, LinkOptions(1000, tls=held))
        await until(lambda: dealer.send([b"hello"]))
        await until(lambda: told == [[b"me", b"hello"]])
        router.trust(b"me")
        large = random.Random(1).randbytes(5_000_000)
        for _ in range(3):
            assert dealer.send([b"a", large])
            assert router.send([b"me", large])
        await until(lambda: len(told) == 4 and len(came) == 3)
        assert told[1:] == [[b"me", b"a", large]] * 3
        assert came == [[large]] * 3
        dealer.close()
        router.close()

    asyncio.run(scenario())


@pytest.mark.parametrize("who", ["another authority's", "expired", "revoked", "another name's", "nobody"])
def test_who_shows_no_good_certificate_is_no_peer(authority: Authority, tmp_path: Path, who: str) -> None:
    host = authority.issue("host", NAME)
    other = Authority(tmp_path, "other")
    crl = authority.revoke(authority.issue("gone", NAME).serial)
    rest = {"crl_file": str(crl)} if who == "revoked" else {}
    shows = {
        "another authority's": lambda: credentials(authority, other.issue("stranger", NAME)),
        "expired": lambda: credentials(authority, authority.issue("old", NAME, expired=True)),
        "revoked": lambda: credentials(authority, Pair(tmp_path / "gone.pem", tmp_path / "gone-key.pem")),
        "another name's": lambda: credentials(authority, host),
        "nobody": lambda: None,
    }[who]()

    async def scenario() -> None:
        loop, port = asyncio.get_running_loop(), free_ports(1)[0]
        told: list[list[bytes]] = []
        listens = authority.issue("elsewhere", "elsewhere.example") if who == "another name's" else host
        router = Router(
            loop, f"tcp://{NAME}:{port}", told.append,
            LinkOptions(10, tls=credentials(authority, listens, **rest)), strangers=True)
        reasons: list[str] = []
        with capture_logs() as logs:
            dealer = Dealer(
                loop, f"tcp://{NAME}:{port}", b"x", told.append, LinkOptions(10, tls=shows),
                lost=reasons.append)
            await until(lambda: len(reasons) > 1 and logs)
        assert not dealer.send([b"hello"])
        assert not told
        assert all(line["log_level"] == "warning" for line in logs)
        assert "rejected connection on peer endpoint" in [line["event"] for line in logs]
        dealer.close()
        router.close()

    asyncio.run(scenario())


@pytest.mark.parametrize("what", ["common name", "host name", "revoked"])
@pytest.mark.parametrize("who", ["dials", "listens"])
def test_a_peer_of_another_name_is_refused_and_told_so_whoever_dials(
    authority: Authority, what: str, who: str
) -> None:
    """An etcd judges the names of both sides; a list of what is revoked it looks at where it listens."""
    good, bad = authority.issue("good", NAME), authority.issue("bad", NAME)
    rules: dict[str, Any] = {
        "common name": {"allowed_cns": ("good", "other")},
        "host name": {"allowed_hostnames": ("elsewhere.example",)},
        "revoked": {"crl_file": str(authority.revoke(bad.serial))},
    }[what]
    judge, judged = credentials(authority, good, **rules), credentials(authority, bad)

    async def scenario() -> None:
        loop, endpoint = asyncio.get_running_loop(), f"tcp://{NAME}:{free_ports(1)[0]}"
        told: list[list[bytes]] = []
        lost: list[str] = []
        dials, listens = (judge, judged) if who == "dials" else (judged, judge)
        with capture_logs() as logs:
            router = Router(loop, endpoint, told.append, LinkOptions(10, tls=listens), strangers=True)
            dealer = Dealer(loop, endpoint, b"x", told.append, LinkOptions(10, tls=dials), lost=lost.append)

            def reasons(at: str) -> set[str]:
                return set(lost) if at == "dials" else {line["reason"] for line in logs}

            other = "listens" if who == "dials" else "dials"
            await until(lambda: f"remote error: {BAD_CERTIFICATE}" in reasons(other))
            refusals = ("client certificate authentication failed", "transport: certificate serial")
            await until(lambda: any(reason.startswith(refusals) for reason in reasons(who)))
        assert not dealer.send([b"hello"])
        assert not told
        dealer.close()
        router.close()

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("names", "refusal"),
    [
        ((NAME, "*.invalid"), ""),
        (("localhost",), ""),
        ((), ""),
        (("10.0.0.1",), "x509: certificate is valid for 10.0.0.1, not 127.0.0.1"),
        (("*.invalid",), 'tls: "127.0.0.1" does not match any of DNSNames ["*.invalid"]'),
    ],
)
def test_a_peer_dials_from_an_address_that_its_certificate_is_for(
    authority: Authority, names: tuple[str, ...], refusal: str
) -> None:
    """Unless nobody asks for that."""
    good, other = authority.issue("good", NAME), authority.issue("other", *names)

    async def scenario(by_address: bool) -> None:
        loop, endpoint = asyncio.get_running_loop(), f"tcp://{NAME}:{free_ports(1)[0]}"
        told: list[list[bytes]] = []
        lost: list[str] = []
        held = credentials(authority, good, by_address=by_address)
        with capture_logs() as logs:
            router = Router(loop, endpoint, told.append, LinkOptions(10, tls=held), strangers=True)
            dealer = Dealer(
                loop, endpoint, b"x", told.append, LinkOptions(10, tls=credentials(authority, other)),
                lost=lost.append)
            if refusal and by_address:
                await until(lambda: f"remote error: {BAD_CERTIFICATE}" in lost and logs)
                assert logs[0]["reason"].startswith(refusal)
                assert "--peer-skip-client-san-verification" in logs[0]["hint"]
            else:
                await until(lambda: dealer.send([b"hello"]))
                await until(lambda: told == [[b"x", b"hello"]])
        assert bool(told) == (not (refusal and by_address))
        dealer.close()
        router.close()

    for by_address in (True, False):
        asyncio.run(scenario(by_address))


def test_a_peer_that_is_looked_up_is_closed_with_its_listener(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = asyncio.Event()

    async def never(certificate: object, address: str, names: Any) -> str:
        try:
            await asyncio.sleep(3600)
        finally:
            ended.set()
        return ""

    monkeypatch.setattr("tools.muster.machine.zmtp.tls.by_name", never)
    held = credentials(authority, authority.issue("host", NAME))
    named = credentials(authority, authority.issue("named", "elsewhere.invalid"))

    async def scenario() -> None:
        loop, endpoint = asyncio.get_running_loop(), f"tcp://{NAME}:{free_ports(1)[0]}"
        router = Router(loop, endpoint, lambda parts: None, LinkOptions(10, tls=held), strangers=True)
        dealer = Dealer(loop, endpoint, b"x", lambda parts: None, LinkOptions(10, tls=named))
        await until(lambda: any(one._looked_up is not None for one in router._handshakes))
        await asyncio.sleep(0)  # the look-up begins in the next turn
        assert not dealer.send([b"hello"])
        router.close()
        await until(ended.is_set)
        dealer.close()

    asyncio.run(scenario())


@pytest.mark.parametrize("how", ["in clear", "by certificate", "by key", "a question"])
def test_a_host_dials_from_the_address_that_it_is_told(authority: Authority, how: str) -> None:
    held = credentials(authority, authority.issue("host", NAME))

    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        with socket.create_server((NAME, 0)) as listener:
            listener.setblocking(False)
            port = listener.getsockname()[1]
            dealer = None
            if how == "a question":
                asked = loop.run_in_executor(
                    None, asked_by_tls, NAME, port, held, b"?", 30.0, "127.0.0.2")
            else:
                links = Links(
                    loop, CurveKeys(*zmq.curve_keypair()) if how == "by key" else None,
                    held if how == "by certificate" else None, "127.0.0.2")
                dealer = links.dial(
                    f"tcp://{NAME}:{port}", b"x", lambda parts: None, shard=0, hwm=10)
            accepted, (address, _) = await asyncio.wait_for(loop.sock_accept(listener), 60)
            accepted.close()
            assert address == "127.0.0.2"
            if dealer is not None:
                dealer.close()
            else:
                assert await asked == b""

    asyncio.run(scenario())


def test_of_two_that_refuse_each_other_who_listens_tells_both_reasons(authority: Authority) -> None:
    one, two = authority.issue("one", NAME), authority.issue("two", NAME)

    async def scenario() -> None:
        _, wrong = await shaken(
            credentials(authority, one, allowed_cns=("one",)),
            credentials(authority, two, allowed_cns=("two",)),
        )
        failed = "client certificate authentication failed"
        assert set(wrong) == {failed, f"{failed}, and remote error: {BAD_CERTIFICATE}"}

    asyncio.run(scenario())


def test_a_peer_of_an_allowed_name_is_one_and_a_list_that_changes_counts_for_the_next(
    authority: Authority,
) -> None:
    host = authority.issue("host", NAME)
    rules: dict[str, Any] = {"allowed_cns": ("host",), "crl_file": str(authority.revoke(1))}

    async def scenario() -> None:
        ends, wrong = await shaken(*(credentials(authority, host, **rules) for _ in range(2)))
        assert (len(ends), wrong) == (2, [])
        for end in ends:
            end.close()
        held = [credentials(authority, host, **rules) for _ in range(2)]
        authority.revoke(host.serial)
        _, wrong = await shaken(*held)
        assert [reason.partition(",")[0] for reason in wrong] == [
            f"transport: certificate serial {host.serial:x} revoked"
        ] * 2

    asyncio.run(scenario())


@pytest.mark.parametrize("apart", [False, True])
def test_while_half_a_pair_is_replaced_a_host_dials_by_the_old_one(authority: Authority, apart: bool) -> None:
    """It reached no peer until the other half came."""
    pair, later = authority.issue("host", NAME), authority.issue("later", NAME)
    served = authority.issue("served", NAME) if apart else pair
    own = {"client_cert_file": str(pair.cert), "client_key_file": str(pair.key)} if apart else {}
    told: list[str] = []
    settings = PeerTls(
        str(served.cert), str(served.key), client_cert_auth=True, trusted_ca_file=str(authority.file), **own)
    held = PeerCredentials(settings, told.append)
    other = credentials(authority, authority.issue("other", NAME), client_cert_auth=True)
    shown = [pair.serial, pair.serial, later.serial]
    seen: list[int] = []

    async def dialled() -> None:
        ends, wrong = await shaken(held, other)
        assert (len(ends), wrong) == (2, [])
        found = ends[1]._tls.getpeercert(binary_form=True)
        assert found is not None
        seen.append(x509.load_der_x509_certificate(found).serial_number)
        for end in ends:
            end.close()

    async def scenario() -> None:
        replace(pair.key, later.key.read_bytes())
        for _ in range(2):
            await dialled()
        replace(pair.cert, later.cert.read_bytes())
        await dialled()

    asyncio.run(scenario())
    assert seen == shown
    assert len(told) == 1, told


def test_versions_and_ciphers_of_clients_are_those_of_peers_too(authority: Authority) -> None:
    host = authority.issue("host", NAME)
    suite = {"cipher_suites": ("TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",)}
    for rules, version, ciphers in (
        ({"max_version": "TLS1.2"}, "TLSv1_2", None),
        ({"min_version": "TLS1.3"}, "TLSv1_3", None),
        (suite, None, {"ECDHE-ECDSA-AES256-GCM-SHA384"}),
    ):
        held = credentials(authority, host, **rules)
        for context in (held.for_listening(), held.for_dialling()):
            if version:
                bounds = context.minimum_version.name, context.maximum_version.name
                assert version in bounds, rules
            if ciphers:
                kept = {one["name"] for one in context.get_ciphers() if one["protocol"] != "TLSv1.3"}
                assert kept == ciphers


def test_a_handshake_has_a_time_limit_and_holds_up_nobody(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tools.muster.machine.zmtp.tls.HANDSHAKE_S", 0.2)
    held = credentials(authority, authority.issue("host", NAME))

    async def scenario() -> None:
        loop, port = asyncio.get_running_loop(), free_ports(1)[0]
        told: list[list[bytes]] = []
        router = Router(loop, f"tcp://{NAME}:{port}", told.append, LinkOptions(10, tls=held), strangers=True)
        silent = socket.create_connection((NAME, port))
        silent.sendall(b"\x16\x03\x01")
        silent.setblocking(False)
        assert await asyncio.wait_for(loop.sock_recv(silent, 1), 60) == b""
        silent.close()
        router.close()

    asyncio.run(scenario())


def test_handshakes_of_strangers_share_turns_of_the_loop(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each costs a signature. Those of 256 held the loop of a node for 250 ms."""
    pair = authority.issue("host", NAME)
    (port,) = free_ports(1)
    turn, steps = [0], Counter[int]()
    step = Handshake._step

    def counted(handshake: Handshake) -> None:
        if handshake._listens:
            steps[turn[0]] += 1
        step(handshake)

    monkeypatch.setattr(Handshake, "_step", counted)
    monkeypatch.setattr(shaking, "STEPS_S", 0.0)
    outgoing = ssl.MemoryBIO()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with contextlib.suppress(ssl.SSLWantReadError):
        context.wrap_bio(ssl.MemoryBIO(), outgoing).do_handshake()
    hello = outgoing.read()

    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        options = LinkOptions(100, tls=credentials(authority, pair))
        came: list[list[bytes]] = []
        router = Router(loop, f"tcp://127.0.0.1:{port}", came.append, options)
        with contextlib.ExitStack() as stack:
            for _ in range(50):
                stranger = stack.enter_context(socket.create_connection((NAME, port)))
                stranger.sendall(hello)

            def next_turn() -> None:
                turn[0] += 1
                loop.call_soon(next_turn)

            next_turn()
            dealer = Dealer(loop, f"tcp://127.0.0.1:{port}", b"d", lambda parts: None, options)
            await until(lambda: dealer.send([b"x"]))
            await until(lambda: came)
        assert max(steps.values()) == 1
        assert sum(steps.values()) > 50
        dealer.close()
        router.close()

    asyncio.run(scenario())


@pytest.mark.parametrize("files", ["another's key", "no key"])
def test_a_host_dials_again_whose_files_did_not_fit_together_for_a_while(
    authority: Authority, monkeypatch: pytest.MonkeyPatch, files: str
) -> None:
    monkeypatch.setattr("tools.muster.machine.zmtp.tls.HANDSHAKE_S", 3.0)
    pair, other = authority.issue("host", NAME), authority.issue("other", NAME)
    listens, dials = credentials(authority, other), credentials(authority, pair)
    key = pair.key.read_bytes()
    if files == "another's key":
        pair.key.write_bytes(other.key.read_bytes())
    else:  # it goes between two looks at it
        pair.key.unlink()
        monkeypatch.setattr("tools.muster.machine.zmtp.tls.read", lambda path: b"")

    async def scenario() -> None:
        loop, endpoint = asyncio.get_running_loop(), f"tcp://{NAME}:{free_ports(1)[0]}"
        told: list[list[bytes]] = []
        reasons: list[str] = []
        router = Router(loop, endpoint, told.append, LinkOptions(10, tls=listens), strangers=True)
        dealer = Dealer(loop, endpoint, b"me", told.append, LinkOptions(10, tls=dials), lost=reasons.append)
        await until(lambda: reasons)
        began = len(reasons)
        pair.key.write_bytes(key)
        await until(lambda: dealer.send([b"hello"]))
        router.trust(b"me")
        failed, stream = len(reasons), dealer._stream
        assert failed <= began + 20
        await asyncio.sleep(3.2)
        assert (len(reasons), dealer._stream) == (failed, stream)
        dealer.close()
        router.close()

    asyncio.run(scenario())


def test_a_question_is_answered_to_who_has_a_certificate(authority: Authority, tmp_path: Path) -> None:
    held = credentials(authority, authority.issue("host", NAME))
    stranger = credentials(authority, Authority(tmp_path, "other").issue("stranger", NAME))
    picky = credentials(authority, authority.issue("host", NAME), allowed_cns=("another",))
    distrustful = credentials(Authority(tmp_path, "third"), authority.issue("host", NAME))

    async def scenario() -> None:
        loop, port = asyncio.get_running_loop(), free_ports(1)[0]
        router: Router
        router = Router(
            loop, f"tcp://{NAME}:{port}", lambda parts: router.send([parts[0], parts[-1] + b"!"]) and None,
            LinkOptions(10, tls=held), strangers=True)
        ask = lambda who: loop.run_in_executor(None, asked_by_tls, NAME, port, who, b"?", 30.0)  # noqa: E731
        assert await ask(held) == b"?!"
        with pytest.raises(Untrusted, match="tls: failed to verify certificate: "):
            await ask(distrustful)
        with pytest.raises(Untrusted, match="client certificate authentication failed"):
            await ask(picky)
        with pytest.raises(Untrusted, match="remote error: tls: unknown certificate authority"):
            await ask(stranger)
        router.close()

    asyncio.run(scenario())


@pytest.mark.parametrize("trouble", [CLOSED, "Connection reset by peer"])
def test_what_ends_a_tls_connection_is_no_other_protocol(authority: Authority, trouble: str) -> None:
    held = credentials(authority, authority.issue("host", NAME))
    hints = []

    async def scenario() -> None:
        for tls in (None, held):
            loop, endpoint = asyncio.get_running_loop(), f"tcp://{NAME}:{free_ports(1)[0]}"
            dealer = Dealer(loop, endpoint, b"x", lambda parts: None, LinkOptions(10, tls=tls))
            dealer.trouble = trouble
            hints.append(dealer.hint())
            dealer.close()

    asyncio.run(scenario())
    assert [bool(hint) for hint in hints] == [True, False], hints
