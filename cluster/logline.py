"""The shape of a log line, etcd's, the same in every process of a host. Structlog processors."""

from __future__ import annotations

import json
from collections.abc import Callable, MutableMapping
from typing import Any

LEVELS = {"debug": 10, "info": 20, "warn": 30, "error": 40, "dpanic": 50, "panic": 50, "fatal": 50}
_ETCD_NAMES = {"warning": "warn", "exception": "error", "critical": "fatal"}

Line = MutableMapping[str, Any]


def shape(caller: str, **facts: Any) -> Callable[[Any, str, Line], Line]:
    """Level, time (``ts`` of the line), caller and message first, then ``facts`` and the line's own."""

    def shaped(_logger: Any, method: str, line: Line) -> Line:
        return {"level": _ETCD_NAMES.get(method, method), "ts": line.pop("ts"), "caller": caller,
                "msg": line.pop("event"), **facts, **line}

    return shaped


def in_json(_logger: Any, _method: str, line: Line) -> str:
    """For programs: without spaces, as etcd's, so that ``grep '"level":"warn"'`` finds the same lines."""
    return json.dumps(line, separators=(",", ":"), default=repr)


def text(_logger: Any, _method: str, line: Line) -> str:
    """For people: tabs between the parts, as etcd's console format. A client's text makes no line of its own,
    and does nothing to a terminal; a traceback's lines behind its first are indented."""
    head = [str(line.pop(name)) for name in ("ts", "level", "caller")]
    parts = [*head, _shown(line.pop("msg")), *(f"{name}={_value(name, line[name])}" for name in line)]
    return "\t".join(parts)


def _value(name: str, value: Any) -> str:
    if name == "exception":
        return "\n\t".join(map(_shown, str(value).splitlines()))
    return _shown(value)


def _shown(value: Any) -> str:
    said = str(value)
    return said if said.isprintable() else json.dumps(said)
