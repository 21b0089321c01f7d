"""Go's text forms, against what Go prints."""

from __future__ import annotations

import posixpath
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster import gotext


@pytest.mark.parametrize(
    ("value", "quoted"),
    [
        (b"", '""'),
        (b"plain", '"plain"'),
        (b'a"b\\c', r'"a\"b\\c"'),
        (b"\a\b\f\n\r\t\v", r'"\a\b\f\n\r\t\v"'),
        (b"\x00\x1f", r'"\x00\x1f"'),
        (b"\x7f", r'"\u007f"'),
        (b"\xff\xc3", r'"\xff\xc3"'),
        ("\u00e9\u4e16\U0001f600".encode(), '"\u00e9\u4e16\U0001f600"'),
        ("\u2028\u00a0\U000e0001".encode(), r'"\u2028\u00a0\U000e0001"'),
        ("\ufffd".encode(), '"\ufffd"'),
    ],
)
def test_quoting_escapes_what_go_escapes(value: bytes, quoted: str) -> None:
    assert gotext.quote(value) == quoted


@given(st.binary())
def test_what_was_quoted_can_be_read_again(value: bytes) -> None:
    assert gotext.unquote_prefix(gotext.quote(value) + " rest") == (value, " rest")


@given(st.binary())
def test_bytes_of_any_kind_survive_as_text(value: bytes) -> None:
    assert gotext.raw(gotext.text(value)) == value


@pytest.mark.parametrize(
    "source", ['"open', "bare", r'"\q"', r'"\'"', r'"\ud800"', r'"\400"', '"a\nb"', "`open", ""]
)
def test_no_quoted_string_is_read_from_a_malformed_one(source: str) -> None:
    assert gotext.unquote_prefix(source) is None


def test_back_quotes_hold_a_string_without_escapes() -> None:
    assert gotext.unquote_prefix(r"`a\n` x") == (rb"a\n", " x")
    assert gotext.unquote_prefix(r'"\101\x41\u0041\U00000041"') == (b"AAAA", "")


@pytest.mark.parametrize(
    ("value", "base", "number"),
    [
        ("0", 10, 0),
        ("-12", 10, -12),
        ("+7", 10, 7),
        ("ff", 16, 255),
        ("-1", 16, -1),
        ("0x1F", 0, 31),
        ("0b101", 0, 5),
        ("0o17", 0, 15),
        ("017", 0, 15),
        ("1_000", 0, 1000),
        ("9223372036854775807", 10, 2**63 - 1),
        ("-8000000000000000", 16, -(2**63)),
        ("0" * 5000 + "7", 10, 7),
        ("0b" + "0" * 5000 + "1" * 63, 0, 2**63 - 1),
    ],
)
def test_integers_are_read_as_go_reads_them(value: str, base: int, number: int) -> None:
    assert gotext.parse_int(value, base) == number


@pytest.mark.parametrize(
    ("value", "base", "reason"),
    [
        ("", 10, "invalid syntax"),
        ("x", 10, "invalid syntax"),
        ("0x9", 10, "invalid syntax"),
        ("1_0", 10, "invalid syntax"),
        ("08", 0, "invalid syntax"),
        ("--1", 10, "invalid syntax"),
        ("\u0663", 10, "invalid syntax"),
        ("9223372036854775808", 10, "value out of range"),
        pytest.param("9" * 5000, 10, "value out of range", id="digits"),
        pytest.param("-" + "9" * 5000, 0, "value out of range", id="negative"),
    ],
)
def test_a_bad_integer_is_named_with_gos_reason(value: str, base: int, reason: str) -> None:
    with pytest.raises(gotext.GoError) as caught:
        gotext.parse_int(value, base)
    assert str(caught.value) == f'strconv.ParseInt: parsing "{value}": {reason}'


@pytest.mark.parametrize(("value", "bits"), [("0", 64), ("0xffff_ffff", 32), ("18446744073709551615", 64)])
def test_numbers_without_a_sign_have_all_their_bits(value: str, bits: int) -> None:
    assert gotext.parse_uint(value, 0, bits) == int(value, 0)


@pytest.mark.parametrize(
    ("value", "bits", "reason"),
    [
        ("-1", 64, "invalid syntax"),
        ("+1", 64, "invalid syntax"),
        ("x", 32, "invalid syntax"),
        ("4294967296", 32, "value out of range"),
        ("18446744073709551616", 64, "value out of range"),
        pytest.param("9" * 5000, 64, "value out of range", id="digits"),
    ],
)
def test_a_bad_number_without_a_sign_is_named_with_gos_reason(value: str, bits: int, reason: str) -> None:
    with pytest.raises(gotext.GoError) as caught:
        gotext.parse_uint(value, 0, bits)
    assert str(caught.value) == f'strconv.ParseUint: parsing "{value}": {reason}'


