"""What Go's flag package and etcd's flag types take for a number, a duration and a URL."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from tools.gotext import parse_duration_ns, parse_int


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


def mistake_of_url(text: str) -> str:
    """Why etcd takes this for no URL to listen on or to advertise, in its words; "": it does."""
    if any(ord(c) < 32 or ord(c) == 127 for c in text):
        return f"parse {_quoted(text)}: net/url: invalid control character in URL"
    head = re.split("[/?#]", text, maxsplit=1)[0]
    scheme = head.partition(":")[0]
    if ":" in head and not re.fullmatch("[A-Za-z][A-Za-z0-9+.-]*", scheme):
        wrong = f"URL scheme must be http, https, unix, or unixs: {text}"
        return f"parse {_quoted(text)}: first path segment in URL cannot contain colon ({wrong})"
    if ":" not in head or scheme.lower() not in ("http", "https", "unix", "unixs"):
        return f"URL scheme must be http, https, unix, or unixs: {text}"
    if scheme.lower() in ("unix", "unixs"):
        return ""
    try:
        parts = urlsplit(text)
    except ValueError:
        return f"parse {_quoted(text)}: missing ']' in host"
    host = parts.netloc.rpartition("@")[2]
    port = host.rpartition("]")[2].partition(":")
    if port[2] and not port[2].isdecimal():
        return f"parse {_quoted(text)}: invalid port {_quoted(':' + port[2])} after host"
    if not port[1]:
        return f'URL address does not have the form "host:port": {text}'
    return f"URL must not contain a path: {text}" if parts.path else ""


def mistake_of_origin(text: str) -> str:
    """Why this is no origin of ``--cors``, in etcd's words; "": it is. etcd wants its port, too."""
    if text == "*":
        return ""
    _, slashes, host = text.partition("://")
    if not slashes or not host or re.search(r":[^]/]*$|[/?#]", host):
        return mistake_of_url(text)
    return mistake_of_url(f"{text}:80").replace(f"{text}:80", text)


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in escaped) + '"'
