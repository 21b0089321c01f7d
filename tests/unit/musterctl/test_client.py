"""Errors and limits of the connection, without a cluster."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
import pytest
import trustme
from muster_client.pb import kv_pb2, rpc_pb2

from tests.unit.library.scripted import say_nothing, scripted
from tools.musterctl import cli, passwords
from tools.musterctl.client import Client, Config, RequestError, told

_CONFIG = Config((), True, "", "", "", "", "", 10_000, 6_000)


@pytest.mark.parametrize(
    ("code", "details", "text"),
    [
        (
            grpc.StatusCode.NOT_FOUND,
            "etcdserver: requested lease not found",
            "etcdserver: requested lease not found",
        ),
        (grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded", "context deadline exceeded"),
        (
            grpc.StatusCode.UNIMPLEMENTED,
            "unknown method X",
            "rpc error: code = Unimplemented desc = unknown method X",
        ),
        (grpc.StatusCode.FAILED_PRECONDITION, "x", "rpc error: code = FailedPrecondition desc = x"),
        (
            grpc.StatusCode.UNKNOWN,
            "etcdserver: request cancelled",
            "rpc error: code = Unknown desc = etcdserver: request cancelled",
        ),
    ],
)
def test_a_failure_is_told_as_etcds_client_tells_it(code: grpc.StatusCode, details: str, text: str) -> None:
    error = told(code, details)
    assert (str(error), error.code) == (text, code)


@pytest.mark.parametrize("words", [["--user", "u:"], ["--user", "u"], ["--user", ":p"]])
def test_without_a_name_and_a_password_there_is_no_login(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """As in clientv3: an empty password is none, and the request itself is refused."""
    def refuse(request: Any, context: grpc.ServicerContext) -> None:
        context.abort(grpc.StatusCode.INVALID_ARGUMENT, "etcdserver: user name is empty")

    def log_in(request: rpc_pb2.AuthenticateRequest, context: grpc.ServicerContext) -> None:
        context.abort(grpc.StatusCode.UNKNOWN, "auth: authentication failed")

    monkeypatch.setattr(passwords, "ask", lambda prompt: "")
    with scripted({"KV/Put": refuse, "Auth/Authenticate": log_in}) as address:
        code = cli.run(["--endpoints", address, *words, "put", "k", "v"])
    assert (code, capfd.readouterr().err) == (1, "Error: etcdserver: user name is empty\n")


@pytest.mark.timeout(60)
def test_health_of_endpoints_ends_where_a_file_cannot_be_read(capfd: pytest.CaptureFixture[str]) -> None:
    """Not in a thread, which nobody would hear."""
    code = cli.run(["--endpoints", "127.0.0.1:1,127.0.0.1:2", "--cacert", "/none", "endpoint", "health"])
    assert (code, "/none" in capfd.readouterr().err) == (128, True)


@pytest.mark.parametrize("fails", [False, True])
def test_a_range_in_parts_is_shown_whole_or_not_at_all(
    fails: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    """As etcdctl 3.7's `get --stream`."""
    compacted = "etcdserver: mvcc: required revision has been compacted"

    def told(request: rpc_pb2.RangeRequest, context: grpc.ServicerContext) -> Iterator[Any]:
        assert (request.key, request.range_end) == (b"a", b"b")
        yield _part(kvs=[kv_pb2.KeyValue(key=b"a1", value=b"x")])
        if fails:
            context.abort(grpc.StatusCode.OUT_OF_RANGE, compacted)
        yield _part(kvs=[kv_pb2.KeyValue(key=b"a2", value=b"y")], count=2)

    with scripted({"KV/RangeStream": told}) as address:
        code = cli.run(["--endpoints", address, "get", "--stream", "--prefix", "a"])
    if fails:
        said = ("", f"Error: {compacted}\n")
    else:
        said = ("a1\nx\na2\ny\n", "")
    assert (code, *capfd.readouterr()) == (int(fails), *said)


