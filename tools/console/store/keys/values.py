"""A value in the forms that people read: text, JSON, YAML, hex, and protobuf of unknown messages."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Literal

import yaml

Form = Literal["text", "json", "yaml", "hex", "protobuf"]
FORMS: tuple[Form, ...] = ("text", "json", "yaml", "hex", "protobuf")
SHOWN_BYTES = 256 * 1024  # of a larger value only so much is sent to a browser
KUBERNETES = b"k8s\0"
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # not each build has the fast ones
DUMPER = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
NO_YAML = (
    ValueError, LookupError, AttributeError, TypeError, ArithmeticError, RecursionError, yaml.YAMLError)
"""What the library raises: its constructors look at no date or tag before they take it apart."""
_DEEPEST = 12
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
_DUMPED = re.compile(r"[0-9a-f]{8}  (.*?)(?:  \|.*)?")  # a line of hex with its place and its text


@dataclass(frozen=True, slots=True)
class Shown:
    """A value in a form. ``whole``: nothing was cut off; ``editable``: what is made of the text is the value,
    but for what was changed in it."""

    form: Form
    text: str
    whole: bool = True
    kind: str = ""  # of a Kubernetes object: "v1 Pod"
    editable: bool = True


class NotSo(ValueError):
    """The value, or the text, has not that form."""


class Loader(_LOADER):  # type: ignore[misc]
    """One that merges no mappings: some hundred bytes may say billions of entries by it."""

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Leave ``<<`` as it stands."""


Loader.add_constructor("tag:yaml.org,2002:merge", Loader.construct_yaml_str)
Loader.add_constructor("tag:yaml.org,2002:value", Loader.construct_yaml_str)  # "="


def guessed(value: bytes) -> Form:
    """The form that shows most of a value. It has that form."""
    form = plain(value)
    if value.startswith(KUBERNETES):
        form = "protobuf"
    elif form == "text" and value[:1] in (b"{", b"[") and len(value) <= SHOWN_BYTES:
        form = "json"
    return readable(value, form).form


def plain(value: bytes) -> Form:
    """Text, or hex: each value has one of them."""
    try:
        text = value[:SHOWN_BYTES].decode(errors="strict" if len(value) <= SHOWN_BYTES else "ignore")
    except UnicodeDecodeError:
        return "hex"
    return "text" if all(char.isprintable() or char in "\n\r\t" for char in text) else "hex"


def readable(value: bytes, form: Form) -> Shown:
    """A value in a form; one that has not that form, in its plain one."""
    try:
        return show(value, form)
    except NotSo:
        return show(value, plain(value))


def whole(value: bytes, form: Form) -> str:
    """The same, of a large value, too, however long it is."""
    found = readable(value, form)
    if found.whole:
        return found.text
    return _hex_lines(value) if found.form == "hex" else value.decode(errors="replace")


def show(value: bytes, form: Form) -> Shown:
    """A value in a form. NotSo. The browser's editor takes a carriage return for a line feed, or drops it."""
    found = _shown(value, form)
    return replace(found, editable=False) if "\r" in found.text else found


