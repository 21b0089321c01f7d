"""When a host is short of room, and when the store is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cluster.settings import NodeSettings
from node.storage.options import LOG_BESIDE
from node.upkeep.space import disks as space
from node.upkeep.space.disks import ENOUGH, GONE, SHORT, VERY_SHORT, Space, of_store

HOSTS = (1, 2, 3)


def host_1(path: Path | str = "/", margin: int = 0) -> Space:
    return Space(1, str(path), most_log_bytes=800, margin_bytes=margin)


@pytest.mark.parametrize(
    ("kept", "level"), [(0, ENOUGH), (399, ENOUGH), (400, SHORT), (599, SHORT), (600, VERY_SHORT)]
)
def test_half_of_what_the_log_may_take_is_headroom(kept: int, level: int) -> None:
    host = host_1()
    assert host.look(kept, 0) is bool(level)
    assert host.own == level
    assert bool(host.why) == bool(level)
    assert not host.look(kept, 0)


@pytest.mark.parametrize(("files", "level"), [(599, ENOUGH), (600, SHORT), (799, SHORT), (800, VERY_SHORT)])
def test_files_that_take_more_than_they_may_count_too(files: int, level: int) -> None:
    host = host_1()
    host.look(100, files)
    assert host.own == level
    assert bool(host.why) == bool(level)


@pytest.mark.parametrize(
    ("buffer", "bound"), [(32 << 20, 4 << 30), (32 << 20, 256 << 20), (1 << 20, 256 << 20)]
)
def test_the_files_beside_what_is_kept_take_a_quarter_of_the_bound(buffer: int, bound: int) -> None:
    common: Any = None
    settings = NodeSettings(common, 0, "", "", 0, write_buffer_bytes=buffer, order_log_bytes=bound)
    size = space.log_buffer_bytes(settings)
    assert size * LOG_BESIDE <= bound // 4
    assert size in (buffer * 3 // 2, bound // 4 // LOG_BESIDE)
    assert space.log_buffer_bytes(replace(settings, shard=1)) == buffer * 3 // 2


@pytest.mark.parametrize(("free", "level"), [(1000, ENOUGH), (999, SHORT), (500, SHORT), (499, VERY_SHORT)])
def test_a_margin_of_free_space_is_kept(monkeypatch: pytest.MonkeyPatch, free: int, level: int) -> None:
    monkeypatch.setattr(space, "free_bytes", lambda path: free)
    host = host_1(margin=1000)
    host.look(0, 0)
    assert host.own == level
    assert host_1().look(0, 0) is False  # without a margin the file system is not looked at


def test_free_space_is_what_a_user_may_write(tmp_path: Path) -> None:
    assert 0 < space.free_bytes(str(tmp_path)) < 1 << 60
    host = host_1(tmp_path / "gone", margin=1 << 62)
    assert not host.look(0, 0)


@pytest.mark.parametrize(("levels", "store"), [
    ((0, 0, 0), ENOUGH), ((2, 0, 0), ENOUGH), ((1, 1, 0), SHORT), ((1, 2, 0), SHORT), ((2, 2, 0), VERY_SHORT),
    ((0,), ENOUGH), ((1,), SHORT), ((0, 1), SHORT), ((0, 0, 0, 2, 2), ENOUGH), ((0, 0, 1, 2, 2), SHORT)])
def test_the_store_is_short_once_those_that_are_not_are_no_majority(
    levels: tuple[int, ...], store: int
) -> None:
    assert of_store(dict(enumerate(levels))) == store


def test_a_host_that_is_silent_counts_as_gone_after_a_while() -> None:
    host = host_1()
    host.look(400, 0)
    levels = host.of_hosts(HOSTS, {2: 100.0, 3: 91.0}, 100.0)
    assert levels == {1: SHORT, 2: ENOUGH, 3: ENOUGH}
    assert of_store(levels) == ENOUGH
    levels = host.of_hosts(HOSTS, {2: 101.0, 3: 91.0}, 101.0)
    assert levels == {1: SHORT, 2: ENOUGH, 3: GONE}
    assert of_store(levels) == SHORT


def test_what_others_say_counts_until_they_say_it_no_more() -> None:
    host = host_1()
    host.came(2, bytes((VERY_SHORT,)), 50.0)
    host.came(3, bytes((SHORT,)), 50.0)
    heard = {2: 60.0, 3: 60.0}
    assert host.of_hosts(HOSTS, heard, 54.0) == {1: ENOUGH, 2: VERY_SHORT, 3: SHORT}
    assert host.of_hosts(HOSTS, heard, 55.0) == {1: ENOUGH, 2: ENOUGH, 3: ENOUGH}


@pytest.mark.parametrize("data", [b"", b"\x03", b"\x01\x01"])
def test_a_frame_that_says_something_else_is_broken(data: bytes) -> None:
    with pytest.raises(ValueError):
        host_1().came(2, data, 0.0)


def test_a_word_whose_file_is_removed_is_said_and_heard_again(tmp_path: Path) -> None:
    """What cleans /tmp may remove it: it is written at a change only, and a node that started then heard
    nothing, or the nodes that ran nothing new."""
    teller, hearer = space.Word(str(tmp_path)), space.Word(str(tmp_path))
    assert hearer.heard() == ENOUGH
    teller.tell(SHORT)
    assert hearer.heard() == SHORT
    (tmp_path / space.SPACE).unlink()
    assert hearer.heard() == SHORT
    teller.tell(SHORT)
    assert space.Word(str(tmp_path)).heard() == SHORT
    (tmp_path / space.SPACE).unlink()
    space.Word(str(tmp_path)).tell(VERY_SHORT)
    assert hearer.heard() == VERY_SHORT
    space.Word("").tell(SHORT)
    assert space.Word("").heard() == ENOUGH
