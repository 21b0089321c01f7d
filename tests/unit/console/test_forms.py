"""Keys as addresses, values as texts, files of keys, and commands to paste."""

from __future__ import annotations

import itertools
import json
import shlex
import subprocess
import time
from typing import Any

import muster_client as m
import pytest
from fastapi import Request
from hypothesis import assume, example, given
from hypothesis import strategies as st

from tools.console import names
from tools.console.store.hub import Told
from tools.console.store.keys import commands, copies, edits, tree, values
from tools.console.views import live, shell
from tools.console.views.value import preview

KEYS = st.binary(min_size=1, max_size=40) | st.text(min_size=1, max_size=20).map(str.encode)


@given(KEYS)
@example(b"0x61")
@example(b"a..b")
def test_what_is_shown_of_a_key_names_it(key: bytes) -> None:
    assert names.key_of(names.shown(key)) == key


@given(KEYS, st.integers(0, 3))
@example(b"/a//b", 0)
@example(b"/a/../b", 0)
@example(b"/a/", 1)
@example(b"/%41?#", 2)
def test_an_address_leads_back_to_its_key(key: bytes, revision: int) -> None:
    address = names.address("keys", key, rev=revision)
    assert names.parse_address(address) == ("keys", key, {"rev": str(revision)} if revision else {})


def test_an_address_is_read_as_the_browser_sent_it() -> None:
    """A key's own ``%41`` is none of the address's."""
    scope = {"type": "http", "path": "/keys/a%41", "raw_path": b"/keys/a%2541", "query_string": b"rev=7",
             "headers": [(b"host", b"127.0.0.1")], "scheme": "http", "method": "GET"}  # fmt: skip
    path = shell.path_of(Request(scope))
    assert names.parse_address(path) == ("keys", b"/a%41", {"rev": "7"})


@pytest.mark.parametrize("path", ["//[", "//evil.example/keys", "/keys?%", "?", ""])
def test_any_address_can_be_read(path: str) -> None:
    names.parse_address(path)


@pytest.mark.parametrize(
    ("text", "revision"),
    [("42", 42), ("", 0), ("-1", 0), ("²", 0), ("٤", 0), (str(2**63 - 1), 2**63 - 1), (str(2**63), 0),
     ("9" * 5000, 0)],
)  # fmt: skip
def test_a_revision_is_one_that_a_store_can_have(text: str, revision: int) -> None:
    assert names.revision_of(text) == revision


def test_of_a_large_value_only_what_is_shown_is_kept() -> None:
    change = m.Put(m.KeyValue(b"/a", "é".encode() * 500_000, 5, 5, 1))
    kept = live.seen(1, 0.0, change)
    assert kept.value == "é" * 100 + "…"
    assert kept.kind == "create"
    binary = m.Put(m.KeyValue(b"/a", b"\x00\xff" * 500_000, 5, 6, 2))
    assert live.seen(2, 0.0, binary).value == f"0x{'00ff' * 25}…"


@pytest.mark.parametrize(
    ("value", "text"),
    [(b"a\nb", "a b"), (b"\xff", "0xff"), (b"x\xc3", "x"), (b"k8s\0a", "0x6b38730061"), (b"", "")],
)
def test_a_preview_is_one_line(value: bytes, text: str) -> None:
    assert preview(value) == text


def test_addresses_can_be_read() -> None:
    assert names.address("keys", b"/service/web/10.0.0.1", rev=42) == "/keys/service/web/10.0.0.1?rev=42"
    assert names.address("live") == "/live"


def test_a_search_is_a_prefix_or_a_range() -> None:
    assert names.search("/a/") == m.prefix("/a/")
    assert names.search("") == m.EVERYTHING
    assert names.search("a..c") == m.span("a", "c")
    assert names.search("a..") == m.since("a")
    assert names.search("0xff00") == m.prefix(b"\xff\x00")
    with pytest.raises(ValueError, match="no key lies between"):
        names.search("c..a")
    assert [names.range_text(names.search(text)) for text in ("/a/", "", "a..c", "a..")] == [
        "/a/", "", "a..c", "a.."]  # fmt: skip


