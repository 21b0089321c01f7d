"""What is said of an endpoint that cannot be used, each with a server that is so."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trustme

from tools.client.channels import Channels, Config, Waiting
from tools.client.diagnose import REACHABLE, Target, explain, explain_all
from tools.client.files import Tls
from tools.musterctl.client import session
from tools.musterctl.command import Flags, Invocation, find
from tools.musterctl.commands.table import root

_LIMIT_S = 30.0


@contextlib.contextmanager
def serving(answer: bytes, context: ssl.SSLContext | None = None) -> Iterator[str]:
    """A server that says ``answer`` to whoever connects and keeps the connection; its address."""
    connections: list[socket.socket] = []

    def serve(listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                connections.append(connection)
                with contextlib.suppress(OSError):
                    if context is not None:
                        connection = context.wrap_socket(connection, server_side=True)
                        connections.append(connection)
                    connection.recv(24)
                    connection.sendall(answer)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, args=(listener,))
        thread.start()
        try:
            yield f"127.0.0.1:{listener.getsockname()[1]}"
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()
            for connection in connections:
                connection.close()


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (bytes((0, 0, 0, 4, 0, 0, 0, 0, 0)), REACHABLE),
        (
            b"\xff\0\0\0\0\0\0\0\1\x7f\3",
            "this is a peer port: clients have another one (--listen-client-urls of the server)",
        ),
        (
            b"HTTP/1.1 400 Bad Request\r\n\r\n",
            "speaks HTTP/1 only: this is a peer port or a port for metrics, not one for clients",
        ),
        (b"\x15\x03\x01\0\2\2\x16\0\0", "speaks TLS: use https://, or --cacert"),
        (b"220 mail.example\r\n", "takes connections and says nothing of HTTP/2"),
    ],
)
def test_what_answers_is_told_by_its_first_bytes(answer: bytes, reason: str) -> None:
    with serving(answer) as address:
        assert explain(Target(address, address), _LIMIT_S) == reason


def test_a_port_where_nobody_listens() -> None:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{s.getsockname()[1]}"
        assert explain(Target(address, address), _LIMIT_S) == "connection refused"


def test_a_name_that_does_not_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_args: object, **_options: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", fails)
    assert explain(Target("nosuch:2379", "nosuch:2379"), _LIMIT_S) == "no such host"


@pytest.mark.parametrize(("address", "reason"), [
    ("a..b:1", "no such host"),
    ("127.0.0.1:88915", "address 88915: invalid port"),
    ("127.0.0.1:\u00b2", "the port is not a number"),
])  # fmt: skip
def test_an_address_that_cannot_be(address: str, reason: str) -> None:
    assert explain(Target(address, address), 5.0) == reason


def test_a_unix_socket_that_is_not_there(tmp_path: Path) -> None:
    target = Config((), True, "", "", "", "", "", 1, 1).target(f"unix://{tmp_path}/nosuch")
    assert explain(target, _LIMIT_S) == "no such file or directory"


@pytest.mark.parametrize(
    ("endpoint", "address", "unix"),
    [
        ("10.0.0.1:2379", "10.0.0.1:2379", False),
        ("http://10.0.0.1:2379", "10.0.0.1:2379", False),
        ("http://10.0.0.1:2379/", "10.0.0.1:2379", False),
        ("http://10.0.0.1:2379/path?a=b#c", "10.0.0.1:2379", False),
        ("http://10.0.0.1:2379?a=b", "10.0.0.1:2379", False),
        ("http://10.0.0.1:2379#c", "10.0.0.1:2379", False),
        ("http://me:secret@10.0.0.1:2379/", "10.0.0.1:2379", False),
        ("http://[::1]:2379?a", "[::1]:2379", False),
        ("unix:///run/etcd.sock", "/run/etcd.sock", True),
        ("unix://localhost:2379", "localhost:2379", True),
        ("unix:run/etcd.sock", "run/etcd.sock", True),
        ("unix:/run/etcd.sock", "/run/etcd.sock", True),
        ("unixs:/run/etcd.sock", "/run/etcd.sock", True),
    ],
)
def test_an_endpoint_may_be_written_as_for_etcdctl(endpoint: str, address: str, unix: bool) -> None:
    target = Config((), True, "", "", "", "", "", 1, 1).target(endpoint)
    assert (target.address, target.unix, target.tls is not None) == (address, unix, "s:" in endpoint[:7])


def test_one_that_says_nothing_takes_the_time_limit_and_no_more() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        began = time.monotonic()
        assert explain(Target(address, address), 0.2) == "takes connections and says nothing"
        assert time.monotonic() - began < _LIMIT_S


def test_all_are_asked_at_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        began = time.monotonic()
        found = explain_all([Target(str(n), address) for n in range(8)], 2.0)
        assert time.monotonic() - began < 2.0 * 6
        assert [name for name, _ in found] == [str(n) for n in range(8)]


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    """Who signs the servers' certificates."""
    return trustme.CA()


