"""JSON as Go's ``encoding/json`` reads it, with Go's errors. Python's own parser, in C, reads a small body. A
large one is walked: C would hold all threads for seconds. Where C fails, :func:`mistake` walks, for Go's
error. A number stays text: it may not fit any type."""

from __future__ import annotations

import json
import re
from collections.abc import Generator, Iterable
from json.decoder import scanstring  # type: ignore[attr-defined]  # its stubs lack it
from typing import Any, NoReturn

from cluster.gotext import quote_char

_SPACE = re.compile(r"[ \t\r\n]*")
_PLAIN = re.compile(r'[^"\\\x00-\x1f]*')
_DIGITS = re.compile(r"[0-9]*")
_LITERALS = {"t": ("true", True), "f": ("false", False), "n": ("null", None)}
_MAX_DEPTH = 10_000
_SMALL_BYTES = 4096  # read by C: some 2 ms
_MOST_TEXT = 65_536  # characters of a text that stands for a value: nobody needs as many
ELEMENTS = 64  # of a value, between two stops

END_OF_STREAM = "unexpected EOF"  # of a stream's decoder
END_OF_TEXT = "unexpected end of JSON input"  # of a whole text's
TOO_DEEP = "invalid character '[' exceeded max depth"


class Number(str):
    __slots__ = ()


def is_text(value: Any) -> bool:
    return isinstance(value, str) and not isinstance(value, Number)


def whole_text(value: str) -> str:
    """Replaces halves of surrogate pairs, which JSON can name."""
    return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def kind_of(value: Any) -> str:
    if isinstance(value, str):
        return "number" if isinstance(value, Number) else "string"
    if isinstance(value, bool):
        return "bool"
    return "array" if isinstance(value, list) else "object"


class Mistake(ValueError):
    ...


Stops = Generator[None, None, Any]  # stops at each ``ELEMENTS``, and returns something


def whole(stops: Stops) -> Any:
    """What it returns, without a stop."""
    while True:
        try:
            next(stops)
        except StopIteration as end:
            return end.value


def _no_constant(name: str) -> NoReturn:
    raise ValueError(name)


def folded(name: str) -> str:
    """A field's name, for Go takes it in any case."""
    return name.lower().replace("\u017f", "s")


class Fields(list[tuple[str, Any]]):
    """An object: its fields as they come, repeated ones too. Names are folded."""

    def __init__(self, pairs: Iterable[tuple[str, Any]] = ()) -> None:
        super().__init__((folded(name), value) for name, value in pairs)


_DECODER = json.JSONDecoder(parse_int=Number, parse_float=Number, parse_constant=_no_constant)
_IN_FIELDS = json.JSONDecoder(
    parse_int=Number, parse_float=Number, parse_constant=_no_constant, object_pairs_hook=Fields)


class Values:
    """The values of a body, as Go's ``json.Decoder`` takes them."""

    def __init__(self, body: bytes) -> None:
        self._large = len(body) > _SMALL_BYTES
        self._body = b"" if self._large else body  # for an error
        # one character for each byte where it is walked, as errors show them
        self._text = body.decode("latin-1") if self._large else body.decode("utf-8", "replace")
        self._at = 0
        self._taken = 0

    def next(self) -> Stops:
        """The next value. EOFError: there is none; Mistake: no JSON."""
        at = _end(_SPACE, self._text, self._at)
        if at == len(self._text):
            raise EOFError
        if self._large:
            value, self._at = yield from _walk(self._text, at, END_OF_STREAM)
            return value
        try:
            value, self._at = _decoded(self._text, at)
        except (ValueError, RecursionError):
            raise Mistake(mistake(self._body.decode("latin-1"), self._taken, END_OF_STREAM)) from None
        self._taken += 1
        return value


def _decoded(text: str, at: int, decoder: json.JSONDecoder = _DECODER) -> tuple[Any, int]:
    value, end = decoder.raw_decode(text, at)
    if isinstance(value, Number) and text[end : end + 1] in (".", "e", "E"):  # Python stops before it
        raise ValueError(value)
    return value, end


def first(body: bytes) -> Any:
    """The first value of a body, its objects as :class:`Fields`, where nobody is told Go's error. EOFError:
    there is none; ValueError."""
    text = body.decode("utf-8", "replace")
    at = _end(_SPACE, text, 0)
    if at == len(text):
        raise EOFError
    try:
        return _decoded(text, at, _IN_FIELDS)[0]
    except RecursionError as error:
        raise ValueError from error


def loads(text: str) -> Any:
    """The one value of a text, as by ``json.Unmarshal``. Mistake: no JSON."""
    text = text[:_MOST_TEXT]
    at = _end(_SPACE, text, 0)
    try:
        value, end = _decoded(text, at)
    except (ValueError, RecursionError):
        raise Mistake(mistake(f"{text} ", 0, END_OF_TEXT)) from None  # Go ends a text with a blank
    end = _end(_SPACE, text, end)
    if end < len(text):
        raise Mistake(_unexpected(text, end, "after top-level value", END_OF_TEXT))
    return value


