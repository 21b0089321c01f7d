"""Go's text forms, as in etcd's flags and etcdctl's output and errors.

``quote`` is ``%q``, ``unquote_prefix`` reads as ``Sscanf("%q")``, ``parse_int``, ``parse_bool`` and
``parse_duration_ns`` are ``strconv`` and ``time`` with their errors, ``duration`` is ``Duration.String``,
``json_string`` is ``encoding/json``, ``clean_path`` is ``path``, ``tls_alert`` and ``tls_pair`` are
``crypto/tls``.

Text is ``str`` with undecodable bytes as surrogate escapes (:func:`text`, :func:`raw`): keys and values pass
through unchanged.
"""

from __future__ import annotations

import re

_ESCAPES = {"\a": "\\a", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\v": "\\v",
            '"': '\\"', "\\": "\\\\"}  # fmt: skip
# what OpenSSL calls otherwise than Go
_ALERTS = {
    "unknown ca": "unknown certificate authority", "certificate unknown": "unknown certificate",
    "certificate expired": "expired certificate", "certificate revoked": "revoked certificate",
    "decrypt error": "error decrypting message", "protocol version": "protocol version not supported",
}
_PAIRS = {
    "KEY_VALUES_MISMATCH": "private key does not match public key",
    "NO_CERTIFICATE_ASSIGNED": "private key type does not match public key type",
}
_UNESCAPES = {"a": 7, "b": 8, "f": 12, "n": 10, "r": 13, "t": 9, "v": 11, "\\": 92, "'": 39, '"': 34}


class GoError(ValueError):
    """Go could not parse a text; the message is Go's."""


def text(data: bytes) -> str:
    """Bytes as printable text; what is not UTF-8 survives a round trip through :func:`raw`."""
    return data.decode("utf-8", "surrogateescape")


def raw(value: str) -> bytes:
    return value.encode("utf-8", "surrogateescape")


def quote(value: str | bytes) -> str:
    """Go's ``%q``."""
    source = text(value) if isinstance(value, bytes) else value
    if source.isascii() and source.isprintable() and '"' not in source and "\\" not in source:
        return f'"{source}"'
    return f'"{"".join(_ESCAPES.get(c) or (c if c.isprintable() else _escaped(ord(c))) for c in source)}"'


def quote_char(char: str) -> str:
    """A character as ``encoding/json``'s errors show it."""
    return r"'\''" if char == "'" else "'\"'" if char == '"' else f"'{quote(char)[1:-1]}'"


def _escaped(code: int) -> str:
    if 0xDC80 <= code <= 0xDCFF:  # a byte that is no UTF-8
        return f"\\x{code - 0xDC00:02x}"
    return f"\\x{code:02x}" if code < 0x20 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def hex_bytes(data: bytes) -> str:
    r"""``\x6b\x31``: keys and values with ``--hex``."""
    return "".join(f"\\x{byte:02x}" for byte in data)


_BACKSLASH = re.compile(
    r"\\(?:([abfnrtv\\'\"])|x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|([0-7]{3}))")


def unquote_prefix(source: str) -> tuple[bytes, str] | None:
    r"""The quoted string at the start of ``source`` and the rest; None if there is none.

    Go's forms: ``"..."`` with escapes, and back quotes without. An escaped byte (``\xff``) is that byte.
    """
    if source.startswith("`"):
        end = source.find("`", 1)
        return None if end < 0 else (raw(source[1:end]), source[end + 1 :])
    if not source.startswith('"'):
        return None
    out = bytearray()
    at = 1
    while at < len(source):
        char = source[at]
        if char == '"':
            return bytes(out), source[at + 1 :]
        if char == "\n":
            return None
        if char != "\\":
            out += raw(char)
            at += 1
            continue
        found = _BACKSLASH.match(source, at)
        if found is None or found[1] == "'":  # \' belongs to character literals
            return None
        if found[1]:
            out.append(_UNESCAPES[found[1]])
        elif found[2]:
            out.append(int(found[2], 16))
        elif found[5]:
            if int(found[5], 8) > 255:
                return None
            out.append(int(found[5], 8))
        else:
            code = int(found[3] or found[4], 16)
            if code > 0x10FFFF or 0xD800 <= code < 0xE000:
                return None
            out += chr(code).encode()
        at = found.end()
    return None


