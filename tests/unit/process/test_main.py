"""How a node's process ends: what a restart would not mend is said on the status pipe and never tried
again."""

from __future__ import annotations

import asyncio
import errno
import json
import os
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from structlog.testing import capture_logs

from cluster.effects.newer import NewerRecord
from cluster.effects.records import Item
from cluster.raft import Configuration, LogContradiction
from cluster.settings import Common, NodeSettings
from node.replica.leaving import end_all
from node.storage import DirectoryLocked, DiskFull, RaftLog, StorageCorruption
from tools.muster.machine.disk import seal
from tools.muster.machine.process.crash import FATAL_EXIT, FAULT_EXIT, REMOVED_EXIT
from tools.muster.machine.process.status import StatusPipe
from tools.muster.processes import node as node_module
from tools.muster.processes.node import end, guarded, node_crash, sealed_node

UNMENDABLE = [
    (StorageCorruption("000012.sst: checksum mismatch"), "000012.sst"),
    (DirectoryLocked("x is in use by another process"), "in use"),
    (DiskFull("x", "while opening"), "No space left on device. Nothing is damaged"),
    (NewerRecord.kind(77), f"knows none above {max(Item):d}. Start the version that wrote it"),
    (LogContradiction("H10: the log ends before it"), "under its old identity. Remove the member"),
]


class Pipe:
    """A status pipe, and what was said on it."""

    def __init__(self) -> None:
        self._read, self.fd = os.pipe()
        os.set_blocking(self._read, False)

    def lines(self) -> list[dict[str, object]]:
        try:
            return [json.loads(line) for line in os.read(self._read, 10_000).splitlines()]
        except BlockingIOError:
            return []

    def close(self) -> None:
        os.close(self._read)
        os.close(self.fd)


def settings_of(pipe: Pipe) -> NodeSettings:
    common = Common(
        cluster_id=1, member_id=1, name="a", shard_count=1, placement_depth=2, peers=(), run_dir="/nowhere",
        status_fd=pipe.fd)
    return NodeSettings(common=common, shard=0, data_dir="/data", listen_host="127.0.0.1", listen_port=1)


@pytest.mark.parametrize(("error", "text"), UNMENDABLE)
def test_a_fatal_error_inside_a_tick_is_told_to_the_supervisor(
    error: Exception, text: str, monkeypatch: pytest.MonkeyPatch,
) -> None:
    exits: list[int] = []

    def leave(code: int) -> None:
        exits.append(code)
        raise SystemExit(code)

    monkeypatch.setattr(os, "_exit", leave)
    pipe = Pipe()
    loop = asyncio.new_event_loop()
    with capture_logs(), pytest.raises(SystemExit):
        node_crash(2, StatusPipe(pipe.fd))(loop, {"message": "in a tick", "exception": error})
    (line,) = pipe.lines()
    assert (line["event"], line["shard"]) == ("fatal", 2)
    assert text in str(line["error"])
    assert exits == [FATAL_EXIT]
    with capture_logs(), pytest.raises(SystemExit):
        node_crash(2, StatusPipe(pipe.fd))(loop, {"message": "in a tick", "exception": KeyError("a bug")})
    assert pipe.lines() == []
    assert exits[1:] == [FAULT_EXIT]
    loop.close()
    pipe.close()


def test_a_store_that_cannot_be_closed_is_said_once_all_else_has_ended() -> None:
    """Its directory may be gone."""
    pipe, ended = Pipe(), list[str]()

    def fails() -> None:
        raise Exception("IO error: No such file or directory: x/000009.log")

    class Stopped:
        roster = SimpleNamespace(left=False)
        settings = settings_of(pipe)

        def __init__(self) -> None:
            self.fatal = asyncio.get_running_loop().create_future()

        async def stop(self) -> None:
            end_all(fails, partial(ended.append, "flush"), fails, partial(ended.append, "close"))

    async def run() -> int:
        node: Any = Stopped()
        await end(node)
        return 0

    with capture_logs() as logs:
        code = guarded(settings_of(pipe), run())
    assert (code, ended) == (FATAL_EXIT, ["flush", "close"])
    assert "/data: cannot close the store: IO error" in str(pipe.lines()[0]["error"])
    assert [line["event"] for line in logs] == [
        "stopping", "cannot end a part of this node", "this node cannot run"]
    pipe.close()


