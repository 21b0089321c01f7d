"""Lines of the v2 API are split as etcdctl splits them, and an interrupt ends its endless commands quietly.

tests/interop compares whole commands with etcdctl.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tools.musterctl.v2.commands import backup
from tools.musterctl.v2.line import LineError, Option, options_first, parse

TTL = Option(("ttl",), "int", "", "0")
RECURSIVE = Option(("recursive", "r"), "bool", "")
ROLES = Option(("roles",), "list", "")
OPTIONS = [TTL, RECURSIVE, ROLES]


def split(*words: str) -> tuple[int, bool, list[str]]:
    values, rest = parse(OPTIONS, options_first(OPTIONS, words))
    return values.number("ttl"), values.switch("recursive"), rest


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("k v --ttl 5", (5, False, ["k", "v"])),
        ("-ttl=0x10 k -r v", (16, True, ["k", "v"])),
        ("k -v", (0, False, ["k", "-v"])),
        ("-- k -r", (0, False, ["k", "-r"])),
        ("k -- -r", (0, False, ["k", "--", "-r"])),
        ("-r k --ttl 3 v", (3, True, ["k", "v"])),
        ("-r=false k", (0, False, ["k"])),
        ("-", (0, False, ["-"])),
    ],
)
def test_options_stand_before_or_after_arguments(words: str, found: tuple[int, bool, list[str]]) -> None:
    assert split(*words.split()) == found


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("-x k", "flag provided but not defined: -x"),
        ("--ttl", "flag needs an argument: -ttl"),
        ("k --ttl", 'invalid value "k" for flag -ttl: parse error'),
        ("k --ttl x", 'invalid value "x" for flag -ttl: parse error'),
        (
            "k --ttl 99999999999999999999",
            'invalid value "99999999999999999999" for flag -ttl: value out of range',
        ),
        ("-r=maybe", 'invalid boolean value "maybe" for -r: parse error'),
        ("---x", "bad flag syntax: ---x"),
        ("-r --recursive", "Cannot use two forms of the same flag: r recursive"),
    ],
)
def test_a_wrong_line_is_told_in_gos_words(words: str, message: str) -> None:
    with pytest.raises(LineError) as error:
        split(*words.split())
    assert str(error.value) == message


def test_a_list_grows_with_every_option() -> None:
    values, rest = parse(OPTIONS, ["--roles", "a", "--roles=b,c", "u"])
    assert (values.strings("roles"), rest) == (["a", "b,c"], ["u"])


_INTERRUPTED_WHILE_IT_PRINTS = """
import io, os, signal, sys
from tools.musterctl.v2.output import end_at_interrupt

class Terminal(io.RawIOBase):
    def writable(self):
        return True

    def write(self, data):
        written = os.write(1, data)
        signal.raise_signal(signal.SIGINT)
        return written

sys.stdout = io.TextIOWrapper(io.BufferedWriter(Terminal()))
end_at_interrupt()
sys.stdout.write("a change\\n")
sys.stdout.flush()
sys.exit(3)
"""


def test_an_interrupt_in_the_middle_of_a_line_ends_it_without_a_traceback() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", _INTERRUPTED_WHILE_IT_PRINTS], capture_output=True, timeout=60, check=False
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, b"a change\n", b"")


def test_the_names_of_a_backup_are_on_the_disk_when_it_takes_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A backup that was told is there after a power cut."""
    synced: list[tuple[str, bool]] = []

    def fsync(fd: int) -> None:
        there = (tmp_path / "to" / "member").exists()
        synced.append((os.readlink(f"/proc/self/fd/{fd}"), there))

    aside = backup._aside(tmp_path / "to")
    (aside / "data" / "member").mkdir(parents=True)
    monkeypatch.setattr(os, "fsync", fsync)
    backup._take_place(aside, tmp_path / "to", None)
    assert synced == [(str(tmp_path / "to"), True), (str(tmp_path), True)]
