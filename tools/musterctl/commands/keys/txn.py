"""``txn``: three blocks of lines on stdin (compares, success requests, failure requests), each ended by an
empty line. Requests are written as commands: ``put key value --lease=1234``."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator

from muster_client.pb import rpc_pb2

from cluster.gotext import GoError, parse_int, quote, text, unquote_prefix
from tools.musterctl import usage
from tools.musterctl.command import Command, Exit, FlagError, Flags, Invocation, find
from tools.musterctl.commands import table as commands
from tools.musterctl.commands.keys.kv import delete_request, get_request, put_request

_WORD = re.compile(
    r""""(?:[^"\\]|\\.)*"|'[^']*'|[^'"\t\n\f\r ][^\t\n\f\r ]*"""  # quoted either way, or up to a blank
)
_TARGETS = {
    "ver": "version",
    "version": "version",
    "c": "create",
    "create": "create",
    "m": "mod",
    "mod": "mod",
    "val": "value",
    "value": "value",
    "lease": "lease",
}
_RESULTS = {"=": "EQUAL", "!=": "NOT_EQUAL", ">": "GREATER", "<": "LESS"}


class BadLine(Exception):
    """A line that cannot be understood."""


def split_words(line: str) -> list[str]:
    """The line's words: double quotes with Go's escapes, single quotes plain. Exit 3 on a bad escape."""
    words = []
    for word in _WORD.findall(line):
        if word[0] == "'":
            word = word[1:-1]
        elif word[0] == '"':
            unquoted = unquote_prefix(word)
            if unquoted is None:
                raise Exit(3, "invalid syntax")
            word = text(unquoted[0])
        words.append(word)
    return words


def parse_compare(line: str) -> rpc_pb2.Compare:
    """``mod("key") > "0"``. BadLine, in etcdctl's words."""
    target, parenthesis, rest = line.partition("(")
    if not parenthesis:
        raise BadLine(f"malformed comparison: {line}")
    key, operator, value, complete = _scan(rest)
    if not complete:
        got = f"{target}({quote(key)}) {operator} {quote(value)}"
        raise BadLine(f"malformed comparison: {line}; got {got}")
    if target not in _TARGETS:
        raise BadLine(f"malformed comparison: {line} (unknown target {target})")
    kind = _TARGETS[target]
    if operator not in _RESULTS:
        raise BadLine(f"malformed comparison: {line} (unknown operator {operator})")
    compare = rpc_pb2.Compare(key=key, result=_RESULTS[operator], target=kind.upper())
    if kind == "value":
        compare.value = value
        return compare
    try:
        number = parse_int(text(value), 16 if kind == "lease" else 10)
    except GoError:
        raise BadLine(f"invalid txn compare request: {line}") from None
    if kind == "version":
        compare.version = number
    elif kind == "create":
        compare.create_revision = number
    elif kind == "mod":
        compare.mod_revision = number
    else:
        compare.lease = number
    return compare


def _scan(rest: str) -> tuple[bytes, str, bytes, bool]:
    """Read ``"key") op "value"`` as far as it goes."""
    found = unquote_prefix(rest.lstrip(" \t"))
    if found is None:
        return b"", "", b"", False
    key, rest = found
    if not rest.startswith(")"):
        return key, "", b"", False
    blank = re.match(r"\)[ \t]+", rest)
    if blank is None:
        return key, "", b"", False
    rest = rest[blank.end() :]
    operator = re.match(r"[^ \t\r\n]*", rest)
    assert operator is not None
    found = unquote_prefix(rest[operator.end() :].lstrip(" \t"))
    if found is None:
        return key, operator[0], b"", False
    return key, operator[0], found[0], True


def parse_request(line: str) -> rpc_pb2.RequestOp:
    """One request line. BadLine if there is no such command or flag."""
    words = split_words(line)
    if len(words) < 2:
        raise BadLine(f"invalid txn compare request: {line}")
    table = Command("", "", children=[commands.put_command(), commands.get_command(), commands.del_command()])
    try:
        command, rest = find(table, words)
    except FlagError:
        raise BadLine(f"invalid txn request: {line}") from None
    flags = Flags(command.local_flags())
    try:
        args = flags.parse(rest)
    except FlagError:
        print(usage.short_usage(command), end="", file=sys.stderr)
        raise BadLine(f"invalid txn request: {line}") from None
    if command.name == "put":
        return rpc_pb2.RequestOp(request_put=put_request(flags, args, from_stdin=False))
    if command.name == "get":
        return rpc_pb2.RequestOp(request_range=get_request(flags, args))
    return rpc_pb2.RequestOp(request_delete_range=delete_request(flags, args))


def _block(title: str, interactive: bool) -> Iterator[str]:
    """The lines up to an empty one. Exit 3 if the input ends before."""
    if interactive:
        print(title, flush=True)
    while True:
        line = text(sys.stdin.buffer.readline())
        if not line.endswith("\n"):
            raise Exit(3, "EOF")
        line = line.strip(" \t\n\v\f\r\x85\xa0")
        if not line:
            return
        yield line


def txn(invocation: Invocation) -> None:
    if invocation.args:
        raise Exit(128, "txn command does not accept argument")
    from tools.musterctl.client import session

    interactive = invocation.flags.switch("interactive")
    s = session(invocation)  # asks for the password, whose line stands before all others
    request = rpc_pb2.TxnRequest()
    try:
        for line in _block("compares:", interactive):
            request.compare.append(parse_compare(line))
        for line in _block("success requests (get, put, del):", interactive):
            request.success.append(parse_request(line))
        for line in _block("failure requests (get, put, del):", interactive):
            request.failure.append(parse_request(line))
    except BadLine as error:
        raise Exit(3, str(error)) from None
    s.printer.txn(s.ask("KV/Txn", request, rpc_pb2.TxnResponse, limited=False))
