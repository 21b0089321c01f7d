"""Which keys: one, or a range."""

from __future__ import annotations

from dataclasses import dataclass

Text = bytes | str


def data(text: Text) -> bytes:
    """Bytes as they are, text in UTF-8. TypeError for all else: of a number ``bytes`` makes so many zeros."""
    if isinstance(text, str):
        return text.encode()
    if not isinstance(text, bytes | bytearray | memoryview):
        raise TypeError(f"bytes or str, not {type(text).__name__}: {text!r}")
    return bytes(text)


@dataclass(frozen=True, slots=True)
class KeyRange:
    """Keys from ``start``, before ``end``; etcd's form. ``end`` empty: the one key; zero byte: all that
    follow."""

    start: bytes
    end: bytes


Keys = bytes | str | KeyRange


def prefix(text: Text) -> KeyRange:
    """Keys that begin so; all keys for an empty text."""
    start = data(text)
    if not start:
        return EVERYTHING
    kept = start.rstrip(b"\xff")
    return KeyRange(start, kept[:-1] + bytes((kept[-1] + 1,)) if kept else b"\0")


def span(start: Text, end: Text) -> KeyRange:
    """Keys from ``start``, before ``end``. ValueError if that is none."""
    found = KeyRange(data(start), data(end))
    if not found.start < found.end:
        raise ValueError(f"no key lies between {start!r} and {end!r}")
    return found


def since(start: Text) -> KeyRange:
    """A key and all that follow."""
    return KeyRange(data(start), b"\0")


EVERYTHING = KeyRange(b"\0", b"\0")


def of(keys: Keys) -> KeyRange:
    """A range; that of one key for a text. ValueError for an empty one."""
    if isinstance(keys, KeyRange):
        return keys
    if not keys:
        raise ValueError("a key is empty")
    return KeyRange(data(keys), b"")