def parse_int(value: str, base: int = 10) -> int:
    """``strconv.ParseInt(value, base, 64)``; base 0 takes 0x, 0o, 0b, 0 prefixes and underscores."""
    number = _magnitude(value, value[1:] if value[:1] in ("+", "-") else value, base, "Int")
    number *= -1 if value[0] == "-" else 1
    if not -(1 << 63) <= number < 1 << 63:
        raise GoError(f"strconv.ParseInt: parsing {quote(value)}: value out of range")
    return number


def parse_uint(value: str, base: int = 10, bits: int = 64) -> int:
    """``strconv.ParseUint(value, base, bits)``, with the prefixes of ``parse_int``."""
    number = _magnitude(value, value, base, "Uint")
    if number >> bits:
        raise GoError(f"strconv.ParseUint: parsing {quote(value)}: value out of range")
    return number


def _magnitude(value: str, digits: str, base: int, kind: str) -> int:
    """The number of some digits without a sign; ``value`` and ``kind`` are named in the GoError."""
    shapes = {
        10: r"[0-9]+",
        16: r"[0-9a-fA-F]+",
        0: r"0[xX](?:_?[0-9a-fA-F])+|0[bB](?:_?[01])+|0[oO](?:_?[0-7])+|0(?:_?[0-7])*|[1-9](?:_?[0-9])*",
    }
    if not re.fullmatch(shapes[base], digits):
        raise GoError(f"strconv.Parse{kind}: parsing {quote(value)}: invalid syntax")
    actual = base
    if base == 0:
        digits = digits.replace("_", "").lower()
        actual = {"x": 16, "b": 2, "o": 8}.get(digits[1:2], 8 if digits[0] == "0" and len(digits) > 1 else 10)
        digits = digits[2:] if digits[1:2] in ("x", "b", "o") else digits
    return _whole(digits, actual)


def _whole(digits: str, base: int = 10) -> int:
    """Exact below 2^64, and not less beyond: Python's ``int`` refuses thousands of digits."""
    return int(digits.lstrip("0")[:65] or "0", base)


def parse_bool(value: str) -> bool:
    """``strconv.ParseBool``."""
    if value in ("1", "t", "T", "TRUE", "true", "True"):
        return True
    if value in ("0", "f", "F", "FALSE", "false", "False"):
        return False
    raise GoError(f"strconv.ParseBool: parsing {quote(value)}: invalid syntax")


_UNITS_NS = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,
    "μs": 1_000,
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "h": 3_600_000_000_000,
}


def parse_duration_ns(value: str) -> int:
    """``time.ParseDuration``: "1h15m30.918s" in nanoseconds."""
    invalid = GoError(f"time: invalid duration {quote(value)}")
    rest = value[1:] if value[:1] in ("+", "-") else value
    if rest == "0":
        return 0
    if not rest:
        raise invalid
    total = 0
    while rest:
        number = re.match(r"[0-9]*\.?[0-9]*", rest)
        if number is None or number[0] in ("", "."):
            raise invalid
        rest = rest[number.end() :]
        unit = re.match(r"[^.0-9]*", rest)
        name = unit[0] if unit else ""
        if not name:
            raise GoError(f"time: missing unit in duration {quote(value)}")
        if name not in _UNITS_NS:
            raise GoError(f"time: unknown unit {quote(name)} in duration {quote(value)}")
        rest = rest[len(name) :]
        whole, _, fraction = number[0].partition(".")
        fraction = fraction[:30]  # of hours, far below a nanosecond
        total += _whole(whole) * _UNITS_NS[name]
        if fraction:
            total += int(fraction) * _UNITS_NS[name] // 10 ** len(fraction)
    if total >= 1 << 63:
        raise invalid
    return -total if value[0] == "-" else total


def duration(ns: int) -> str:
    """``time.Duration.String``: "1.669271ms", "1m5s", "0s"."""
    if ns == 0:
        return "0s"
    sign, ns = ("-", -ns) if ns < 0 else ("", ns)
    for unit, size in (("ns", 1), ("µs", 1_000), ("ms", 1_000_000)):
        if ns < size * 1_000:
            return f"{sign}{_decimal(ns, size)}{unit}"
    seconds = _decimal(ns % 60_000_000_000, 1_000_000_000)
    minutes = ns // 60_000_000_000
    if minutes == 0:
        return f"{sign}{seconds}s"
    if minutes < 60:
        return f"{sign}{minutes}m{seconds}s"
    return f"{sign}{minutes // 60}h{minutes % 60}m{seconds}s"


