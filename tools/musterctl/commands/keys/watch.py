"""``watch``: events of a key, a range or a prefix, until the server ends it or a signal comes.

After a broken connection the library goes on at the next revision. A watch that could not begin
ends where there is no leader. Interactive mode reads ``watch ...`` and ``progress`` lines from stdin.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn

from muster_client.pb import rpc_pb2
from muster_client.raw import Answers, Raw

from cluster.errors import COMPACTED, FUTURE_REV, NO_LEADER
from cluster.gotext import prefix_end, quote, raw, text
from tools.musterctl import programs
from tools.musterctl.cli import OutputError, said
from tools.musterctl.client import Client, RequestError, Session, session
from tools.musterctl.command import Exit, FlagError, Flags, Invocation
from tools.musterctl.commands.keys.txn import split_words
from tools.musterctl.commands.table import watch_command

_ENDED = rpc_pb2.WatchResponse(header=rpc_pb2.ResponseHeader(), canceled=True)  # clientv3's own answer


@dataclass(slots=True, frozen=True)
class WatchArguments:
    """What to watch, and the command to run for each event."""

    words: list[str]
    command: list[str]


def split_arguments(args: list[str], line: Sequence[str], env_key: str, env_range: str) -> WatchArguments:
    """Divide the words of a watch at ``--``; the environment's key stands for the first ones.

    ``args`` are the words without flags, also those after ``--``; ``line`` still has the ``--``.
    """
    words, command = args, []
    if "--" in line:
        command = list(line[line.index("--") + 1 :])
        if not command:
            raise Exit(128, "bad number of arguments (found separator --, but no commands)")
        words = args[: len(args) - len(command)]
    if env_key:
        if words:
            raise Exit(128, "bad number of arguments (found conflicting environment key)")
        words = [env_key, env_range] if env_range else [env_key]
    if not words and not command:
        raise Exit(128, "bad number of arguments")
    return WatchArguments(words, command)


def create_request(flags: Flags, words: list[str]) -> rpc_pb2.WatchCreateRequest:
    """ValueError without a key, and on a range_end beside ``--prefix``."""
    if not words:
        raise ValueError("bad number of arguments")
    key, range_end = raw(words[0]), b""
    if len(words) == 2:
        if flags.switch("prefix"):
            raise ValueError("`range_end` and `--prefix` are mutually exclusive")
        range_end = raw(words[1])
    elif flags.switch("prefix"):
        key, range_end = (key, prefix_end(key)) if key else (b"\0", b"\0")
    return rpc_pb2.WatchCreateRequest(
        key=key,
        range_end=range_end,
        start_revision=flags.number("rev"),
        prev_kv=flags.switch("prev-kv"),
        progress_notify=flags.switch("progress-notify"))


def _is_progress(r: rpc_pb2.WatchResponse) -> bool:
    return not (r.events or r.canceled or r.created or r.compact_revision) and r.header.revision != 0


def cancel_reason(r: rpc_pb2.WatchResponse) -> str:
    """Why the server ended a watch, in clientv3's words."""
    if r.compact_revision:
        return COMPACTED.text
    if not r.cancel_reason:
        return FUTURE_REV.text
    if r.created or r.cancel_reason.startswith("etcdserver: "):  # created: refused from the start
        return r.cancel_reason
    return f"rpc error: code = FailedPrecondition desc = {r.cancel_reason}"


def _begun(client: Client, streams: Raw, request: rpc_pb2.WatchCreateRequest) -> Answers:
    """Without a leader it ends as etcdctl's does until a member has served it. Then it outlasts elections."""
    first = client.again_elsewhere((NO_LEADER.text,))
    watched = streams.watch(
        request, on_again=lambda error: client.again(error) if watched.endpoint else first(error))
    return watched


