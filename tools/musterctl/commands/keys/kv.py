"""``put``, ``get``, ``del``, ``compaction``, and the requests of a txn's lines."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

from muster_client.pb import rpc_pb2

from cluster.gotext import GoError, parse_int, prefix_end, quote, raw
from tools.musterctl.command import Exit, Flags, Invocation

if TYPE_CHECKING:
    from tools.musterctl.client import Session

_SORT_TARGETS = {"CREATE": 2, "KEY": 0, "MODIFY": 3, "VALUE": 4, "VERSION": 1}
_SORT_ORDERS = {"ASCEND": 1, "DESCEND": 2}


def span(flags: Flags, args: list[str], command: str) -> tuple[bytes, bytes]:
    """key and range_end from the arguments, ``--prefix`` and ``--from-key``."""
    by_prefix, from_key = flags.switch("prefix"), flags.switch("from-key")
    if by_prefix and from_key:
        raise Exit(128, "`--prefix` and `--from-key` cannot be set at the same time, choose one")
    if not 1 <= len(args) <= 2:
        raise Exit(128, f"{command} command needs one argument as key and an optional argument as range_end")
    key = raw(args[0])
    if len(args) == 2:
        if by_prefix or from_key:
            raise Exit(
                128, "too many arguments, only accept one argument when `--prefix` or `--from-key` is set")
        return key, raw(args[1])
    if by_prefix:
        return (key, prefix_end(key)) if key else (b"\0", b"\0")
    if from_key:
        return key or b"\0", b"\0"
    return key, b""


def _input() -> bytes:
    """What stdin has; what cannot be read is empty, as in etcdctl."""
    try:
        return sys.stdin.buffer.read()
    except OSError:
        return b""


def put_request(flags: Flags, args: list[str], from_stdin: bool = True) -> rpc_pb2.PutRequest:
    """A value that is not among the arguments is read from stdin, if allowed."""
    if not args:
        raise Exit(128, "put command needs 1 argument and input from stdin or 2 arguments")
    if flags.switch("ignore-value") and len(args) > 1:
        raise Exit(128, "put command needs only 1 argument when 'ignore-value' is set")
    value = b""
    if not flags.switch("ignore-value"):
        value = raw(args[1]) if len(args) > 1 else _input() if from_stdin else b""
        if len(args) == 1 and not value:
            raise Exit(128, "put command needs 1 argument and input from stdin or 2 arguments")
    try:
        lease = parse_int(flags.string("lease"), 16)
    except GoError as error:
        raise Exit(128, f"bad lease ID ({error}), expecting ID in Hex") from None
    return rpc_pb2.PutRequest(
        key=raw(args[0]),
        value=value,
        lease=lease,
        prev_kv=flags.switch("prev-kv"),
        ignore_value=flags.switch("ignore-value"),
        ignore_lease=flags.switch("ignore-lease"))


def get_request(flags: Flags, args: list[str]) -> rpc_pb2.RangeRequest:
    if not args:
        raise Exit(128, "get command needs one argument as key and an optional argument as range_end")
    if flags.switch("prefix") and flags.switch("from-key"):
        raise Exit(128, "`--prefix` and `--from-key` cannot be set at the same time, choose one")
    if flags.switch("keys-only") and flags.switch("count-only"):
        raise Exit(128, "`--keys-only` and `--count-only` cannot be set at the same time, choose one")
    consistency = flags.string("consistency")
    if consistency not in ("l", "s"):
        raise Exit(4, f"unknown consistency flag {quote(consistency)}")
    with_end = args[:2]  # further arguments are ignored
    key, range_end = span(flags, with_end, "get")
    order, target = flags.string("order"), flags.string("sort-by")
    if order and order.upper() not in _SORT_ORDERS:
        raise Exit(4, f"bad sort order {order}")
    if target and target.upper() not in _SORT_TARGETS:
        raise Exit(4, f"bad sort target {target}")
    sort_order = _SORT_ORDERS.get(order.upper(), 0)
    sort_target = _SORT_TARGETS.get(target.upper(), 0)
    if sort_target == 0 and sort_order == 1:
        sort_order = 0  # keys ascend anyway, and unsorted is cheaper for the server
    return rpc_pb2.RangeRequest(
        key=key,
        range_end=range_end,
        limit=flags.number("limit"),
        revision=flags.number("rev"),
        sort_order=rpc_pb2.RangeRequest.SortOrder.Name(sort_order),
        sort_target=rpc_pb2.RangeRequest.SortTarget.Name(sort_target),
        serializable=consistency == "s",
        keys_only=flags.switch("keys-only"),
        count_only=flags.switch("count-only"),
        min_mod_revision=flags.number("min-mod-rev"),
        max_mod_revision=flags.number("max-mod-rev"),
        min_create_revision=flags.number("min-create-rev"),
        max_create_revision=flags.number("max-create-rev"))


def delete_request(flags: Flags, args: list[str]) -> rpc_pb2.DeleteRangeRequest:
    key, range_end = span(flags, args, "del")
    return rpc_pb2.DeleteRangeRequest(key=key, range_end=range_end, prev_kv=flags.switch("prev-kv"))


def put(invocation: Invocation) -> None:
    request = put_request(invocation.flags, invocation.args)
    from tools.musterctl.client import session

    s = session(invocation)
    r = s.ask("KV/Put", request, rpc_pb2.PutResponse)
    s.printer.put(r)


def get(invocation: Invocation) -> None:
    request = get_request(invocation.flags, invocation.args)
    from tools.musterctl.client import session
    from tools.musterctl.printing.printer import Simple

    s = session(invocation)
    if invocation.flags.switch("stream"):
        r = _merged(s, request)
    else:
        r = s.ask("KV/Range", request, rpc_pb2.RangeResponse, True)
    if request.count_only and s.printer.kind != "fields":
        raise Exit(128, "--count-only is only for `--write-out=fields`")
    if invocation.flags.switch("print-value-only"):
        if not isinstance(s.printer, Simple):
            raise Exit(128, "print-value-only is only for `--write-out=simple`")
        s.printer.value_only = True
    s.printer.get(r)


def _merged(s: Session, request: rpc_pb2.RangeRequest) -> rpc_pb2.RangeResponse:
    """One answer of RangeStream's parts, as in clientv3."""
    from tools.musterctl.client import failing_with

    client, deadline = s.client(), time.monotonic() + s.timeout_s
    whole = rpc_pb2.RangeResponse()
    with failing_with():
        for part in client.each(
                client.streamed("KV/RangeStream", request, rpc_pb2.RangeStreamResponse, deadline), deadline):
            whole.MergeFrom(part.range_response)
    return whole


def delete(invocation: Invocation) -> None:
    request = delete_request(invocation.flags, invocation.args)
    from tools.musterctl.client import session

    s = session(invocation)
    r = s.ask("KV/DeleteRange", request, rpc_pb2.DeleteRangeResponse)
    s.printer.delete(r)


def compaction(invocation: Invocation) -> None:
    """The answer is the same in every format."""
    if len(invocation.args) != 1:
        raise Exit(128, "compaction command needs 1 argument")
    try:
        revision = parse_int(invocation.args[0])
    except GoError as error:
        raise Exit(1, str(error)) from None
    from muster_client.errors import COMPACTED

    from tools.client.channels import say
    from tools.musterctl.client import RequestError, failing_with, session

    s = session(invocation)
    request = rpc_pb2.CompactionRequest(revision=revision, physical=invocation.flags.switch("physical"))
    client = s.client()
    with failing_with():
        try:
            client.unary("KV/Compact", request, rpc_pb2.CompactionResponse, s.timeout_s)
        except RequestError as error:
            # an attempt was refused while it waited for the space: it was done before
            if not (request.physical and client.maybe_done and str(error) == COMPACTED):
                raise
            say("the space may not be free yet")
    print(f"compacted revision {revision}")