@given(st.binary(min_size=1, max_size=6) | st.text("a. ", min_size=1, max_size=5).map(str.encode),
       st.none() | st.binary(min_size=1, max_size=6) | st.text("a. ", min_size=1, max_size=5).map(str.encode))
@example(b"/a..b/", None)
@example(b"a.", b"b")
def test_what_a_range_is_called_finds_it(start: bytes, end: bytes | None) -> None:
    assume(end is None or start < end)
    keys = m.prefix(start) if end is None else m.span(start, end)
    assert names.search(names.range_text(keys)) == keys


@given(st.binary(max_size=30).map(lambda name: b"/a/" + name))
def test_directories_lead_to_their_keys(key: bytes) -> None:
    steps = [b"", *tree.parents(key)]
    for above, below in itertools.pairwise(steps):
        assert tree.child(above, key) == (below, True)
    assert tree.child(steps[-1], key) == (key, False)


def test_a_slash_in_front_belongs_to_a_name() -> None:
    assert tree.parents(b"/a/b/c") == [b"/a/", b"/a/b/"]
    assert tree.parents(b"plain") == []
    assert tree.parents(b"/a//b") == [b"/a/"]


@pytest.mark.parametrize(
    ("value", "form"),
    [
        (b"text", "text"),
        (b'{"a": 1}', "json"),
        (b"{no json", "text"),
        (b"\x00\x01", "hex"),
        (b"\xff", "hex"),
        (b"k8s\0\n\x00", "protobuf"),
        ("文".encode() * values.SHOWN_BYTES, "text"),
        (b"[" * 100_000 + b"]" * 100_000, "text"),
        (b"[" * 5000, "text"),
        (b"k8s\0damaged\x00", "hex"),
        (b"k8s\0\n\x00\x12\xb0\x90\x1f" + b"\n\x01a" * 170_000, "hex"),
    ],
)
def test_the_form_of_a_value_is_guessed(value: bytes, form: str) -> None:
    assert values.guessed(value) == form


@given(st.binary(max_size=200))
def test_hex_gives_the_value_back(value: bytes) -> None:
    assert values.read(values.show(value, "hex").text, "hex") == value


@given(st.binary(max_size=60) | st.binary(max_size=60).map(lambda value: values.KUBERNETES + value))
def test_a_value_has_the_form_that_is_guessed(value: bytes) -> None:
    assert values.show(value, values.guessed(value)).form == values.guessed(value)


@pytest.mark.parametrize("depth", range(900, 1000, 5))
def test_json_that_is_as_deep_as_can_be_is_shown_all_the_same(depth: int) -> None:
    """What reads it can go deeper than what writes it."""
    value = b"[" * depth + b"]" * depth
    text = values.readable(value, values.guessed(value)).text
    assert "".join(text.split()).encode() == value


@pytest.mark.parametrize("value", [b"\x00" * 40_000, b"x" * 300_000, "文".encode() * 100_000, b'{"a": 1}'])
def test_a_value_is_copied_whole(value: bytes) -> None:
    form = values.guessed(value)
    assert values.read(values.whole(value, form), form, value) == value


def test_hex_is_read_with_and_without_its_places() -> None:
    for text in ("41 42  43", "414243", "00000000  41 42 43  |ABC|", "00000000  41 42\n43"):
        assert values.read(text, "hex") == b"ABC"


def test_half_a_character_is_not_saved() -> None:
    with pytest.raises(values.NotSo):
        values.read("a\ud83d", "text")


@given(st.text(max_size=200))
def test_text_gives_the_value_back(text: str) -> None:
    assert values.read(values.show(text.encode(), "text").text, "text") == text.encode()


@pytest.mark.parametrize("value", [b"a=1\r\nb=2\r\n", b"a\rb", b'{"a":1,\r\n"a":2}'])
def test_what_the_browser_s_editor_would_change_is_edited_as_hex(value: bytes) -> None:
    """It counts a carriage return and a line feed as one character, and the server as two."""
    assert not values.show(value, values.guessed(value)).editable
    assert not values.show(value, "yaml").editable
    assert values.show(value, "hex").editable


@given(st.binary(max_size=60), st.sampled_from(values.FORMS))
@example(b"[" * 5000, "json")
@example(b"a: &a [*a]", "yaml")
def test_a_value_has_a_form_or_says_why_not(value: bytes, form: values.Form) -> None:
    try:
        shown = values.show(value, form)
    except values.NotSo:
        return
    assert shown.form == form


