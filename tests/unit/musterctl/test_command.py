"""Matching a command line to commands and flags."""

from __future__ import annotations

import json
import re

import pytest
from muster_client.pb import rpc_pb2

from cluster.gotext import quote
from tools.musterctl import cli
from tools.musterctl.client import Session
from tools.musterctl.command import FlagError, Flags, find
from tools.musterctl.commands import table as commands
from tools.musterctl.global_flags import take_environment


def _parsed(*line: str) -> tuple[str, Flags, list[str]]:
    command, rest = find(commands.root(), line)
    flags = Flags(command.all_flags())
    return command.path(), flags, flags.parse(rest)


@pytest.mark.parametrize(
    ("line", "path"),
    [
        (("get", "a"), "musterctl get"),
        (("pu", "a", "b"), "musterctl put"),
        (("p", "a", "b"), "musterctl put"),  # peer-keys is no command of etcd's
        (("s", "save", "f"), "musterctl snapshot save"),
        (("le", "gr", "5"), "musterctl lease grant"),
        (("-w", "json", "lease", "list"), "musterctl lease list"),
        (("--write-out=json", "--hex", "get", "put"), "musterctl get"),
        (("lease", "nosuch"), "musterctl lease"),
        ((), "musterctl"),
    ],
)
def test_commands_are_found_by_name_or_unique_prefix(line: tuple[str, ...], path: str) -> None:
    assert _parsed(*line)[0] == path


def test_flags_may_stand_anywhere_before_two_dashes() -> None:
    _, flags, args = _parsed("get", "--limit", "3", "a", "-wjson", "--prefix", "b", "--", "--rev", "-x")
    assert (flags.number("limit"), flags.string("write-out"), flags.switch("prefix")) == (3, "json", True)
    assert args == ["a", "b", "--rev", "-x"]
    assert flags.given == {"limit", "write-out", "prefix"}
    assert flags.number("command-timeout") == 5_000_000_000


def test_an_equals_sign_without_a_value_behind_a_letter_is_the_value() -> None:
    assert _parsed("get", "a", "-d=")[1].string("discovery-srv") == "="
    assert _parsed("get", "a", "-d=x")[1].string("discovery-srv") == "x"


def test_a_list_flag_grows() -> None:
    _, flags, _ = _parsed("get", "a", "--endpoints=x:1,y:2", "--endpoints", "z:3")
    assert flags.strings("endpoints") == ["x:1", "y:2", "z:3"]
    assert _parsed("get", "a")[1].strings("endpoints") == ["127.0.0.1:2379"]
    assert _parsed("get", "a", "--endpoints=")[1].strings("endpoints") == []


BARE, QUOTED = 'bare " in non-quoted-field', 'extraneous or missing " in quoted-field'


@pytest.mark.parametrize(("given", "found"), [
    ("a\nb", ["a"]), ("\n\na,,b\r\nc", ["a", "", "b"]), ("a,b\r", ["a", "b"]), ("a\rb", ["a\rb"]),
    (",", ["", ""]), ("\r", "EOF"),
    ('"a\n,""b","",c', ['a\n,"b', "", "c"]), ("\n", "EOF"),
    ('aa,b"c', f"parse error on line 1, column 4: {BARE}"),
    ('\n\na"', f"parse error on line 3, column 1: {BARE}"),
    ('"a""b', f"record on line 1; parse error on line 2, column 0: {QUOTED}"),
    ('"a" ,b', f"parse error on line 1, column 2: {QUOTED}"),
    ('"a\n\nb"c', f"record on line 1; parse error on line 3, column 1: {QUOTED}"),
])  # fmt: skip
def test_a_list_flag_is_read_as_by_etcdctl(given: str, found: list[str] | str) -> None:
    """etcdctl 3.5.1 says all of it."""
    if isinstance(found, list):
        assert _parsed("get", "a", "--endpoints", given)[1].strings("endpoints") == found
        return
    with pytest.raises(FlagError) as caught:
        _parsed("get", "a", "--endpoints", given)
    assert str(caught.value) == f'invalid argument {quote(given)} for "--endpoints" flag: {found}'


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (("nosuch",), 'unknown command "nosuch" for "musterctl"'),
        (("--nosuch", "get", "xyzzy"), 'unknown command "xyzzy" for "musterctl"'),
        (("get", "--nosuch"), "unknown flag: --nosuch"),
        (("get", "-z"), "unknown shorthand flag: 'z' in -z"),
        (("get", "-w"), "flag needs an argument: 'w' in -w"),
        (("get", "--rev"), "flag needs an argument: --rev"),
        (("get", "---x"), "bad flag syntax: ---x"),
        (
            ("watch", "-i=x"),
            'invalid argument "x" for "-i, --interactive" flag: strconv.ParseBool: '
            'parsing "x": invalid syntax',
        ),
        (
            ("get", "a", "--help=x"),
            'invalid argument "x" for "-h, --help" flag: strconv.ParseBool: parsing "x": invalid syntax',
        ),
        (("elect", "-l=", "a"), "unknown shorthand flag: '=' in -="),
    ],
)
def test_what_cannot_be_matched_is_named(line: tuple[str, ...], message: str) -> None:
    with pytest.raises(FlagError) as caught:
        _parsed(*line)
    assert str(caught.value) == message


