"""What Go's flag package and etcd's flag types take for a number, a duration and a URL."""

from __future__ import annotations

from cluster.gotext import parse_duration_ns, parse_int
from cluster.members.urls import mistake


def number(text: str, *, signed: bool) -> int:
    """An integer of 64 bits with its sign, as Go reads it: a base by its prefix, octal behind a 0.
    ValueError."""
    if text[:1] in ("-", "+") and not signed:
        raise ValueError(text)
    return parse_int(text, 0)


def duration_ms(text: str) -> int:
    """Go's duration in milliseconds, rounded away from 0; what is below a nanosecond is cut.
    ValueError."""
    ns = parse_duration_ns(text)
    ms = -(-abs(ns) // 1_000_000)
    return ms if ns >= 0 else -ms


def mistake_of_origin(text: str) -> str:
    """Why this is no origin of ``--cors``, in etcd's words; "": it is. etcd wants its port, too."""
    with_port = "" if text.endswith("/") else f"{text}:80"
    return "" if text == "*" or not mistake(with_port) else mistake(text)