def _show(s: Session, client: Client, watch: Answers, command: list[str], lock: threading.Lock) -> None:
    try:
        for response in client.each(watch):
            with lock:
                if response.canceled:
                    print(f"watch was canceled ({cancel_reason(response)})", file=sys.stderr)
                if _is_progress(response):
                    print(f"progress notify: {response.header.revision}")
                s.printer.watch(_ENDED if response.created and response.canceled else response)
                sys.stdout.flush()
            for event in response.events if command else ():
                _execute(command, response.header.revision, event.type == 1, event.kv.key, event.kv.value)
    except RequestError as error:
        with lock:
            print(f"watch was canceled ({error})", file=sys.stderr)
            s.printer.watch(_ENDED)
            sys.stdout.flush()


def _show_beside(
    s: Session, client: Client, watch: Answers, command: list[str], lock: threading.Lock
) -> None:
    """In a thread of its own, which ends the program as the first one does."""
    try:
        _show(s, client, watch, command, lock)
    except (Exit, OutputError) as end:
        os._exit(said(end))


def _execute(command: list[str], revision: int, deleted: bool, key: bytes, value: bytes) -> None:
    environment = {
        **os.environ,
        "ETCD_WATCH_REVISION": str(revision),
        "ETCD_WATCH_EVENT_TYPE": '"DELETE"' if deleted else '"PUT"',
        "ETCD_WATCH_KEY": quote(key),
        "ETCD_WATCH_VALUE": quote(value),
    }
    try:
        code = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, check=False).returncode
    except (OSError, ValueError) as error:
        reason = programs.not_started(command, error)
    else:
        reason = programs.ended(code)
        if not reason:
            return
    print(f"command [{' '.join(map(quote, command))}] error ({reason})", file=sys.stderr, flush=True)
    sys.stdout.flush()
    os._exit(1)


def watch(invocation: Invocation) -> None:
    (_, env_key), (prefix, env_range) = _variable("WATCH_KEY"), _variable("WATCH_RANGE_END")
    if env_range and not env_key:
        raise Exit(128, f"{prefix}_WATCH_KEY is empty but got {prefix}_WATCH_RANGE_END={quote(env_range)}")
    if invocation.flags.switch("interactive"):
        _interactive(invocation, env_key, env_range)
    arguments = split_arguments(invocation.args, invocation.line, env_key, env_range)
    try:
        request = create_request(invocation.flags, arguments.words)
    except ValueError as error:
        raise Exit(128, str(error)) from None
    s = session(invocation)
    client = s.client()
    _show(s, client, _begun(client, client.raw(), request), arguments.command, threading.Lock())
    raise Exit(5, "watch is canceled by the server")


def _variable(name: str) -> tuple[str, str]:
    """The prefix of one that is set, and its value."""
    of = ((prefix, os.environ.get(f"{prefix}_{name}", "")) for prefix in ("MUSTERCTL", "ETCDCTL"))
    return next(((prefix, value) for prefix, value in of if value), ("", ""))


def _interactive(invocation: Invocation, env_key: str, env_range: str) -> NoReturn:
    s = session(invocation)
    client = s.client()
    lock = threading.Lock()
    streams: Raw | None = None
    watches: list[Answers] = []
    while True:
        line = text(sys.stdin.buffer.readline())
        if not line.endswith("\n"):
            raise Exit(3, "error reading watch request line: EOF")
        line = line[:-1]
        words = split_words(line)
        if not words:
            print(f"Invalid command: {line} (watch and progress supported)", file=sys.stderr)
        elif words[0] == "progress":
            for one in watches:
                client.run(one.request_progress())
        elif words[0] != "watch":
            print(f"Invalid command {line} (only support watch)", file=sys.stderr)
        elif len(words) < 2 and not env_key:
            print(f"Invalid command {line} (command type or key is not provided)", file=sys.stderr)
        else:
            flags = Flags(watch_command().local_flags())
            try:
                args = flags.parse(words[1:])
            except FlagError as error:
                raise Exit(128, str(error)) from None
            arguments = split_arguments(args, words, env_key, env_range)
            try:
                request = create_request(flags, arguments.words)
            except ValueError as error:
                print(f"Invalid command {line} ({error})", file=sys.stderr)
                continue
            streams = streams or client.raw()
            watches.append(one := _begun(client, streams, request))
            shown = (s, client, one, arguments.command, lock)
            threading.Thread(target=_show_beside, args=shown, daemon=True).start()