@pytest.fixture(scope="module")
def ca_file(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> str:
    """What --cacert names."""
    path = tmp_path_factory.mktemp("tls") / "ca.pem"
    authority.cert_pem.write_to_path(path)
    return str(path)


def server_with(authority: trustme.CA, name: str) -> ssl.SSLContext:
    """The TLS of a server whose certificate is for this name."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name).configure_cert(context)
    return context


@pytest.mark.parametrize(
    ("name", "trusted", "words"),
    [
        ("127.0.0.1", False, "unable to get local issuer certificate"),
        ("elsewhere.example", True, "IP address mismatch, certificate is not valid for '127.0.0.1'"),
    ],
)
def test_a_certificate_that_does_not_fit(
    authority: trustme.CA, ca_file: str, name: str, trusted: bool, words: str
) -> None:
    with serving(b"", server_with(authority, name)) as address:
        reason = explain(Target(address, address, tls=Tls(cacert=ca_file if trusted else "")), _LIMIT_S)
    assert reason.startswith(f"certificate: {words}")


def test_a_server_that_asks_for_a_clients_certificate(authority: trustme.CA, ca_file: str) -> None:
    context = server_with(authority, "127.0.0.1")
    context.verify_mode = ssl.CERT_REQUIRED
    with serving(b"", context) as address:
        reason = explain(Target(address, address, tls=Tls(cacert=ca_file)), _LIMIT_S)
    # an alert, or only the end of the connection
    assert "ask for a client certificate (--cert, --key)" in reason


def test_a_connection_that_is_reset_after_the_handshake(
    authority: trustme.CA, ca_file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a busy machine the alert about the certificate is lost in the reset."""

    def sends(secure: ssl.SSLSocket, data: bytes) -> None:
        raise ConnectionResetError(errno.ECONNRESET, os.strerror(errno.ECONNRESET))

    with serving(b"", server_with(authority, "127.0.0.1")) as address:
        monkeypatch.setattr("ssl.SSLSocket.sendall", sends)
        reason = explain(Target(address, address, tls=Tls(cacert=ca_file)), _LIMIT_S)
    assert "ask for a client certificate (--cert, --key)" in reason


@contextlib.contextmanager
def ending(serve: Callable[[socket.socket], object]) -> Iterator[str]:
    """A server that ends two connections when it has done this with them; its address."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def run() -> None:
            for _ in range(2):  # the question, and a look whether TLS is spoken
                connection, _ = listener.accept()
                with connection, contextlib.suppress(OSError):
                    serve(connection)

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        yield f"127.0.0.1:{listener.getsockname()[1]}"
        thread.join(_LIMIT_S)


@pytest.mark.parametrize("asks", [False, True])
def test_no_tls_to_a_port_with_it(authority: trustme.CA, asks: bool) -> None:
    context = server_with(authority, "127.0.0.1")
    context.verify_mode = ssl.CERT_REQUIRED if asks else ssl.CERT_NONE
    with ending(lambda connection: context.wrap_socket(connection, server_side=True).close()) as address:
        assert explain(Target(address, address), _LIMIT_S) == "speaks TLS: use https://, or --cacert"


def test_one_that_ends_connections_says_so() -> None:
    with ending(lambda connection: connection.recv(1000)) as address:
        assert explain(Target(address, address), _LIMIT_S).startswith("ends connections ")


def test_tls_to_a_port_without_it() -> None:
    with serving(b"HTTP/1.1 400 Bad Request\r\n\r\n") as address:
        reason = explain(Target(address, address, tls=Tls()), _LIMIT_S)
    assert reason == "does not speak TLS: use http://, without --cacert, --cert and --key"


@pytest.mark.parametrize(
    ("endpoint", "flags", "address", "unix", "tls"),
    [
        ("h:1", {}, "h:1", False, False),
        ("http://h:1/", {"cacert": "ca"}, "h:1", False, False),
        ("https://h:1", {}, "h:1", False, True),
        ("h:1", {"cacert": "ca"}, "h:1", False, True),
        ("h:1", {"insecure_transport": False}, "h:1", False, True),
        ("h:1", {"skip_verify": True}, "h:1", False, True),
        ("http://h:1", {"skip_verify": True}, "h:1", False, False),
        ("unix:///run/s", {"skip_verify": True}, "/run/s", True, True),
        ("unix:///run/s", {}, "/run/s", True, False),
        ("unixs:///run/s", {}, "/run/s", True, True),
        ("HTTPS://h:1", {}, "h:1", False, True),
        ("Http://h:1", {"cacert": "ca"}, "h:1", False, False),
        ("UNIXS:///run/s", {}, "/run/s", True, True),
    ],
)
def test_an_endpoints_scheme_decides_about_tls_then_the_flags(
    endpoint: str, flags: dict[str, str | bool], address: str, unix: bool, tls: bool
) -> None:
    settings = {"insecure_transport": True, "cert": "", "key": "", "cacert": "", **flags}
    config = Config(endpoints=(), user="", password="", keepalive_ms=1, keepalive_timeout_ms=1, **settings)  # type: ignore[arg-type]
    target = config.target(endpoint)
    assert (target.name, target.address, target.unix, target.tls is not None) == (
        endpoint, address, unix, tls,
    )


@pytest.mark.parametrize("scheme", ["htps", "tcp", "etcd", ""])
def test_an_endpoint_of_another_scheme_is_not_asked_in_clear(scheme: str) -> None:
    """A mistyped https sent names and passwords in clear."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        config = Config((), user="root", password="secret", dial_timeout_ms=100)
        endpoint = f"{scheme}://127.0.0.1:{listener.getsockname()[1]}"
        channels = Channels(config, [endpoint])
        try:
            assert channels.first(time.monotonic() + 0.2) is None
        finally:
            channels.close()
        assert explain(config.target(endpoint), _LIMIT_S) == "its scheme is none of http, https, unix, unixs"
        listener.setblocking(False)
        with pytest.raises(BlockingIOError):
            listener.accept()


def test_an_endpoint_behind_a_comma_and_a_space_has_its_scheme() -> None:
    command, args = find(root(), ["get", "a", "--endpoints", "https://a:1, https://b:1 ,c:1"])
    flags = Flags(command.all_flags())
    config = session(Invocation(command, flags, flags.parse(args), [])).config
    assert config.endpoints == ("https://a:1", "https://b:1", "c:1")
    target = config.target(" https://b:1")  # as --from-etcd takes them
    assert (target.name, target.address, target.tls is not None) == ("https://b:1", "b:1", True)


def test_waiting_is_said_after_a_second_then_every_thirty_and_once_it_is_over() -> None:
    now = 0.0
    clock: Callable[[], float] = lambda: now  # noqa: E731 - it must see `now` change
    waiting = Waiting(clock)
    told = []
    for tenths in range(700):
        now = tenths / 10
        if waiting.is_due():
            told.append(now)
    assert told == [1.0, 31.0, 61.0]
    assert waiting.over()
    assert not waiting.over()
    assert not waiting.is_due()
