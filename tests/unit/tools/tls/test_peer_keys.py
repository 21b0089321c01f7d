"""Keys of a cluster that change in three steps."""

from __future__ import annotations

import json
import os
import resource
import stat
from pathlib import Path

import pytest
import zmq
from zmq.utils import z85

from tools.muster import cli, peer_keys
from tools.muster.config.parse import ConfigError
from tools.muster.machine.zmtp.curve import keys as reader
from tools.muster.machine.zmtp.curve.keys import CurveKeys


def file_of(folder: Path) -> str:
    path = folder / "keys.json"
    peer_keys.generate(str(path))
    return str(path)


def keys_in(path: str) -> CurveKeys:
    found = CurveKeys.load(path)
    assert found is not None
    return found


def in_bytes(key: bytes) -> bytes:
    found: bytes = z85.decode(key)
    return found


def test_a_key_is_let_in_from_the_step_that_adds_it_to_the_one_that_drops_it(tmp_path: Path) -> None:
    path = file_of(tmp_path)
    running = keys_in(path)
    first = running.public
    assert "copy it to every host" in peer_keys.change(path, "add")
    second = json.loads(Path(path).read_text())["next"]["public"].encode()
    stranger = in_bytes(zmq.curve_keypair()[0])
    assert running.public == first
    assert [running.allows(key) for key in (in_bytes(first), in_bytes(second), stranger)] == [
        True,
        True,
        False,
    ]
    assert "restart them one after another" in peer_keys.change(path, "rotate")
    assert [running.allows(key) for key in (in_bytes(first), in_bytes(second), stranger)] == [
        True,
        True,
        False,
    ]
    assert running.public == second
    assert "the old key opens nothing" in peer_keys.change(path, "drop")
    assert [running.allows(key) for key in (in_bytes(first), in_bytes(second))] == [False, True]
    assert json.loads(Path(path).read_text()) == {
        "public": second.decode(),
        "secret": running.secret.decode(),
    }
    assert stat.S_IMODE(Path(path).stat().st_mode) == 0o600


def test_a_key_that_is_dropped_as_a_process_reads_the_file_is_not_let_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = file_of(tmp_path)
    peer_keys.change(path, "add")
    peer_keys.change(path, "rotate")
    old = json.loads(Path(path).read_text())["old"][0].encode()
    read = reader._read

    def drop_behind(path: str) -> tuple[bytes, bytes, list[bytes]]:
        monkeypatch.undo()
        found = read(path)
        peer_keys.change(path, "drop")
        return found

    monkeypatch.setattr(reader, "_read", drop_behind)
    assert not keys_in(path).allows(in_bytes(old))


def test_whoever_dials_tries_every_key_of_the_file_in_turn(tmp_path: Path) -> None:
    path = file_of(tmp_path)
    before = keys_in(path).public
    peer_keys.change(path, "add")
    peer_keys.change(path, "rotate")
    keys = keys_in(path)
    assert keys.served_by("tcp://a") == in_bytes(keys.public)
    assert keys.failed("tcp://a", in_bytes(keys.public))
    assert keys.served_by("tcp://a") == in_bytes(before)
    assert keys.served_by("tcp://b") == in_bytes(keys.public)
    keys.failed("tcp://a", in_bytes(before))
    assert keys.served_by("tcp://a") == in_bytes(keys.public)
    peer_keys.change(path, "drop")
    assert keys.served_by("tcp://a") == in_bytes(keys.public)
    assert not keys.failed("tcp://a", in_bytes(keys.public)), "there is no other key to try"


def test_a_file_that_root_changes_stays_its_owners(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = file_of(tmp_path)
    if os.geteuid() == 0:
        os.chown(path, 12_345, 23_456)
    owner = os.stat(path)
    given: list[tuple[int, int]] = []
    fchown = os.fchown

    def note(fd: int, user: int, group: int) -> None:
        given.append((user, group))
        fchown(fd, user, group)

    monkeypatch.setattr(os, "fchown", note)
    for step in peer_keys.STEPS:
        peer_keys.change(path, step)
        now = os.stat(path)
        assert (now.st_uid, now.st_gid) == (owner.st_uid, owner.st_gid)
        assert stat.S_IMODE(now.st_mode) == 0o600
    assert given == [(owner.st_uid, owner.st_gid)] * len(peer_keys.STEPS)


def test_a_file_that_cannot_be_given_to_its_owner_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(fd: int, user: int, group: int) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "fchown", refused)
    path = file_of(tmp_path)
    peer_keys.change(path, "add")
    assert json.loads(Path(path).read_text())["next"]


def test_a_file_that_could_not_be_written_is_not_in_the_way_of_the_next_try(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A full disk left an empty file, and with room again it "exists; it is not overwritten"."""
    path = tmp_path / "keys.json"
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, before[1]))  # bytes of a file
    try:
        assert cli.run(["peer-keys", str(path)]) == 1
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert capsys.readouterr().err == f"muster: cannot write {path}: File too large\n"
    assert cli.run(["peer-keys", str(path)]) == 0
    peer_keys.check(str(path))


def test_steps_out_of_order_are_refused_and_change_nothing(tmp_path: Path) -> None:
    path = file_of(tmp_path)
    text = Path(path).read_text()
    for step, words in (("rotate", "--add comes first"), ("drop", "has no old key")):
        with pytest.raises(ConfigError, match=words):
            peer_keys.change(path, step)
    assert Path(path).read_text() == text
    peer_keys.change(path, "add")
    with pytest.raises(ConfigError, match="has its next key already"):
        peer_keys.change(path, "add")


@pytest.mark.parametrize(
    "broken",
    [
        {"next": {"public": "x"}},
        {"next": {"public": "a" * 40, "secret": "b" * 40}},
        {"old": ["short"]},
        {"old": 7},
    ],
)
def test_a_file_with_a_broken_key_is_refused_at_the_start(tmp_path: Path, broken: dict[str, object]) -> None:
    path = file_of(tmp_path)
    whole = json.loads(Path(path).read_text())
    Path(path).write_text(json.dumps({**whole, **broken}))
    with pytest.raises(ConfigError, match="--peer-key-file"):
        peer_keys.check(path)


def test_a_file_that_breaks_while_a_process_runs_counts_as_it_was(tmp_path: Path) -> None:
    path = file_of(tmp_path)
    keys = keys_in(path)
    Path(path).write_text("{")
    assert keys.allows(in_bytes(keys.public))
    Path(path).unlink()
    assert keys.allows(in_bytes(keys.public))
