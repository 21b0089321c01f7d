"""Keys as texts and as addresses: bytes that are not UTF-8 are written in hex."""

from __future__ import annotations

import re
from urllib.parse import parse_qs, quote, unquote, urlencode

from muster_client import EVERYTHING, KeyRange, prefix, span

_HEX = re.compile(r"0x((?:[0-9a-fA-F]{2})*)")
_LAST_REVISION = 2**63 - 1
_SAFE = "/:@!$&'()*+,;=~-._"


def shown(key: bytes) -> str:
    """A key for people: text, or ``0x…`` for bytes that are no printable text."""
    try:
        text = key.decode()
    except UnicodeDecodeError:
        return f"0x{key.hex()}"
    return text if text.isprintable() and not text.startswith("0x") else f"0x{key.hex()}"


def key_of(text: str) -> bytes:
    """The key that a person wrote: text, or ``0x`` and hex digits. What :func:`shown` wrote gives its key."""
    found = _HEX.fullmatch(text)
    return bytes.fromhex(found[1]) if found else text.encode()


def search(text: str) -> KeyRange:
    """The range of a search: a prefix, or ``from..to`` (``from..``: all that follow). ValueError: none."""
    start, dots, end = text.strip().partition("..")
    if not dots:
        return prefix(key_of(start))
    if not end:
        return KeyRange(key_of(start) or b"\0", b"\0")
    return span(key_of(start) or b"\0", key_of(end))


def revision_of(text: str) -> int:
    """The revision that an address names; 0: none that a store can have."""
    if not re.fullmatch("[0-9]{1,19}", text):
        return 0
    return revision if (revision := int(text)) <= _LAST_REVISION else 0


def range_text(keys: KeyRange) -> str:
    """A range in words that :func:`search` understands, prefixes as such."""
    if keys in (EVERYTHING, KeyRange(b"", b"\0")):
        return ""
    if not keys.end:
        return shown(keys.start)
    if prefix(keys.start) == keys:
        return _bound(keys.start)
    start, end = ("" if bound == b"\0" else _bound(bound) for bound in (keys.start, keys.end))
    return f"{start}..{end}"


def _bound(key: bytes) -> str:
    """In hex, if :func:`search` would take its text for more or less."""
    text = shown(key)
    return f"0x{key.hex()}" if ".." in text or text[-1:] == "." or text != text.strip() else text


def address(view: str, key: bytes = b"", **query: str | int) -> str:
    """The path of a view that shows a key: ``/keys/service/web?rev=42``."""
    given = {name: str(value) for name, value in query.items() if value}
    path = f"/{view}"
    if key and _is_path(key):
        path += quote(key.decode(), safe=_SAFE)
    elif key:
        given = {"key": shown(key), **given}
    return f"{path}?{urlencode(given)}" if given else path


def _is_path(key: bytes) -> bool:
    """Whether browsers leave this key alone in a path: they resolve dots, and drop some slashes."""
    text = shown(key)
    if text.startswith("0x") or not text.startswith("/") or "\\" in text:
        return False
    return all(part not in ("", ".", "..") for part in text[1:].split("/"))


def parse_address(path: str) -> tuple[str, bytes, dict[str, str]]:
    """View, key and the rest of the query of a path."""
    where, _, asked = path.partition("#")[0].partition("?")
    view, slash, rest = where.lstrip("/").partition("/")
    query = {name: values[-1] for name, values in parse_qs(asked).items()}
    key = key_of(query.pop("key", ""))
    if slash and rest:
        key = f"/{unquote(rest)}".encode()
    return view, key, query