def _part(**fields: Any) -> rpc_pb2.RangeStreamResponse:
    return rpc_pb2.RangeStreamResponse(range_response=rpc_pb2.RangeResponse(**fields))


@pytest.mark.timeout(60)
def test_health_of_endpoints_ends_where_a_password_is_no_text(capfd: pytest.CaptureFixture[str]) -> None:
    """It waited for ever for the thread that had failed."""
    with scripted({}) as address:
        code = cli.run(["--endpoints", address, "--user", "root:p\udce4ss", "endpoint", "health"])
    said = "grpc: error while marshaling: string field contains invalid UTF-8"
    assert (code, capfd.readouterr().err) == (1, f"Error: rpc error: code = Internal desc = {said}\n")


@pytest.mark.parametrize(("alarms", "reason"), [
    (None, "Unable to fetch the alarm list"),
    ((rpc_pb2.NOSPACE, 77, rpc_pb2.CORRUPT), "Active Alarm(s): NOSPACE UNKNOWN CORRUPT "),
])  # fmt: skip
def test_health_says_of_alarms_what_etcdctl_says(
    alarms: tuple[Any, ...] | None, reason: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """Also of those that this version does not know, and where they are not told."""
    def told(request: bytes, context: grpc.ServicerContext) -> rpc_pb2.AlarmResponse:
        if alarms is None:
            context.abort(grpc.StatusCode.UNKNOWN, "etcdserver: no")
        return rpc_pb2.AlarmResponse(alarms=[rpc_pb2.AlarmMember(alarm=alarm) for alarm in alarms or ()])

    methods = {"KV/Range": lambda request, context: rpc_pb2.RangeResponse(), "Maintenance/Alarm": told}
    with answering(methods) as address:
        assert cli.run(["--endpoints", address, "endpoint", "health"]) == 1
    assert capfd.readouterr().err == (
        f"{address} is unhealthy: failed to commit proposal: {reason}\nError: unhealthy cluster\n")


@pytest.mark.parametrize(("code", "text"), [
    (grpc.StatusCode.INVALID_ARGUMENT, "etcdserver: authentication failed, invalid user ID or password"),
    (grpc.StatusCode.UNIMPLEMENTED, "this server has no users: leave out --user and --password")])
def test_an_endpoint_that_takes_no_log_in_is_unhealthy_and_hides_no_other(
    code: grpc.StatusCode, text: str, capfd: pytest.CaptureFixture[str]
) -> None:
    methods: dict[str, Callable[[Any, grpc.ServicerContext], Any]] = {
        "KV/Range": lambda request, context: rpc_pb2.RangeResponse(),
        "Maintenance/Alarm": lambda request, context: rpc_pb2.AlarmResponse(),
        "Auth/Authenticate": lambda request, context: rpc_pb2.AuthenticateResponse(token="t")}
    refusing = {"Auth/Authenticate": lambda request, context: context.abort(code, text)}
    with answering(methods) as well, answering(refusing) as address:
        line = ["--endpoints", f"{well},{address}", "--user", "u:p", "--dial-timeout=30s"]
        assert cli.run([*line, "endpoint", "health"]) == 1
    said = "".join(capfd.readouterr())
    assert f"{well} is healthy: " in said
    assert f"{address} is unhealthy: failed to commit proposal: {text}\nError: unhealthy cluster\n" in said


@pytest.mark.parametrize("words", [
    ["put", "a", "b"], ["lease", "list"], ["watch", "a"], ["user", "list"], ["snapshot", "save", "x"]])
@pytest.mark.parametrize("silent", [True, False])
def test_a_login_has_the_time_for_connecting(
    words: list[str], silent: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """As in clientv3, also where the command itself has no limit: nothing answers, or nothing is there."""
    monkeypatch.chdir(tmp_path)

    def log_in(request: Any, context: grpc.ServicerContext) -> None:
        say_nothing(context)

    with scripted({"Auth/Authenticate": log_in} if silent else {}) as address, socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        endpoint = address if silent else f"127.0.0.1:{nobody.getsockname()[1]}"
        began = time.monotonic()
        line = ["--endpoints", endpoint, "--user=a:b", "--dial-timeout=500ms", "--command-timeout=20s"]
        code = cli.run([*line, *words])
    assert time.monotonic() - began < 10
    assert code == (5 if words[0] == "snapshot" else 2)
    assert capfd.readouterr().err.endswith("Error: context deadline exceeded\n")


def test_an_endpoint_out_of_reach_hides_no_other_from_a_user(capfd: pytest.CaptureFixture[str]) -> None:
    methods: dict[str, Callable[[Any, grpc.ServicerContext], Any]] = {
        "Maintenance/Status": lambda request, context: rpc_pb2.StatusResponse(version="3.5.0"),
        "Auth/Authenticate": lambda request, context: rpc_pb2.AuthenticateResponse(token="t")}
    with answering(methods) as well, socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        away = f"127.0.0.1:{nobody.getsockname()[1]}"
        line = ["--endpoints", f"{away},{well}", "--user=u:p", "--dial-timeout=5s", "--command-timeout=5s"]
        assert cli.run([*line, "endpoint", "status"]) == 1
    out, said = capfd.readouterr()
    assert out.startswith(f"{well}, ")
    assert f"Failed to get the status of endpoint {away} (context deadline exceeded)\n" in said


@pytest.mark.parametrize(("command", "said", "words"), [
    ("endpoint status", "Failed to get the status of endpoint {}", "{}, "),
    ("endpoint hashkv", "Failed to get the hash of endpoint {}", "{}, "),
    ("defrag", "Failed to defragment etcd member[{}]", "Finished defragmenting etcd member[{}]"),
    ("endpoint health -w json", "unhealthy cluster", '"took":""'),
])
def test_an_endpoint_that_takes_no_login_hides_no_other(
    command: str, said: str, words: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """It ended the command, without its name: the others had no row, and were not defragmented."""
    methods: dict[str, Callable[[Any, grpc.ServicerContext], Any]] = {
        "Maintenance/Status": lambda request, context: rpc_pb2.StatusResponse(version="3.5.0"),
        "Maintenance/HashKV": lambda request, context: rpc_pb2.HashKVResponse(),
        "Maintenance/Defragment": lambda request, context: rpc_pb2.DefragmentResponse(),
        "KV/Range": lambda request, context: rpc_pb2.RangeResponse(),
        "Maintenance/Alarm": lambda request, context: rpc_pb2.AlarmResponse()}
    takes = {**methods, "Auth/Authenticate": lambda request, context: rpc_pb2.AuthenticateResponse(token="t")}
    hangs = {**methods, "Auth/Authenticate": lambda request, context: say_nothing(context)}
    with scripted(takes) as well, scripted(hangs) as hung:
        line = ["--endpoints", f"{hung},{well}", "--user=u:p", "--dial-timeout=1s", *command.split()]
        assert cli.run(line) == 1
        found, told = capfd.readouterr()
        assert words.format(well) in found
        assert said.format(hung) in told
        line[1] = hung
        assert cli.run(line) == (1 if "health" in command else 2)


def test_move_leader_ends_where_an_endpoint_takes_no_login(capfd: pytest.CaptureFixture[str]) -> None:
    """With 2, as etcdctl, which cannot connect there, among several endpoints, too."""
    hangs = {"Auth/Authenticate": lambda request, context: say_nothing(context)}
    refuses = {
        "Auth/Authenticate": lambda request, context: rpc_pb2.AuthenticateResponse(token="t"),
        "Maintenance/Status": lambda request, context: context.abort(grpc.StatusCode.UNAVAILABLE, "no")}
    with scripted(hangs) as hung, scripted(refuses) as other:
        for first, second, code in ((hung, other, 2), (other, hung, 1)):
            line = ["--endpoints", f"{first},{second}", "--user=u:p", "--dial-timeout=1s",
                    "--command-timeout=1s", "move-leader", "1"]
            assert (cli.run(line), capfd.readouterr().out) == (code, "")


def test_a_request_over_two_mebibytes_is_not_sent() -> None:
    client = Client(_CONFIG, ("127.0.0.1:1",))
    request = rpc_pb2.PutRequest(key=b"k", value=bytes(2 * 1024 * 1024))
    with pytest.raises(RequestError) as caught:
        client.unary("KV/Put", request, rpc_pb2.PutResponse, 1.0)
    client.close()
    size = request.ByteSize()
    assert str(caught.value) == (
        "rpc error: code = ResourceExhausted desc = trying to send message larger than max "
        f"({size} vs. 2097152)"
    )


@pytest.mark.parametrize("endpoints", [1, 2])
def test_nobody_answering_ends_with_the_deadline(endpoints: int) -> None:
    """Bound but not listening: connections are refused, and nobody else can take the port."""
    sockets = [socket.socket() for _ in range(endpoints)]
    for s in sockets:
        s.bind(("127.0.0.1", 0))
    client = Client(_CONFIG, tuple(f"127.0.0.1:{s.getsockname()[1]}" for s in sockets))
    started = time.monotonic()
    with pytest.raises(RequestError, match="context deadline exceeded"):
        client.unary("KV/Range", rpc_pb2.RangeRequest(key=b"k"), rpc_pb2.RangeResponse, 0.3, True)
    assert time.monotonic() - started >= 0.25
    client.close()
    for s in sockets:
        s.close()


def test_the_limits_of_messages_are_flags() -> None:
    client = Client(replace(_CONFIG, max_request_bytes=100), ("127.0.0.1:1",))
    with pytest.raises(RequestError, match=r"trying to send message larger than max \(203 vs\. 100\)$"):
        client.unary("KV/Put", rpc_pb2.PutRequest(value=bytes(200)), rpc_pb2.PutResponse, 1.0)
    client.close()


def test_an_answer_beyond_the_limit_is_refused() -> None:
    answer = rpc_pb2.PutResponse(prev_kv={"value": bytes(200)}).SerializeToString()
    handler = grpc.method_handlers_generic_handler(
        "etcdserverpb.KV", {"Put": grpc.unary_unary_rpc_method_handler(lambda request, context: answer)}
    )
    server = grpc.server(ThreadPoolExecutor(1), handlers=(handler,))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        for limit, refused in ((100, True), (-1, False)):
            client = Client(replace(_CONFIG, max_recv_bytes=limit), (f"127.0.0.1:{port}",))
            try:
                if refused:
                    text = r"desc = grpc: received message larger than max \(\d+ vs\. 100\)$"
                    with pytest.raises(RequestError, match=text):
                        client.unary("KV/Put", rpc_pb2.PutRequest(), rpc_pb2.PutResponse, 60.0)
                else:
                    client.unary("KV/Put", rpc_pb2.PutRequest(), rpc_pb2.PutResponse, 60.0)
            finally:
                client.close()
    finally:
        server.stop(None)


@pytest.mark.parametrize("version", ["", "3.6.0"])
def test_what_a_server_says_of_its_storage_is_told_of_a_backup(
    version: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An etcd since 3.6 names it, in each part."""
    blobs = (b"a" * 512, b"b" * 32)  # a page, and a checksum
    parts = [rpc_pb2.SnapshotResponse(blob=b, version=version).SerializeToString() for b in blobs]
    handler = grpc.method_handlers_generic_handler(
        "etcdserverpb.Maintenance",
        {"Snapshot": grpc.unary_stream_rpc_method_handler(lambda request, context: iter(parts))},
    )
    server = grpc.server(ThreadPoolExecutor(1), handlers=(handler,))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    path = tmp_path / "backup"
    try:
        assert cli.run(["--endpoints", f"127.0.0.1:{port}", "snapshot", "save", str(path)]) == 0
    finally:
        server.stop(None)
    assert path.read_bytes() == b"a" * 512 + b"b" * 32
    assert path.stat().st_mode & 0o777 == 0o600
    told = f"Snapshot saved at {path}\n" + (f"Server version {version}\n" if version else "")
    assert capsys.readouterr().out == told


def test_a_backup_that_is_refused_leaves_no_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def refuse(request: object, context: grpc.ServicerContext) -> Iterator[bytes]:
        yield rpc_pb2.SnapshotResponse(blob=b"a").SerializeToString()
        context.abort(grpc.StatusCode.PERMISSION_DENIED, "etcdserver: permission denied")

    handler = grpc.method_handlers_generic_handler(
        "etcdserverpb.Maintenance", {"Snapshot": grpc.unary_stream_rpc_method_handler(refuse)})
    server = grpc.server(ThreadPoolExecutor(1), handlers=(handler,))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        words = ["snapshot", "save", str(tmp_path / "backup")]
        assert cli.run(["--endpoints", f"127.0.0.1:{port}", *words]) == 5
    finally:
        server.stop(None)
    assert "permission denied" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("flags", "held", "words"),
    [
        (("cacert",), "", "failed to find any certificate in PEM"),
        (("cacert",), "# muster", "failed to find any certificate in PEM"),
        (("cacert",), "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
         "holds a certificate that cannot be read"),
        (("cert", "key"), "", "tls: failed to find any PEM data in certificate input"),
        (("cert", "key"), "# muster", "tls: failed to find any PEM data in certificate input"),
        (("cert", "key"), "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
         "tls: failed to find any PEM data in key input"),
    ],
)
def test_a_file_that_holds_no_certificate_or_key_is_named_at_once(
    flags: tuple[str, ...], held: str, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The endpoint was blamed, and the command's time was waited for."""
    monkeypatch.chdir(tmp_path)
    Path("README.md").write_text(held)
    given = [f"--{flag}=README.md" for flag in flags]
    for endpoint in ("127.0.0.1:1", "https://127.0.0.1:1"):
        assert cli.run([f"--endpoints={endpoint}", "--command-timeout=1h", *given, "get", "k"]) == 128
        assert capsys.readouterr() == ("", f"Error: README.md: {words}\n")


def test_authorities_are_taken_with_what_is_written_around_them(tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    one, two = (trustme.CA().cert_pem.bytes().decode() for _ in range(2))
    file.write_text(f"Zertifikat f\u00fcr alle\n{one}\n# another\n{two}", encoding="utf-8")
    Client(replace(_CONFIG, cacert=str(file), dial_timeout_ms=1), ["127.0.0.1:1"]).close()


@contextlib.contextmanager
def answering(
    methods: dict[str, Callable[[Any, grpc.ServicerContext], Any]],
    credentials: grpc.ServerCredentials | None = None,
) -> Iterator[str]:
    """A server with these methods of some services; its address."""
    handlers = tuple(
        grpc.method_handlers_generic_handler(
            f"etcdserverpb.{service}", {method: grpc.unary_unary_rpc_method_handler(
                answers, response_serializer=lambda message: message.SerializeToString())})
        for name, answers in methods.items() for service, method in [name.split("/")])
    server = grpc.server(ThreadPoolExecutor(2), handlers=handlers)
    if credentials is None:
        port = server.add_insecure_port("127.0.0.1:0")
    else:
        port = server.add_secure_port("127.0.0.1:0", credentials)
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(None).wait()


@pytest.mark.parametrize(("knows", "asked"), [(True, 2), (False, 5)])
def test_a_token_that_has_expired_is_fetched_anew_a_few_times(knows: bool, asked: int) -> None:
    """As the library does it: a member that lags does not know a new token yet."""
    logins: list[bytes] = []
    puts: list[str] = []

    def authenticate(request: bytes, context: grpc.ServicerContext) -> rpc_pb2.AuthenticateResponse:
        logins.append(request)
        return rpc_pb2.AuthenticateResponse(token=f"t{len(logins)}")

    def put(request: bytes, context: grpc.ServicerContext) -> rpc_pb2.PutResponse:
        puts.append(next(value for name, value in context.invocation_metadata() if name == "token"))
        if puts[-1] == "t1" or not knows:
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "etcdserver: invalid auth token")
        return rpc_pb2.PutResponse()

    with answering({"Auth/Authenticate": authenticate, "KV/Put": put}) as address:
        config = replace(_CONFIG, user="u", password="p", dial_timeout_ms=30_000)
        with contextlib.closing(Client(config, (address,))) as client:
            if knows:
                client.unary("KV/Put", rpc_pb2.PutRequest(key=b"a"), rpc_pb2.PutResponse, 60.0)
            else:
                with pytest.raises(RequestError, match=r"^etcdserver: invalid auth token$"):
                    client.unary("KV/Put", rpc_pb2.PutRequest(key=b"a"), rpc_pb2.PutResponse, 60.0)
    assert (len(logins), puts) == (asked, [f"t{n}" for n in range(1, asked + 1)])


@pytest.mark.parametrize(("safe", "limit_s", "code", "text"), [
    (True, None, grpc.StatusCode.UNAVAILABLE, ""), (True, 60.0, grpc.StatusCode.INTERNAL, ""),
    (False, 60.0, grpc.StatusCode.INTERNAL, ""),
    (True, None, grpc.StatusCode.INTERNAL, "rpc error: code = Internal desc = raft proposal dropped"),
    (False, None, grpc.StatusCode.UNAVAILABLE, "rpc error: code = Unavailable desc = raft proposal dropped")])
def test_what_certainly_was_not_done_is_sent_again(
    safe: bool, limit_s: float | None, code: grpc.StatusCode, text: str
) -> None:
    """Without a time limit it would wait for ever, where etcdctl tells it."""
    puts: list[bytes] = []

    def put(request: bytes, context: grpc.ServicerContext) -> rpc_pb2.PutResponse:
        puts.append(request)
        if len(puts) < 3:
            context.abort(code, "raft proposal dropped")
        return rpc_pb2.PutResponse()

    with answering({"KV/Put": put}) as address, contextlib.closing(Client(_CONFIG, (address,))) as client:
        try:
            client.unary("KV/Put", rpc_pb2.PutRequest(key=b"a"), rpc_pb2.PutResponse, limit_s, safe)
            told = ""
        except RequestError as error:
            told = str(error)
    assert (told, len(puts)) == (text, 1 if text else 3)


@pytest.mark.parametrize(("safe", "code", "text"), [
    (True, grpc.StatusCode.FAILED_PRECONDITION, "etcdserver: rpc not supported for learner"),
    (False, grpc.StatusCode.FAILED_PRECONDITION, "etcdserver: rpc not supported for learner"),
    (True, grpc.StatusCode.INTERNAL, "rpc error: code = Internal desc = odd")])
def test_what_the_next_attempt_would_meet_again_fails_at_once(
    safe: bool, code: grpc.StatusCode, text: str
) -> None:
    puts: list[bytes] = []

    def put(request: bytes, context: grpc.ServicerContext) -> rpc_pb2.PutResponse:
        puts.append(request)
        context.abort(code, text.rpartition(" = ")[2])
        raise AssertionError

    with (
        answering({"KV/Put": put}) as address, contextlib.closing(Client(_CONFIG, (address,))) as client,
        pytest.raises(RequestError) as failed,
    ):
        client.unary("KV/Put", rpc_pb2.PutRequest(key=b"a"), rpc_pb2.PutResponse, 60.0, safe)
    assert (str(failed.value), len(puts)) == (text, 1)


@pytest.mark.parametrize(("safe", "text", "said"), [
    (True, "context deadline exceeded", "{}: rpc error: code = Unavailable desc = away"),
    (False, "rpc error: code = Unavailable desc = away", "{}: rpc error: code = Unavailable desc = away")])
def test_what_may_be_done_is_sent_again_only_if_that_is_safe(
    safe: bool, text: str, said: str, capfd: pytest.CaptureFixture[str]
) -> None:
    puts: list[bytes] = []

    def put(request: bytes, context: grpc.ServicerContext) -> rpc_pb2.PutResponse:
        puts.append(request)
        context.abort(grpc.StatusCode.UNAVAILABLE, "away")
        raise AssertionError

    with answering({"KV/Put": put}) as address, contextlib.closing(Client(_CONFIG, (address,))) as client:
        with pytest.raises(RequestError) as met:
            client.unary("KV/Put", rpc_pb2.PutRequest(key=b"a"), rpc_pb2.PutResponse, 2.0, safe)
        assert (str(met.value), len(puts) > 1) == (text, safe)
    assert capfd.readouterr().err == f"musterctl: {said.format(address)}\n"


def test_any_certificate_is_taken_where_none_is_checked() -> None:
    """Also one that has expired, of another name, by an authority that is not known."""
    held = trustme.CA().issue_cert("elsewhere.example", not_after=datetime(2020, 1, 1, tzinfo=UTC))
    chain = b"".join(blob.bytes() for blob in held.cert_chain_pems)
    credentials = grpc.ssl_server_credentials([(held.private_key_pem.bytes(), chain)])
    request = rpc_pb2.PutRequest(key=b"a")
    with answering({"KV/Put": lambda request, context: rpc_pb2.PutResponse()}, credentials) as address:
        for unchecked in (True, False):
            config = replace(_CONFIG, insecure_transport=False, skip_verify=unchecked)
            with contextlib.closing(Client(config, (address,))) as client:
                if unchecked:
                    client.unary("KV/Put", request, rpc_pb2.PutResponse, 60.0)
                else:
                    with pytest.raises(RequestError, match="context deadline exceeded"):
                        client.unary("KV/Put", request, rpc_pb2.PutResponse, 1.0)


@pytest.mark.parametrize("limit", ["0", "-1s"])
def test_without_a_limit_for_connecting_it_connects_by_tls(limit: str) -> None:
    held = trustme.CA().issue_cert("127.0.0.1")
    chain = b"".join(blob.bytes() for blob in held.cert_chain_pems)
    credentials = grpc.ssl_server_credentials([(held.private_key_pem.bytes(), chain)])
    with answering({"KV/Put": lambda request, context: rpc_pb2.PutResponse()}, credentials) as address:
        words = ["--insecure-transport=false", "--insecure-skip-tls-verify", f"--dial-timeout={limit}"]
        assert cli.run(["--endpoints", address, *words, "--command-timeout=20s", "put", "a", "b"]) == 0


def test_certificates_are_taken_from_a_pipe(tmp_path: Path) -> None:
    """As a shell gives one for ``<(command)``: it is read once, whatever the number of endpoints."""
    authority = trustme.CA()
    held = authority.issue_cert("127.0.0.1")
    chain = b"".join(blob.bytes() for blob in held.cert_chain_pems)
    credentials = grpc.ssl_server_credentials(
        [(held.private_key_pem.bytes(), chain)], authority.cert_pem.bytes(), require_client_auth=True)
    own = authority.issue_cert("me.example")
    contents = (authority.cert_pem.bytes(), own.cert_chain_pems[0].bytes(), own.private_key_pem.bytes())
    ends = [os.pipe() for _ in contents]
    for (_, into), content in zip(ends, contents, strict=True):
        os.write(into, content)
        os.close(into)
    cacert, cert, key = (f"/dev/fd/{out}" for out, _ in ends)
    with answering({"KV/Put": lambda request, context: rpc_pb2.PutResponse()}, credentials) as address:
        config = replace(_CONFIG, cacert=cacert, cert=cert, key=key)
        with contextlib.closing(Client(config, (address, "127.0.0.1:1"))) as client:
            client.unary("KV/Put", rpc_pb2.PutRequest(key=b"a"), rpc_pb2.PutResponse, 60.0)
    for out, _ in ends:
        os.close(out)
