"""The lines of a transaction."""

from __future__ import annotations

import io
from typing import Any

import grpc
import pytest
from muster_client.pb import rpc_pb2

from tests.unit.library.scripted import scripted
from tools.musterctl import cli
from tools.musterctl.command import Exit
from tools.musterctl.commands.keys.txn import BadLine, parse_compare, parse_request, split_words


def test_words_are_quoted_as_in_a_shell_with_gos_escapes() -> None:
    assert split_words("""put "a b" 'c "d' e\tf"g""") == ["put", "a b", 'c "d', "e", 'f"g']
    assert split_words(r'put "\x41\n\"" ' + "'\\n'") == ["put", 'A\n"', "\\n"]
    with pytest.raises(Exit) as caught:
        split_words(r'put "\q"')
    assert caught.value.code == 3


@pytest.mark.parametrize(
    ("line", "compare"),
    [
        ('ver("k") = "3"', rpc_pb2.Compare(key=b"k", target="VERSION", result="EQUAL", version=3)),
        (
            'create("k") != "0"',
            rpc_pb2.Compare(key=b"k", target="CREATE", result="NOT_EQUAL", create_revision=0),
        ),
        ('m("k\\n") > "-1"', rpc_pb2.Compare(key=b"k\n", target="MOD", result="GREATER", mod_revision=-1)),
        ('val("k") < "a b"', rpc_pb2.Compare(key=b"k", target="VALUE", result="LESS", value=b"a b")),
        ('value("k")  =  ""', rpc_pb2.Compare(key=b"k", target="VALUE", result="EQUAL", value=b"")),
        ('lease("k") = "1f"', rpc_pb2.Compare(key=b"k", target="LEASE", result="EQUAL", lease=31)),
    ],
)
def test_compares_are_understood(line: str, compare: rpc_pb2.Compare) -> None:
    assert parse_compare(line) == compare


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("foo", "malformed comparison: foo"),
        ('val(k) = "v"', 'malformed comparison: val(k) = "v"; got val("")  ""'),
        ('val("k") = "v', 'malformed comparison: val("k") = "v; got val("k") = ""'),
        ('x("k") = "v"', 'malformed comparison: x("k") = "v" (unknown target x)'),
        ('mod("k") = "v"', 'invalid txn compare request: mod("k") = "v"'),
        ('mod("k") ~ "1"', 'malformed comparison: mod("k") ~ "1" (unknown operator ~)'),
    ],
)
def test_a_bad_compare_is_explained(line: str, message: str) -> None:
    with pytest.raises(BadLine) as caught:
        parse_compare(line)
    assert str(caught.value) == message


def test_requests_are_written_as_the_commands_are() -> None:
    put = parse_request('put "a b" c --lease=1f --prev-kv').request_put
    assert (put.key, put.value, put.lease, put.prev_kv) == (b"a b", b"c", 31, True)
    get = parse_request("get a --prefix --sort-by=modify --order=descend --limit 3").request_range
    assert (get.key, get.range_end, get.limit) == (b"a", b"b", 3)
    assert (get.sort_target, get.sort_order) == (rpc_pb2.RangeRequest.MOD, rpc_pb2.RangeRequest.DESCEND)
    everything = parse_request('del "" --prefix').request_delete_range
    assert (everything.key, everything.range_end) == (b"\0", b"\0")
    last = parse_request('get "\\xff\\xff" --prefix').request_range
    assert (last.key, last.range_end) == (b"\xff\xff", b"\0")


@pytest.mark.parametrize("line", ["get", "foo x", "get x -w json", "put a b --nosuch"])
def test_a_bad_request_is_named(line: str) -> None:
    with pytest.raises(BadLine):
        parse_request(line)


@pytest.mark.parametrize("lines", ["\n\n\n", "\nget a\n\n\n", "\nput a b\n\n\n"])
def test_a_transaction_without_a_quorum_ends_as_etcdctls(
    lines: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Also one that only reads: clientv3 repeats none."""
    text, asked = "etcdserver: request timed out", 0

    def refuse(request: Any, context: grpc.ServicerContext) -> rpc_pb2.TxnResponse:
        nonlocal asked
        asked += 1
        if asked == 1:
            context.abort(grpc.StatusCode.UNAVAILABLE, text)
        return rpc_pb2.TxnResponse()

    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(lines.encode())))
    with scripted({"KV/Txn": refuse}) as address:
        code = cli.run(["--endpoints", address, "txn"])
    assert (code, asked) == (1, 1)
    assert capfd.readouterr().err.endswith(f"Error: {text}\n")