@pytest.mark.parametrize(
    ("ns", "shown"),
    [
        (0, "0s"),
        (1, "1ns"),
        (1_500, "1.5µs"),
        (1_669_271, "1.669271ms"),
        (100_000_000, "100ms"),
        (5_000_904_946, "5.000904946s"),
        (65_000_000_000, "1m5s"),
        (3_600_000_000_000, "1h0m0s"),
        (-1_500_000_000, "-1.5s"),
    ],
)
def test_durations_are_shown_and_read_as_in_go(ns: int, shown: str) -> None:
    assert gotext.duration(ns) == shown
    assert gotext.parse_duration_ns(shown) == ns


@pytest.mark.parametrize(("value", "ns"), [("0" * 5000 + "7s", 7 * 10**9), ("0." + "5" * 5000 + "us", 555)])
def test_digits_without_end_are_a_duration(value: str, ns: int) -> None:
    assert gotext.parse_duration_ns(value) == ns


@given(st.integers(-(2**62), 2**62))
def test_every_duration_that_is_shown_reads_as_itself(ns: int) -> None:
    assert gotext.parse_duration_ns(gotext.duration(ns)) == ns


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("5", 'time: missing unit in duration "5"'),
        ("x", 'time: invalid duration "x"'),
        ("", 'time: invalid duration ""'),
        (".s", 'time: invalid duration ".s"'),
        pytest.param("9" * 5000 + "s", f'time: invalid duration "{"9" * 5000}s"', id="digits"),
        ("5q", 'time: unknown unit "q" in duration "5q"'),
    ],
)
def test_a_bad_duration_is_named_with_gos_reason(value: str, message: str) -> None:
    with pytest.raises(gotext.GoError) as caught:
        gotext.parse_duration_ns(value)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("size", "shown"),
    [
        (0, "0 B"),
        (9, "9 B"),
        (10, "10 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (20480, "20 kB"),
        (24576, "25 kB"),
        (2_147_483_648, "2.1 GB"),
        (9_950_000, "10 MB"),
    ],
)
def test_sizes_are_humanized_in_si_units(size: int, shown: str) -> None:
    assert gotext.si_bytes(size) == shown


def test_json_strings_escape_what_go_escapes() -> None:
    assert (
        gotext.json_string('<a>&"\\\n\x01\u2028\u00e9')
        == '"\\u003ca\\u003e\\u0026\\"\\\\\\n\\u0001\\u2028\u00e9"'
    )
    assert gotext.json_string(gotext.text(b"\xff")) == '"\\ufffd"'


@pytest.mark.parametrize("seed", range(5))
def test_long_json_strings_are_escaped_as_short_ones(seed: int) -> None:
    chance = Random(seed)
    pieces = [bytes((octet,)) for octet in range(256)]
    pieces += [b"\xe2\x80\xa8", b"\xe2\x80\xa9", b"\xe2\x80", b"\xc3\xa4", b"\xed\xa0\x80",
               b"\xf0\x9f\x98\x80", b"\xef\xbf\xbd", b"\xc0\x80", b"\xf4\x90\x80\x80"] * 9  # fmt: skip
    for _ in range(2000):
        value = b"".join(chance.choices(pieces, k=chance.randint(0, 9)))
        short = gotext.json_string(gotext.text(value))
        assert f'"{gotext.json_escaped(value).decode()}"' == short
    value = b"".join(chance.choices(pieces, k=5000))
    whole = "".join(gotext.json_string(char)[1:-1] for char in gotext.text(value))
    assert gotext.json_string(gotext.text(value)) == f'"{whole}"'


@pytest.mark.parametrize(("path", "canonical"), [
    ("a", "/a"), ("/a/", "/a/"), ("//a/./b/../c", "/a/c"), ("/", "/"), ("", "/"), ("/..", "/"), ("//", "/"),
    ("/a/.", "/a"), ("/.b//", "/.b/"), ("/a\0b/./", "/a\0b/"),
])  # fmt: skip
def test_a_path_has_no_empty_and_dotted_parts(path: str, canonical: str) -> None:
    assert gotext.canonical_path(path) == canonical
    assert gotext.clean_path(path) == (canonical.rstrip("/") or "/")


def test_paths_are_cleaned_as_by_python_where_it_is_right() -> None:
    chance = Random(1)
    for _ in range(5000):
        path = "".join(chance.choices(("/", ".", "..", "a", "/a"), k=chance.randint(0, 9)))
        assert gotext.clean_path(path) == posixpath.normpath("/" + path.lstrip("/"))


def test_openssls_reasons_are_told_in_the_words_of_gos_tls() -> None:
    assert gotext.tls_alert("TLSV1_ALERT_UNKNOWN_CA") == "unknown certificate authority"
    assert gotext.tls_alert("SSLV3_ALERT_CERTIFICATE_EXPIRED") == "expired certificate"
    assert gotext.tls_alert("SSLV3_ALERT_BAD_CERTIFICATE") == "bad certificate"
    assert gotext.tls_alert("WRONG_VERSION_NUMBER") == ""
    assert gotext.tls_pair("KEY_VALUES_MISMATCH") == "private key does not match public key"
    assert gotext.tls_pair("NO_START_LINE") == ""
