"""What Go's flag package and etcd's flag types take for a number, a duration and a URL."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

_UNIT_NS = {
    "ns": 1, "us": 1_000, "µs": 1_000, "ms": 1_000_000, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9,
}
_DURATION = re.compile(r"(\d+\.?\d*|\.\d+)(ns|us|µs|ms|s|m|h)", re.ASCII)
_LONGEST_NS = (1 << 63) - 1
_DIGITS = re.compile(r"0[xX][0-9a-fA-F_]+|0[bB][01_]+|0[oO][0-7_]+|[0-9][0-9_]*")
_OCTAL = re.compile(r"0[0-7_]+")


def number(text: str, *, signed: bool) -> int:
    """An integer as Go reads it: a base by its prefix, octal behind a 0. ValueError: it is none, or
    has more than 63 bits."""
    sign, body = (text[0], text[1:]) if signed and text[:1] in ("-", "+") else ("", text)
    if not _DIGITS.fullmatch(body):
        raise ValueError(text)
    found = int(body, 8) if _OCTAL.fullmatch(body) else int(body, 0)
    if found >= 1 << 63:
        raise ValueError(text)
    return -found if sign == "-" else found


def duration_ms(text: str) -> int:
    """Go's duration text in milliseconds, rounded up. ValueError if it is none, or too long for Go."""
    sign, body = (-1, text[1:]) if text[:1] == "-" else (1, text[1:] if text[:1] == "+" else text)
    if body == "0":
        return 0
    pos, total = 0, 0.0
    while pos < len(body):
        m = _DURATION.match(body, pos)
        if m is None:
            raise ValueError(text)
        total += float(m[1]) * _UNIT_NS[m[2]]
        pos = m.end()
    if not body or total > _LONGEST_NS:
        raise ValueError(text)
    return sign * -int(-total // 1_000_000)


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


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in escaped) + '"'
