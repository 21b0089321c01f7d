"""What Go's flag package and etcd's flag types take for a number, a duration, a URL and feature gates."""

from __future__ import annotations

from cluster.gotext import GoError, parse_bool, parse_duration_ns, parse_int, parse_uint
from cluster.members.urls import mistake
from tools.muster.config.flags import GATES
from tools.muster.config.kinds import NUMBERS, Kind


def number(text: str, kind: Kind) -> int:
    """An integer as Go reads it: a base by its prefix, octal behind a 0. ValueError."""
    if kind is Kind.INT:
        return parse_int(text, 0)
    return parse_uint(text, 0, 32 if kind is Kind.UINT32 else 64)


def mistake_of_number(error: ValueError, kind: Kind) -> str:
    """Go's words for an error of :func:`number`; it tells more of numbers of 32 bits."""
    out_of_range = kind in NUMBERS and str(error).endswith("value out of range")
    return str(error) if kind is Kind.UINT32 else "value out of range" if out_of_range else "parse error"


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


def gates_named(text: str) -> dict[str, bool]:
    """The feature gates that a text names. ValueError, in etcd's words."""
    found: dict[str, bool] = {}
    for part in (p.strip() for p in text.split(",")):
        if not part:
            continue
        gate, equals, value = (word.strip() for word in part.partition("="))
        if gate not in GATES:
            raise ValueError(f"unrecognized feature gate: {gate}")
        if not equals:
            raise ValueError(f"missing bool value for {gate}")
        try:
            found[gate] = parse_bool(value)
        except GoError as error:
            raise ValueError(f"invalid value of {gate}={value}, err: {error}") from None
    return found


def mistake_of_gates(text: str) -> str:
    """Why these are no feature gates; "": they are."""
    try:
        gates_named(text)
    except ValueError as error:
        return str(error)
    return ""