@pytest.mark.parametrize(("variable", "value", "flag", "found"), [
    ("HEX", "yes", "hex", False),
    ("INSECURE_TRANSPORT", "yes", "insecure-transport", False),
    ("DIAL_TIMEOUT", "abc", "dial-timeout", 2_000_000_000),
    ("MAX_REQUEST_BYTES", "9" * 5000, "max-request-bytes", 0),
])  # fmt: skip
@pytest.mark.parametrize("prefix", ["ETCDCTL", "MUSTERCTL"])
def test_a_variable_that_cannot_be_read_ends_no_command(
    prefix: str, variable: str, value: str, flag: str, found: bool | int, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """etcdctl goes on, with the switch off. It says nothing of it."""
    monkeypatch.setenv(f"{prefix}_{variable}", value)
    _, flags, _ = _parsed("get", "a")
    take_environment(flags)
    assert flags.value(flag) == found
    said = json.loads(capsys.readouterr().err)
    assert (said["level"], said["msg"]) == ("warn", "unreadable environment variable")
    assert said["environment-variable"] == f"{prefix}_{variable}={value}"


def test_a_mistyped_command_gets_suggestions() -> None:
    with pytest.raises(FlagError) as caught:
        _parsed("gte")
    assert str(caught.value) == 'unknown command "gte" for "musterctl"\n\nDid you mean this?\n\tget\n'


@pytest.mark.parametrize(("flags", "linearizable"), [((), True), (("--consistency=s",), False)])
def test_members_are_listed_as_the_leader_or_one_member_knows_them(
    flags: tuple[str, ...], linearizable: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[rpc_pb2.MemberListRequest] = []

    def ask(session: Session, method: str, request: rpc_pb2.MemberListRequest, *more: object) -> object:
        asked.append(request)
        return rpc_pb2.MemberListResponse()

    monkeypatch.setattr(Session, "ask", ask)
    assert cli.run(["member", "list", *flags, "--endpoints=127.0.0.1:1"]) == 0
    assert [request.linearizable for request in asked] == [linearizable]


def test_a_way_to_list_members_that_is_none_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["member", "list", "--consistency=x", "--endpoints=127.0.0.1:1"]) == 4
    assert capsys.readouterr().err == 'Error: unknown consistency flag "x"\n'


def test_a_number_without_sign_has_none() -> None:
    assert _parsed("make-mirror", "a", "--max-txn-ops=0x10")[1].number("max-txn-ops") == 16
    wrong = 'invalid argument "-1" for "--max-txn-ops" flag: strconv.ParseUint: parsing "-1": invalid syntax'
    with pytest.raises(FlagError, match=f"^{re.escape(wrong)}$"):
        _parsed("make-mirror", "a", "--max-txn-ops=-1")
