"""How answers of the store are printed: simple, extended, json; how an endless output is interrupted."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from types import FrameType
from typing import NoReturn

from cluster.gotext import json_string
from tools.musterctl.v2.keys import Change, Node


def show(change: Change, form: str) -> None:
    node, previous = change.node, change.previous
    if form == "simple":
        _print(
            node.value
            if change.action != "delete"
            else f"PrevNode.Value: {previous.value if previous else ''}")
    elif form == "extended":
        _print(f"Key: {node.key}")
        _print(f"Created-Index: {node.created}")
        _print(f"Modified-Index: {node.modified}")
        if previous is not None:
            _print(f"PrevNode.Value: {previous.value}")
        _print(f"TTL: {node.ttl}")
        _print(f"Index: {change.index}")
        if change.action != "delete":
            _print(f"\n{node.value}")
    elif form == "json":
        before = "null" if previous is None else _json(previous)
        _print(f'{{"action":{json_string(change.action)},"node":{_json(node)},"prevNode":{before}}}')
    else:
        sys.stdout.flush()
        print(f"Unsupported output format: {form}", file=sys.stderr)
    sys.stdout.flush()


def end_at_interrupt() -> None:
    """Have SIGINT end the process with code 0, with all printed so far, as etcdctl's endless commands do."""
    signal.signal(signal.SIGINT, _interrupted)


def _interrupted(_number: int, _frame: FrameType | None) -> NoReturn:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(RuntimeError):  # it came while this thread flushes: the bytes are out
            stream.flush()
    os._exit(0)


def _print(line: str) -> None:
    sys.stdout.write(f"{line}\n")


def _json(node: Node) -> str:
    nodes = "null" if node.nodes is None else f"[{','.join(map(_json, node.nodes))}]"
    members = [f'"key":{json_string(node.key)}']
    if node.dir:
        members.append('"dir":true')
    members.append(f'"value":{json_string(node.value)},"nodes":{nodes}')
    members.append(f'"createdIndex":{node.created},"modifiedIndex":{node.modified}')
    if node.expiration:
        members.append(f'"expiration":{json_string(node.expiration)}')
    if node.ttl:
        members.append(f'"ttl":{node.ttl}')
    return "{" + ",".join(members) + "}"