@pytest.mark.parametrize(
    "value",
    [b'{"a":1,"b":[1,2.5]}', b'{"a": 1, "b": [1, 2.5]}', b'{\n  "a": 1\n}', b'{"a":1.10}',
     b'{"a":1,"a":2}', b"[1e400]", b'["\xc3\xa4"]', b"12345678901234567890123", b'{"a":"\\ud83d"}',
     b'{"\\uDE00":[1]}'],
)  # fmt: skip
def test_json_that_is_not_changed_is_not_changed(value: bytes) -> None:
    shown = values.show(value, "json")
    shown.text.encode()  # a browser takes nothing else
    assert shown.editable
    assert values.read(shown.text, "json", value) == value


def test_two_escapes_that_are_one_character_are_shown_as_it() -> None:
    value = rb'{"a":"\ud83d\ude00"}'
    shown = values.show(value, "json")
    assert json.loads(shown.text) == json.loads(value)
    assert "\N{GRINNING FACE}" in shown.text


def test_yaml_keeps_its_comments_and_json_is_not_made_yaml() -> None:
    assert values.show(b"# why\na:   1\n", "yaml") == values.Shown("yaml", "# why\na:   1\n")
    assert not values.show(b'{"a": 1}', "yaml").editable


@pytest.mark.parametrize(
    "text", ["a: [", "a: 2024-02-30\n", "[" * 5000, "!!int ''", "!!bool x", "!!timestamp x",
             "!!float " + ":".join(["59"] * 300)]
)
def test_what_is_no_yaml_is_not_saved_as_such(text: str) -> None:
    with pytest.raises(values.NotSo):
        values.read(text, "yaml")
    with pytest.raises(values.NotSo):
        values.show(text.encode(), "yaml")
    with pytest.raises(copies.Malformed):
        copies.parsed(f"x: {text}".encode())


def test_an_equals_sign_is_a_word_of_yaml() -> None:
    assert values.read("=: 1\na: =\n", "yaml") == b"=: 1\na: =\n"
    assert copies.parsed(b"- {key: =, value: =}") == [(b"=", b"=")]


def test_what_is_nested_too_deep_to_be_written_as_yaml_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def too_deep(*_: object, **__: object) -> str:
        raise RecursionError

    monkeypatch.setattr(values.yaml, "dump", too_deep)
    with pytest.raises(values.NotSo):
        values.show(b"[[[[[[1]]]]]]", "yaml")


def test_a_warning_of_the_live_view_is_drawn_once() -> None:
    drawn: list[str] = []
    view: Any = object.__new__(live.Live)
    view.missed, view.warned, view.paused = False, ("", False), True
    view._warn = drawn.append
    for told in (Told(), Told(missed=True), Told(), Told(error="away"), Told(error="away"), Told()):
        view._told(told)
    assert drawn == ["", "away", ""]


def test_yaml_that_is_shown_again_is_not_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = values.show(b"a: 1 # once", "yaml")
    monkeypatch.setattr(values.yaml, "load", None)
    assert values.show(b"a: 1 # once", "yaml") == shown


def test_an_envelope_of_kubernetes_is_named() -> None:
    meta = b"\n\x02v1\x12\x03Pod"
    pod = b"\n\x06\n\x04name"
    value = b"k8s\0" + b"\n" + bytes([len(meta)]) + meta + b"\x12" + bytes([len(pod)]) + pod
    shown = values.show(value, "protobuf")
    assert shown.kind == "v1 Pod"
    assert "name" in shown.text


def test_a_long_value_is_cut_and_says_so() -> None:
    shown = values.show(b"x" * (values.SHOWN_BYTES + 1), "json")
    assert (shown.form, shown.whole, len(shown.text)) == ("text", False, values.SHOWN_BYTES)


@given(st.lists(st.tuples(KEYS, st.binary(max_size=30) | st.text(max_size=30).map(str.encode)), max_size=5),
       st.sampled_from(["json", "yaml"]))  # fmt: skip
def test_a_file_gives_its_keys_back(pairs: list[copies.Pair], form: copies.FileForm) -> None:
    assert copies.parsed(copies.written(pairs, form)) == pairs


