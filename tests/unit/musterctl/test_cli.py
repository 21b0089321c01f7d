"""Commands that need no server, and what the others answer without one."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from muster_client.pb import kv_pb2, rpc_pb2

from tools.muster.host.identity import restoring
from tools.musterctl import API_VERSION, cli, passwords
from tools.musterctl.command import Exit, Flags, Invocation, find
from tools.musterctl.commands import auth
from tools.musterctl.commands import table as commands
from tools.musterctl.commands.hosts import member
from tools.musterctl.commands.keys.watch import WatchArguments, split_arguments
from tools.musterctl.printing.print_json import member_list_hex, message
from tools.musterctl.usage import usage, version


def test_two_passwords_that_differ_are_refused_in_etcdctls_words(monkeypatch: pytest.MonkeyPatch) -> None:
    typed = iter(("a", "b"))
    monkeypatch.setattr(passwords, "ask", lambda words: next(typed))
    command, args = find(commands.root(), ["user", "add", "u"])
    with pytest.raises(Exit, match=r"given passwords are different$"):
        auth.user_add(Invocation(command, Flags(command.all_flags()), args, args))


def test_version_is_two_lines(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["version"]) == 0
    assert capsys.readouterr().out == f"musterctl version: {version()}\nAPI version: {API_VERSION}\n"


@pytest.mark.parametrize(("words", "code", "said"), [
    ("version >/dev/full", 1, b"Error: writing the output: No space left on device\n"),
    ("version >&-", 0, b""),
    ("put key <&-", 128, b"Error: put command needs 1 argument and input from stdin or 2 arguments\n"),
    ("txn <&-", 3, b"Error: EOF\n"),
    ("put key 0>/dev/null", 128,
     b"Error: put command needs 1 argument and input from stdin or 2 arguments\n"),
    ("txn 0>/dev/null", 3, b"Error: read /dev/stdin: bad file descriptor\n"),
    ("nonsense 2>&-", 1, b""),
])  # fmt: skip
def test_streams_that_are_full_or_closed(words: str, code: int, said: bytes) -> None:
    line = ["sh", "-c", f"{sys.executable} -m tools.musterctl {words}"]
    ended = subprocess.run(line, check=False, capture_output=True, timeout=60)
    assert (ended.returncode, ended.stderr) == (code, said)


_SAYS_AND_WAITS = """
import os, signal, sys
from tools.musterctl.cli import _open_streams

_open_streams()
print("what is wrong", file=sys.stderr)
os.kill(os.getpid(), signal.SIGTERM)
signal.pause()
"""


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_signal_loses_no_line_of_stderr(unbuffered: str) -> None:
    """With PYTHONUNBUFFERED, as in most containers, lines stayed in a buffer until the program's end."""
    ended = subprocess.run(
        [sys.executable, "-c", _SAYS_AND_WAITS], check=False, capture_output=True, timeout=60,
        env={**os.environ, "PYTHONUNBUFFERED": unbuffered})  # fmt: skip
    assert (ended.returncode, ended.stderr) == (-signal.SIGTERM, b"what is wrong\n")


@pytest.mark.skipif(shutil.which("localedef") is None, reason="needs localedef")
def test_arguments_variables_and_names_of_files_are_octets_in_any_locale(tmp_path: Path) -> None:
    """In one of Latin-1 they became other octets, so etcdctl did not find the key."""
    locale = "de_DE.ISO-8859-1"
    line = ["localedef", "-f", "ISO-8859-1", "-i", "de_DE", tmp_path / locale]
    if subprocess.run(line, check=False, capture_output=True).returncode:
        pytest.skip("this machine has no sources of locales")
    environment = {**os.environ, "LOCPATH": str(tmp_path), "LC_ALL": locale}
    for words, api, said in (
        (["ü"], "3", 'unknown command "ü"'), (["version"], "ü", "unsupported API version: ü\n"),
        (["get", "a", "--cacert=ü.pem"], "3", "open ü.pem: no such file"),
    ):  # fmt: skip
        ended = subprocess.run(
            [sys.executable, "-m", "tools.musterctl", *words], env={**environment, "ETCDCTL_API": api},
            capture_output=True, check=False, timeout=60)  # fmt: skip
        assert said.encode() in ended.stderr


@pytest.mark.parametrize(("step", "code", "said"), [
    ("fail", 1, b"BrokenPipeError: [Errno 32] Broken pipe"),
    ("say", -signal.SIGPIPE, b""),
    ("say_beside", 128 + signal.SIGPIPE, b""),
])  # fmt: skip
def test_a_connections_broken_pipe_is_an_error_and_the_outputs_ends_it(
    step: str, code: int, said: bytes
) -> None:
    """The signal, which ends a program without a word, is for an output that nobody reads."""
    program = (
        "import os, socket, threading\n"
        "from tools.musterctl import cli\n"
        "def fail(line):\n"
        "    ours, other = socket.socketpair()\n"
        "    other.close()\n"
        "    ours.send(b'.')\n"
        "def say(line): print('.', flush=True)\n"
        "def say_beside(line):\n"
        "    thread = threading.Thread(target=say, args=('',))\n"
        "    thread.start()\n"
        "    thread.join()\n"
        f"cli.run = {step}\n"
        "cli.main()")  # fmt: skip
    read, write = os.pipe()
    os.close(read)
    with open(write, "wb") as unread:
        ended = subprocess.run(
            [sys.executable, "-c", program], check=False, stdout=unread, stderr=subprocess.PIPE, timeout=60)
    assert (ended.returncode, b"".join(ended.stderr.splitlines()[-1:])) == (code, said)