def test_a_broken_rule_at_the_end_keeps_its_traceback() -> None:
    def broken() -> None:
        raise AssertionError("G4: a rule")

    class Stopped:
        roster, settings = SimpleNamespace(left=False), SimpleNamespace(shard=0)

        def __init__(self) -> None:
            self.fatal = asyncio.get_running_loop().create_future()

        async def stop(self) -> None:
            end_all(broken)

    async def run() -> None:
        node: Any = Stopped()
        await end(node)

    with capture_logs(), pytest.raises(AssertionError, match="G4"):
        asyncio.run(run())


@pytest.mark.parametrize(("known", "folder", "marked"), [
    (True, "", True), (False, "", False), (True, "gone", False)])
def test_a_removed_host_is_barred_by_its_own_word_alone(
    known: bool, folder: str, marked: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A host of another cluster by now barred the healthy majority for ever. Without a disk, too, it ends."""
    class Leaving:
        def __init__(self, node: Any) -> None:
            pass

        async def removed(self) -> None:
            pass

    monkeypatch.setattr(node_module, "Leaving", Leaving)

    async def run() -> int:
        fatal = asyncio.get_running_loop().create_future()
        fatal.set_result("removed")
        table = SimpleNamespace(removed=lambda member_id: known)
        node: Any = SimpleNamespace(
            roster=SimpleNamespace(left=True, table=table), raft=SimpleNamespace(id=1), fatal=fatal)
        await end(node)
        return 0

    pipe = Pipe()
    with capture_logs() as logs:
        settings = replace(settings_of(pipe), data_dir=str(tmp_path / folder))
        assert guarded(settings, run()) == REMOVED_EXIT
    assert (tmp_path / folder / seal.REMOVED).exists() is marked
    assert [line["log_level"] for line in logs] == [
        "warning", *([] if known else ["warning"]), *(["error"] if folder else [])]
    pipe.close()


def raising(error: Exception) -> Callable[[], object]:
    async def run() -> int:
        raise error

    return run


@pytest.mark.parametrize(
    ("error", "text"),
    [
        *UNMENDABLE,
        (
            OSError(errno.ENOSPC, "No space left on device", "x/run/node-0.sock"),
            "make room and start this host again",
        ),
    ],
)
def test_a_node_that_cannot_start_says_why_and_is_not_tried_again(error: Exception, text: str) -> None:
    pipe = Pipe()
    settings = settings_of(pipe)
    with capture_logs():
        assert guarded(settings, raising(error)()) == FATAL_EXIT  # type: ignore[arg-type]
    (line,) = pipe.lines()
    assert line["event"] == "fatal"
    assert text in str(line["error"])
    with pytest.raises(KeyError):
        guarded(settings, raising(KeyError("a bug"))())  # type: ignore[arg-type]
    pipe.close()


def test_a_directory_of_another_shard_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """H10: all of a host's directories bear the same seal."""
    pipe, logs = Pipe(), list[RaftLog]()

    def made(settings: NodeSettings, machine: object) -> Any:
        log = RaftLog.open(Path(settings.data_dir, "log"), initial=Configuration(frozenset({1})))
        Path(settings.data_dir, "state").mkdir(exist_ok=True)
        Path(settings.data_dir, "state", "current").touch()
        logs.append(log)
        return SimpleNamespace(log=log)

    monkeypatch.setattr(node_module, "make_node", made)
    machine: Any = None
    places = [tmp_path / "shard-1", tmp_path / "shard-2"]
    of = [replace(settings_of(pipe), shard=shard, data_dir=str(places[shard - 1]), incarnation=77)
          for shard in (1, 2)]
    for settings in (*of, *of):  # the second start, too
        seal.seal(settings.data_dir, 77)
        sealed_node(settings, machine).log.close()
    places[0].rename(tmp_path / "aside")
    places[1].rename(places[0])
    (tmp_path / "aside").rename(places[1])
    for settings, said in zip(of, (2, 1), strict=True):
        with pytest.raises(seal.SealBroken, match=f"holds the log of shard {said}, not of"):
            sealed_node(settings, machine)
        logs[-1].close()
    pipe.close()