@pytest.mark.parametrize(
    "file",
    [
        b"{}",
        b"[1]",
        b'[{"key": "a"}]',
        b'[{"value": "a"}]',
        b"\xff",
        b"- {",
        b'[{"key":"a","value_base64":"!"}]',
        b'[{"key":"a","value":"\\ud83d"}]',
        b'[{"key":"\\ud83d","value":""}]',
        b'[{"key":"\\ud83d"}]',
    ],
)
def test_a_file_of_something_else_is_refused(file: bytes) -> None:
    with pytest.raises(copies.Malformed) as refusal:
        copies.parsed(file)
    str(refusal.value).encode()  # a browser takes nothing else


@pytest.mark.parametrize("key", [b"/a", b"it's", b"$(rm) `x`", b"\x01'", b"-f"])
def test_a_command_has_its_key_as_one_word(key: bytes) -> None:
    line = commands.etcdctl("127.0.0.1:2379", key, b"a b").replace("etcdctl", "printf '%s|'", 1)
    said = subprocess.run(["bash", "-c", line], capture_output=True, check=True).stdout.split(b"|")
    assert key in said
    assert b"a b" in said
    assert (b"--" in said) is key.startswith(b"-")
    assert " put -- key -v" in commands.etcdctl("127.0.0.1:2379", b"key", b"-v")
    assert key.decode() not in shlex.split(commands.curl("127.0.0.1:2379", key))
    compile(commands.python("127.0.0.1:2379", key, b"\xff"), "command", "exec")


def test_a_zero_byte_goes_whole_into_a_command_or_not_at_all() -> None:
    """A shell's word ends before it: etcdctl put 'k8s' over a Kubernetes object."""
    line = commands.etcdctl("127.0.0.1:2379", b"-a", b"k8s\x00\n")
    line = line.replace("etcdctl", """bash -c 'printf "%s|" "$@"; cat' -""", 1)
    said = subprocess.run(["bash", "-c", line], capture_output=True, check=True, input=b"").stdout
    assert said == b"--endpoints|127.0.0.1:2379|put|--|-a|k8s\x00\n"
    for value in (None, b"b"):
        assert commands.etcdctl("127.0.0.1:2379", b"a\x00b", value).startswith("# ")


def test_a_difference_shows_what_changed() -> None:
    old = "\n".join(str(n) for n in range(40))
    new = old.replace("5", "five", 1).replace("39", "end")
    lines = edits.diff(old, new)
    assert ("-", "5") in lines
    assert ("+", "five") in lines
    assert ("@", "") in lines
    assert edits.diff(old, old) == []
    assert edits.diff("", "a") == [("+", "a")]


def test_a_difference_of_line_ends_is_one() -> None:
    no_end = ("\\", "")
    assert edits.diff("x\na\n", "x\na") == [(" ", "x"), ("-", "a"), ("+", "a"), no_end]
    assert edits.diff("a", "a\n") == [("-", "a"), no_end, ("+", "a")]
    assert edits.diff("a", "a\nb") == [(" ", "a"), ("+", "b")]
    assert edits.diff("", "\n") == [("+", "")]
    assert edits.diff("a\r\nb", "a\nb") == [("-", "a\r"), ("+", "a"), (" ", "b")]


def test_large_texts_are_compared_at_once() -> None:
    """The time for it grows with the square of what differs."""
    began_s = time.monotonic()
    few = [str(n % 200) for n in range(60_000)]
    assert [line for line in edits.diff("\n".join(few), "\n".join([*few[:500], "new", *few[500:]]))
            if line[0] != " "] == [("+", "new")]  # fmt: skip
    for step in (2, 60_000):
        other = [f"{line}!" if n % step == 0 else line for n, line in enumerate(few)][::-1]
        lines = edits.diff("\n".join(few), "\n".join(other))
        assert {sign for sign, _ in lines} <= {"-", "+"}
    assert time.monotonic() - began_s < 10


@given(st.text("a\n\r\u2028", max_size=5), st.text("a\n\r\u2028", max_size=5))
def test_texts_that_differ_have_a_difference(old: str, new: str) -> None:
    """Without one nothing can be saved."""
    assert bool(edits.diff(old, new)) == (old != new)