def _decimal(value: int, size: int) -> str:
    whole, rest = divmod(value, size)
    if rest == 0:
        return str(whole)
    return f"{whole}.{str(rest).rjust(len(str(size)) - 1, '0').rstrip('0')}"


def si_bytes(size: int) -> str:
    """A size in SI units, one decimal below ten: "25 kB", "2.1 GB"."""
    if size < 10:
        return f"{size} B"
    exponent, scale = 0, 1
    while size >= scale * 1000 and exponent < 6:
        exponent, scale = exponent + 1, scale * 1000
    value = int(size / scale * 10 + 0.5) / 10
    digits = f"{value:.1f}" if value < 10 else f"{value:.0f}"
    return f"{digits} {('B', 'kB', 'MB', 'GB', 'TB', 'PB', 'EB')[exponent]}"


_SPECIAL = re.compile('[\x00-\x1f"\\\\<>&\u2028\u2029\udc80-\udcff]')
_LONG = 4096  # characters
_NAMED = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"}


def json_string(value: str) -> str:
    """As ``encoding/json``: HTML characters and line separators escaped, each byte that is no UTF-8
    ``\\ufffd``."""
    if _SPECIAL.search(value):
        value = json_escaped(raw(value)).decode() if len(value) > _LONG else _SPECIAL.sub(_in_json, value)
    return f'"{value}"'


def _in_json(found: re.Match[str]) -> str:
    character = found[0]
    if character >= "\udc80":
        return "\\ufffd"
    return _NAMED.get(character) or f"\\u{ord(character):04x}"


def json_escaped(text: bytes) -> bytes:
    """What stands between the quotes. Whatever octets it has, a megabyte takes 80 ms at most; character by
    character one takes 0.5 s."""
    for char, shown in _ESCAPED:
        text = text.replace(char, shown)
    if text.isascii():
        return text
    for char, shown in _LINE_ENDS:
        text = text.replace(char, shown)
    try:
        text.decode()
    except UnicodeDecodeError:  # each wrong octet becomes a "?", and NUL, which is escaped, a right one
        text = text.replace(b"?", b"\0").decode("utf-8", "surrogateescape").encode("utf-8", "replace")
        text = text.replace(b"?", b"\\ufffd").replace(b"\0", b"?")
    return text


def _shown(characters: str) -> list[tuple[bytes, bytes]]:
    return [(char.encode(), _SPECIAL.sub(_in_json, char).encode()) for char in characters]


_ESCAPED = _shown("\\" + "".join(map(chr, range(32))) + '"<>&')  # the backslash first: the others become some
_LINE_ENDS = _shown("\u2028\u2029")


def clean_path(path: str) -> str:
    """``path.Clean`` of a path from the root. Python's own ends a path at NUL, before 3.11.5."""
    if path[:1] == "/" and path[-1:] != "/" and "//" not in path and "/." not in path:
        return path
    parts: list[str] = []
    for part in path.split("/"):
        if part == "..":
            del parts[-1:]
        elif part not in ("", "."):
            parts.append(part)
    return f"/{'/'.join(parts)}"


def canonical_path(path: str) -> str:
    """The same, but a slash at its end stays."""
    clean = clean_path(path)
    return f"{clean}/" if path.endswith("/") and clean != "/" else clean


def prefix_end(prefix: bytes) -> bytes:
    r"""The range_end of all keys that start with ``prefix``; ``\0`` (no end) if none is larger."""
    stem = prefix.rstrip(b"\xff")
    return stem[:-1] + bytes([stem[-1] + 1]) if stem else b"\0"


def tls_alert(reason: str) -> str:
    """A peer's TLS alert, by OpenSSL's reason for the end of a handshake; "": it was no alert."""
    alert = reason.lower().replace("_", " ").partition("alert ")[2]
    return _ALERTS.get(alert, alert)


def tls_pair(reason: str) -> str:
    """Why a private key is not its certificate's, by OpenSSL's reason; "": it is another one."""
    return _PAIRS.get(reason, "")