def test_what_fails_elsewhere_is_no_failed_output() -> None:
    program = (
        "from tools.musterctl import cli\n"
        "def fails(line): raise TimeoutError\n"
        "cli.run = fails; cli.main()")  # fmt: skip
    ended = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True, timeout=60)
    assert (ended.returncode, ended.stderr.splitlines()[-1]) == (1, b"TimeoutError")


@pytest.mark.parametrize(("given", "code"), [("SIG_IGN", 7), ("default_int_handler", -signal.SIGINT)])
def test_an_interrupt_that_the_parent_ignores_ends_nothing(given: str, code: int) -> None:
    """A shell's script has its jobs in the background ignore it: Ctrl-C is meant for others."""
    program = (
        "import os, signal; from tools.musterctl import cli\n"
        f"signal.signal(signal.SIGINT, signal.{given})\n"
        "cli.run = lambda line: os.kill(os.getpid(), signal.SIGINT) or 7\n"
        "cli.main()")  # fmt: skip
    assert subprocess.run([sys.executable, "-c", program], check=False, timeout=60).returncode == code


def test_connections_that_the_end_closes_are_no_warnings() -> None:
    """They were, after right output, where Python warns of everything."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        line = ["--api", "2", "--no-sync", "--endpoints", f"http://127.0.0.1:{server.getsockname()[1]}"]
        asking = subprocess.Popen(
            [sys.executable, "-X", "dev", "-m", "tools.musterctl", *line, "get", "k"],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE)  # fmt: skip
        client, _ = server.accept()
        with client:
            client.recv(1 << 16)
            client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 60\r\n\r\n"
                           b'{"action":"get","node":{"key":"/k","value":"v","x":"12345"}}')
            assert asking.communicate(timeout=60) == (b"v\n", b"")


def test_version_loads_no_network_code() -> None:
    program = (
        "import sys; from tools.musterctl import cli; cli.run(['version']); "
        "sys.exit(any(m.startswith(('grpc', 'google')) for m in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False, capture_output=True).returncode == 0


def test_options_lists_the_global_flags(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["options"]) == 0
    first, *lines = capsys.readouterr().out.splitlines()
    assert first == "The following options can be passed to any command:"
    for flag in ("--endpoints", "--write-out", "--auth-jwt-token"):
        assert any(flag in line for line in lines)


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        ("snapshot restore f --initial-advertise-peer-urls=x", 1,
         "URL scheme must be http, https, unix, or unixs: x"),
        ("snapshot restore f --wal-dir=.", 1, 'wal-dir "." exists'),
        ("snapshot restore f --mark-compacted", 128, "--mark-compacted required if --revision-bump > 0"),
        ("snapshot status f -w nosuch", 4, "unsupported output format"),
        ("hashkv f -w nosuch", 4, "unsupported output format"),
    ],
)  # fmt: skip
def test_what_backups_cannot_be_is_told_before_the_file_is_looked_at(
    words: str, code: int, text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = words.split()
    if "restore" in line:
        line.append(f"--data-dir={tmp_path / 'made'}")
    assert cli.run(line) == code
    assert capsys.readouterr().err == f"Error: {text}\n"


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ("snapshot status none", "stat none: no such file or directory"),
        ("snapshot restore none", "open none: no such file or directory"),
        ("snapshot status .", "open .: is a directory"),
        ("hashkv .", "open .: is a directory"),
        ("snapshot restore .", "read .: is a directory"),
        ("snapshot restore empty", "snapshot missing hash but --skip-hash-check=false"),
        ("snapshot restore empty --skip-hash-check", "invalid database"),
    ],
)
def test_what_is_no_backup_is_refused_in_etcdutls_words(
    words: str, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").touch()
    monkeypatch.chdir(tmp_path)
    assert cli.run([*words.split(), *(["--data-dir=made"] if "restore" in words else [])]) == 1
    assert capsys.readouterr().err == f"Error: {text}\n"
    assert not (tmp_path / "made").exists()


def test_a_restore_onto_a_full_disk_says_nothing_of_opening_the_file(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")  # as of a write: it names no file

    monkeypatch.setattr(restoring, "restore_host", full)
    assert cli.run(["snapshot", "restore", "saved.db", "--data-dir=made"]) == 1
    assert capsys.readouterr().err == "Error: saved.db: no space left on device\n"


@pytest.mark.parametrize("line", [
    "user add \udcff:x", "user get \udcff", "role add \udcff", "member add n --peer-urls http://\udcff:1",
])  # fmt: skip
def test_an_argument_that_is_no_utf_8(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run([*line.split(), "--endpoints=127.0.0.1:1", "--command-timeout=1s"]) == 1
    assert "string field contains invalid UTF-8" in capsys.readouterr().err


def test_a_token_excludes_a_password(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["get", "a", "--auth-jwt-token=x", "--user=u:p"]) == 128
    assert capsys.readouterr().err == "Error: --auth-jwt-token excludes --user and --password\n"


def test_wrong_arguments_are_refused_before_any_connection(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["get"]) == 128
    assert capsys.readouterr().err == (
        "Error: get command needs one argument as key and an optional argument as range_end\n"
    )


@pytest.mark.parametrize(("url", "said"), [
    ("http://[::1", """parse "http://[::1": missing ']' in host"""),
    ("10.0.0.1:2380", 'parse "10.0.0.1:2380": first path segment in URL cannot contain colon'),
    ("http://a b:1", 'parse "http://a b:1": invalid character " " in host name'),
    ("http://a:1/x", "URL must not contain a path: http://a:1/x")])
def test_peer_urls_are_judged_as_by_etcdctl(url: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["add", "m"], ["update", "1"]):
        assert cli.run(["member", *words, f"--peer-urls={url}"]) == 1
        assert capsys.readouterr().err == f"Error: {said}\n"
    assert member._checked(["unix:///b", " http://a:1"]) == ["http://a:1", "unix:///b"]


def test_help_names_every_command() -> None:
    text = usage(commands.root())
    for line in ("lease keep-alive\tKeeps leases alive (renew)", "peer-keys\t\t", "endpoint hashkv\t\t"):
        assert line in text


@pytest.mark.parametrize(
    ("args", "line", "env_key", "expected"),
    [
        (["a"], ["watch", "a"], "", WatchArguments(["a"], [])),
        (
            ["a", "b", "echo", "a"],
            ["watch", "a", "b", "--", "echo", "a"],
            "",
            WatchArguments(["a", "b"], ["echo", "a"]),
        ),
        (
            ["sh", "-c", "sh"],
            ["watch", "--", "sh", "-c", "sh"],
            "k",
            WatchArguments(["k"], ["sh", "-c", "sh"]),
        ),
        ([], ["watch"], "k", WatchArguments(["k"], [])),
    ],
)
def test_a_watchs_words_end_at_two_dashes(
    args: list[str], line: list[str], env_key: str, expected: WatchArguments
) -> None:
    assert split_arguments(args, line, env_key, "") == expected


def test_a_key_in_the_environment_and_on_the_line_conflict() -> None:
    with pytest.raises(Exit, match="conflicting environment key"):
        split_arguments(["a", "echo"], ["watch", "a", "--", "echo"], "k", "")


def test_json_leaves_zeros_out_and_wraps_a_oneof() -> None:
    pair = kv_pb2.KeyValue(key=b"k", lease=2**63 - 1)
    ranged = rpc_pb2.RangeResponse(header=rpc_pb2.ResponseHeader(), kvs=[pair], more=True)
    txn = rpc_pb2.TxnResponse(succeeded=True, responses=[rpc_pb2.ResponseOp(response_range=ranged)])
    assert message(txn) == (
        '{"succeeded":true,"responses":[{"Response":{"response_range":'
        '{"header":{},"kvs":[{"key":"aw==","lease":9223372036854775807}],"more":true}}}]}'
    )
    assert message(rpc_pb2.ResponseOp()) == '{"Response":null}'


def test_a_peer_key_file_is_made_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "peer.json"
    assert cli.run(["peer-keys", str(path)]) == 0
    assert set(json.loads(path.read_text())) == {"public", "secret"}
    before = path.read_bytes()
    assert cli.run(["peer-keys", str(path)]) == 1
    assert path.read_bytes() == before
    assert capsys.readouterr().err == f"Error: open {path}: file exists\n"


def test_an_unstarted_member_has_all_fields_in_hex() -> None:
    """As by etcdctl 3.5: scripts find such a member by its empty name."""
    header = rpc_pb2.ResponseHeader(cluster_id=10, member_id=11, raft_term=2)
    members = [rpc_pb2.Member(ID=12, name="a", peerURLs=["http://a:1"], clientURLs=["http://a:2"]),
               rpc_pb2.Member(ID=13, peerURLs=["http://b:1"], isLearner=True)]
    assert member_list_hex(rpc_pb2.MemberListResponse(header=header, members=members)) == (
        '{"header":{"cluster_id":"a","member_id":"b","raft_term":2},"members":['
        '{"ID":"c","name":"a","peerURLs":["http://a:1"],"clientURLS":["http://a:2"]},'
        '{"ID":"d","name":"","peerURLs":["http://b:1"],"clientURLS":null}]}')
