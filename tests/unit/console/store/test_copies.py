"""Files of keys, however they are made."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Iterator

import pytest

from tools.console.store.keys import copies, values
from tools.console.store.keys.copies import Malformed, parsed, written

PAIRS = [(b"/a", b"text"), (b"\x00\xff", b"\x80"), (b"/c", "ä\n".encode()), (b"/d", b"")]
LARGE = "the file has more than 100,000 keys or 64 MiB"


def same(text: str, times: int) -> bytes:
    """A YAML file of one value under many keys."""
    rows = [f"- {{key: k{at}, value: *v}}" for at in range(times)]
    return "\n".join([f'- {{key: k, value: &v "{text}"}}', *rows]).encode()


def merged(levels: int) -> str:
    """A mapping of ten to the power of some entries."""
    lines = ["- &m0 {a: 1}"]
    lines += [f"- &m{at} {{<<: [{', '.join([f'*m{at - 1}'] * 10)}]}}" for at in range(1, levels)]
    return "\n".join(lines)


@pytest.fixture
def taken() -> Iterator[None]:
    """No more memory than some megabytes."""
    tracemalloc.start()
    yield
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 8_000_000


@pytest.mark.parametrize("form", ["json", "yaml"])
def test_what_was_written_is_read(form: copies.FileForm) -> None:
    assert parsed(written(PAIRS, form)) == PAIRS


def test_a_value_under_a_few_keys_is_read() -> None:
    assert parsed(same("text", 2)) == [(b"k", b"text"), (b"k0", b"text"), (b"k1", b"text")]


@pytest.mark.usefixtures("taken")
def test_a_value_under_many_keys_does_not_use_up_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copies, "MOST_BYTES", 2_000_000)
    with pytest.raises(Malformed, match=LARGE):
        parsed(same("x" * 100_000, 1000))


@pytest.mark.usefixtures("taken")
def test_many_small_items_do_not_use_up_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copies, "_MOST_EVENTS", 1000)
    with pytest.raises(Malformed, match=LARGE):
        parsed(b"- a\n" * 100_000)


def test_a_file_has_so_many_keys_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copies, "MOST_KEYS", 3)
    for form in ("json", "yaml"):
        assert len(parsed(written(PAIRS[:3], form))) == 3
        with pytest.raises(Malformed, match=LARGE):
            parsed(written(PAIRS, form))


@pytest.mark.usefixtures("taken")
def test_many_small_objects_do_not_use_up_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copies, "MOST_KEYS", 1000)
    with pytest.raises(Malformed, match=LARGE):
        parsed(b"[" + b"{}," * 500_000 + b"{}]")


@pytest.mark.usefixtures("taken")
def test_mappings_are_not_merged() -> None:
    with pytest.raises(Malformed, match="an item has no key"):
        parsed(merged(9).encode())
    text = f"{merged(9)}\n"
    assert values.show(text.encode(), "yaml").text == text
    assert values.read(text, "yaml") == text.encode()


@pytest.mark.parametrize("file", [b"a: 1", b"- 1", b"[[", b"\xff", json.dumps([{"key": "a"}]).encode(), b""])
def test_other_files_are_refused(file: bytes) -> None:
    with pytest.raises(Malformed):
        parsed(file)