def _shown(value: bytes, form: Form) -> Shown:
    cut = len(value) > SHOWN_BYTES
    if form == "hex":
        return Shown(form, _hex_lines(value[: SHOWN_BYTES // 8]), len(value) <= SHOWN_BYTES // 8)
    if form == "protobuf":
        return _protobuf(value)
    try:
        text = value[:SHOWN_BYTES].decode(errors="ignore" if cut else "strict")
    except UnicodeDecodeError:
        raise NotSo("the value is no UTF-8") from None
    if form == "text" or cut:
        return Shown("text", text, not cut)
    return Shown(form, _json(text)) if form == "json" else _yaml(text)


def _json(text: str) -> str:
    """JSON with lines and indents, if nothing but spaces changes by it; else unchanged. NotSo."""
    found, exact = _parsed(text)
    try:
        return json.dumps(found, indent=2, ensure_ascii=False) if exact else text
    except RecursionError as error:  # nested deeper than it can be written
        raise NotSo(str(error)) from None


def _parsed(text: str) -> tuple[Any, bool]:
    """What JSON says, and whether writing it again would change no number and drop no name, and can be done.
    NotSo."""
    exact = True

    def number(literal: str) -> float:
        nonlocal exact
        found = float(literal)
        exact &= repr(found) == literal
        return found

    def names(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        nonlocal exact
        found = dict(pairs)
        exact &= len(found) == len(pairs)
        return found

    try:
        found = json.loads(text, parse_float=number, object_pairs_hook=names)
    except (ValueError, RecursionError) as error:
        raise NotSo(str(error)) from None
    return found, exact and (_SURROGATE.search(text) is None or _is_text(found))


def _is_text(found: Any) -> bool:
    """Whether UTF-8 has what JSON says: an escape may name half of a character."""
    try:
        json.dumps(found, ensure_ascii=False).encode()
    except (UnicodeEncodeError, RecursionError):
        return False
    return True


@lru_cache(maxsize=1)  # of a large value it takes a second, and a view asks more than once
def _yaml(text: str) -> Shown:
    """YAML unchanged, with its comments; JSON turned into YAML, to be read. NotSo."""
    try:
        found = yaml.load(text, Loader)
    except NO_YAML as error:
        raise NotSo(str(error)) from None
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return Shown("yaml", text)
    try:
        written = yaml.dump(found, Dumper=DUMPER, allow_unicode=True, sort_keys=False)
    except NO_YAML as error:  # nested deeper than it can be written
        raise NotSo(str(error)) from None
    return Shown("yaml", written, editable=False)


def read(text: str, form: Form, like: bytes = b"") -> bytes:
    """The value that a person wrote in a form. JSON that was one line stays one line. NotSo."""
    if form == "hex":
        lines = ((_DUMPED.fullmatch(line), line) for line in text.splitlines())
        try:
            return bytes.fromhex("".join(line if found is None else found[1] for found, line in lines))
        except ValueError:
            raise NotSo("hex has pairs of the digits 0-9, a-f") from None
    if form == "json":
        found, exact = _parsed(text)
        if exact and like and b"\n" not in like:
            spaced = b'": ' in like
            try:
                text = json.dumps(
                    found, ensure_ascii=False, separators=(", ", ": ") if spaced else (",", ":")
                )
            except RecursionError as error:
                raise NotSo(str(error)) from None
    elif form == "yaml":
        try:
            yaml.load(text, Loader)
        except NO_YAML as error:
            raise NotSo(str(error)) from None
    elif form == "protobuf":
        raise NotSo("a decoded message cannot be written back")
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise NotSo("the value is no UTF-8") from None


def _hex_lines(value: bytes) -> str:
    lines = []
    for at in range(0, len(value), 16):
        row = value[at : at + 16]
        text = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in row)
        lines.append(f"{at:08x}  {row.hex(' '):<47}  |{text}|")
    return "\n".join(lines)


def _protobuf(value: bytes) -> Shown:
    """A message by its field numbers; of Kubernetes' envelope its names, too."""
    kind = ""
    body = value
    if value.startswith(KUBERNETES):
        kind, body = _kubernetes(value[len(KUBERNETES) :])
    if len(body) > SHOWN_BYTES:
        raise NotSo("the message is too large to be decoded here")
    try:
        lines = _lines(body, 0)
    except _Wrong:
        raise NotSo("the value is no protobuf message") from None
    return Shown("protobuf", "\n".join(lines), kind=kind, editable=False)


class _Wrong(Exception):
    """These bytes are no message."""


def _kubernetes(envelope: bytes) -> tuple[str, bytes]:
    """``runtime.Unknown``: the object's version and kind, and the object itself."""
    try:
        fields = dict(_fields(envelope))
        meta = dict(_fields(fields.get(1, b"")))
    except (_Wrong, TypeError):
        raise NotSo("the envelope is damaged") from None
    names = [part.decode(errors="replace") for part in (meta.get(1), meta.get(2)) if isinstance(part, bytes)]
    raw = fields.get(2, b"")
    return " ".join(names), raw if isinstance(raw, bytes) else b""


def _fields(data: bytes) -> list[tuple[int, Any]]:
    """Numbers and values of a message's fields. _Wrong."""
    found: list[tuple[int, Any]] = []
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        number, kind = tag >> 3, tag & 7
        value: Any
        if not number:
            raise _Wrong
        if kind == 0:
            value, at = _varint(data, at)
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
            value, at = (int.from_bytes(data[at : at + size], "little"), at + size)
        elif kind == 2:
            size, at = _varint(data, at)
            value, at = data[at : at + size], at + size
        else:
            raise _Wrong
        if at > len(data):
            raise _Wrong
        found.append((number, value))
    return found


def _varint(data: bytes, at: int) -> tuple[int, int]:
    result = shift = 0
    while at < len(data) and shift < 70:
        byte = data[at]
        result |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return result, at
    raise _Wrong


def _lines(data: bytes, depth: int) -> list[str]:
    pad = "  " * depth
    found: list[str] = []
    for number, value in _fields(data):
        if isinstance(value, int):
            found.append(f"{pad}{number}: {value}")
            continue
        text = _text(value)
        inner: list[str] | None = None
        if text is None and value and depth < _DEEPEST:
            try:
                inner = _lines(value, depth + 1)
            except _Wrong:
                inner = None
        if inner is not None:
            found += [f"{pad}{number} {{", *inner, f"{pad}}}"]
        elif text is not None:
            found.append(f"{pad}{number}: {json.dumps(text, ensure_ascii=False)}")
        else:
            found.append(f"{pad}{number}: 0x{value.hex()}")
    return found


def _text(value: bytes) -> str | None:
    try:
        text = value.decode()
    except UnicodeDecodeError:
        return None
    return text if all(char.isprintable() or char in "\n\r\t" for char in text) else None