def mistake(text: str, good: int, end: str) -> str:
    """Go's error about the value behind ``good`` values. ``text``: one character for each byte; ``end``: the
    error where the text ends early."""
    at = 0
    try:
        for _ in range(good + 1):
            _, at = whole(_walk(text, _end(_SPACE, text, at), end))
    except Mistake as error:
        return str(error)
    return TOO_DEEP  # Python's parser gives up nesting earlier than Go's


def _end(pattern: re.Pattern[str], text: str, at: int) -> int:
    found = pattern.match(text, at)
    assert found is not None, "the expression matches nothing, too"
    return found.end()


def _unexpected(text: str, at: int, where: str, end: str) -> str:
    return end if at >= len(text) else f"invalid character {quote_char(text[at])} {where}"


def _walk(text: str, at: int, end: str) -> Stops:
    """The value there, and where it ends. ``text`` is :func:`mistake`'s."""
    nested: list[Any] = []  # what is open
    names: list[str] = []  # of the values that are awaited in objects
    elements = 0
    while True:
        elements += 1
        if not elements % ELEMENTS:
            yield
        char = text[at : at + 1]
        value: Any
        if char in ("{", "[") and char:
            value = {} if char == "{" else []
            nested.append(value)
            if len(nested) > _MAX_DEPTH:
                raise Mistake(f"invalid character {quote_char(char)} exceeded max depth")
            at = _end(_SPACE, text, at + 1)
            if text[at : at + 1] != ("}" if char == "{" else "]"):
                if char == "{":
                    name, at = _key(text, at, end)
                    names.append(name)
                continue
            nested.pop()
            at += 1
        else:
            value, at = _scalar(text, at, end)
        while nested:  # what may follow a value
            at = _end(_SPACE, text, at)
            char, holder = text[at : at + 1], nested[-1]
            in_object = isinstance(holder, dict)
            if in_object:
                holder[names.pop()] = value
            else:
                holder.append(value)
            if char == ",":
                at = _end(_SPACE, text, at + 1)
                if in_object:
                    name, at = _key(text, at, end)
                    names.append(name)
                break
            if char != ("}" if in_object else "]"):
                where = "after object key:value pair" if in_object else "after array element"
                raise Mistake(_unexpected(text, at, where, end))
            value = nested.pop()
            at += 1
        else:
            return value, at


def _key(text: str, at: int, end: str) -> tuple[str, int]:
    if text[at : at + 1] != '"':
        raise Mistake(_unexpected(text, at, "looking for beginning of object key string", end))
    name, at = _string(text, at + 1, end)
    at = _end(_SPACE, text, at)
    if text[at : at + 1] != ":":
        raise Mistake(_unexpected(text, at, "after object key", end))
    return name, _end(_SPACE, text, at + 1)


def _scalar(text: str, at: int, end: str) -> tuple[Any, int]:
    char = text[at : at + 1]
    if char == '"':
        return _string(text, at + 1, end)
    if char and char in "-0123456789":
        stop = _number(text, at, end)
        return Number(text[at:stop]), stop
    if char not in _LITERALS:
        raise Mistake(_unexpected(text, at, "looking for beginning of value", end))
    word, value = _LITERALS[char]
    for i, wanted in enumerate(word[1:], at + 1):
        if text[i : i + 1] != wanted:
            raise Mistake(_unexpected(text, i, f"in literal {word} (expecting {quote_char(wanted)})", end))
    return value, at + len(word)


def _string(text: str, at: int, end: str) -> tuple[str, int]:
    try:
        value, stop = scanstring(text, at)
    except ValueError:
        value, stop = "", _bad_string(text, at, end)
    if not value.isascii():
        value, _ = scanstring(text[at:stop].encode("latin-1", "replace").decode("utf-8", "replace"), 0)
    return value, stop


def _bad_string(text: str, at: int, end: str) -> int:
    while True:
        at = _end(_PLAIN, text, at)
        char = text[at : at + 1]
        if char == '"':
            return at + 1
        if char != "\\":
            raise Mistake(_unexpected(text, at, "in string literal", end))
        at += 1
        if text[at : at + 1] == "u":
            for i in range(at + 1, at + 5):
                if text[i : i + 1] not in tuple("0123456789abcdefABCDEF"):
                    raise Mistake(_unexpected(text, i, r"in \u hexadecimal character escape", end))
            at += 5
        elif text[at : at + 1] in tuple('bfnrt\\/"'):
            at += 1
        else:
            raise Mistake(_unexpected(text, at, "in string escape code", end))


def _number(text: str, at: int, end: str) -> int:
    if text[at] == "-":
        at += 1
        if not text[at : at + 1].isdecimal():
            raise Mistake(_unexpected(text, at, "in numeric literal", end))
    at = at + 1 if text[at] == "0" else _end(_DIGITS, text, at)
    if text[at : at + 1] == ".":
        at += 1
        if not text[at : at + 1].isdecimal():
            raise Mistake(_unexpected(text, at, "after decimal point in numeric literal", end))
        at = _end(_DIGITS, text, at)
    if text[at : at + 1] in ("e", "E"):
        at += 1
        if text[at : at + 1] in ("+", "-"):
            at += 1
        if not text[at : at + 1].isdecimal():
            raise Mistake(_unexpected(text, at, "in exponent of numeric literal", end))
        at = _end(_DIGITS, text, at)
    return at
