"""Disks that lost, forgot or changed what was written, and disks that are full."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.client import Client, Endpoint, RpcError
from cluster.pb import rpc_pb2
from tests.faults.hosts import SHARDS, Hosts, aside, three_hosts, until
from tests.faults.load import Load
from tests.linearizability import Outcome
from tests.small_disk import mounted

VICTIM = 2
KEEP_LITTLE = ("--snapshot-count=200", "--snapshot-catchup-entries=50")


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosts]:
    with three_hosts(tmp_path_factory.mktemp("disks") / "c", *KEEP_LITTLE) as hosts:
        yield hosts


@pytest.fixture
def hosts(shared: Hosts) -> Hosts:
    """The shared hosts, all of them up."""
    shared.start_missing()
    return shared


@contextlib.contextmanager
def kept_aside(hosts: Hosts, folder: Path) -> Iterator[None]:
    """A folder of the victim that a test may spoil; it is in the end what it was."""
    original = folder.with_name(folder.name + ".kept")
    folder.rename(original)
    shutil.copytree(original, folder, ignore=shutil.ignore_patterns("*.sock"))
    try:
        yield
    finally:
        if hosts.up(VICTIM):  # the test has failed: it ought to have been refused
            hosts.kill(VICTIM)
        shutil.rmtree(folder)
        original.rename(folder)


def empty(folder: Path) -> None:
    for child in folder.iterdir():
        shutil.rmtree(child) if child.is_dir() else child.unlink()


def refused(hosts: Hosts, *, saying: str) -> None:
    """Starting the victim fails, and its log says why and what to do."""
    log, told = hosts.log(VICTIM), hosts.told
    hosts.launch(VICTIM)
    assert hosts.exit_code(VICTIM, told) != 0
    assert saying in log.text(), log.text()
    assert "remove the member" in log.text().lower()


async def refused_while_others_serve(hosts: Hosts, load: Load, saying: str) -> None:
    before = load.count(Outcome.OK)
    await aside(refused, hosts, saying=saying)
    await load.acknowledged(50)
    assert load.count(Outcome.OK) > before


def test_a_host_whose_disk_or_one_nodes_directory_was_emptied_is_refused_its_old_vote(hosts: Hosts) -> None:
    async def scenario() -> None:
        async with Load(hosts, "emptied") as load:
            await load.acknowledged(100)
            await aside(hosts.kill, VICTIM)
            for folder in (hosts.host_dir(VICTIM), hosts.shard_dir(VICTIM)):
                with kept_aside(hosts, folder):
                    empty(folder)
                    await refused_while_others_serve(hosts, load, "under its old identity")
            await aside(hosts.start, VICTIM)  # its disk was found again

    asyncio.run(scenario())


def test_a_log_that_was_replaced_by_an_older_copy_is_refused(hosts: Hosts, tmp_path: Path) -> None:
    """The database alone is held against its mark, the whole against what the state says was applied."""

    async def scenario() -> None:
        async with Load(hosts, "rolledback") as load:
            await load.acknowledged(100)
            await aside(hosts.stop, VICTIM)
            shutil.copytree(hosts.shard_dir(VICTIM) / "log", tmp_path / "log")
            await aside(hosts.start, VICTIM)
            await load.acknowledged(100)
            await aside(hosts.stop, VICTIM)
            for what in ("log/db", "log"):
                with kept_aside(hosts, hosts.shard_dir(VICTIM)):
                    shutil.rmtree(hosts.shard_dir(VICTIM) / what)
                    shutil.copytree(tmp_path / what, hosts.shard_dir(VICTIM) / what)
                    await refused_while_others_serve(hosts, load, "had been")
            await aside(hosts.start, VICTIM)

    asyncio.run(scenario())


def holds(folder: Path, pattern: str, text: bytes) -> list[Path]:
    """The files of a folder that hold a text."""
    return [path for path in sorted(folder.glob(pattern)) if text in path.read_bytes()]


def node_that_holds(hosts: Hosts, pattern: str, text: bytes) -> Path:
    """The directory of the victim's node that has a text in such a file."""
    return next(d for s in range(SHARDS) if holds(d := hosts.shard_dir(VICTIM, s), pattern, text))


def flip(folder: Path, pattern: str, text: bytes) -> Path:
    """Flip one bit in the middle of a text wherever it lies in a folder's files; a file that had it."""
    paths = holds(folder, pattern, text)
    for path in paths:
        middle = len(text) // 2
        changed = text[:middle] + bytes([text[middle] ^ 0x10]) + text[middle + 1 :]
        data = path.read_bytes().replace(text, changed)
        with open(path, "r+b") as file:
            file.write(data)
    return paths[-1]


def test_a_flipped_bit_in_the_log_is_found_at_the_start_and_named(hosts: Hosts) -> None:
    async def scenario() -> None:
        async with Load(hosts, "logflip", value_bytes=40) as load:
            await load.acknowledged(400)
            await aside(hosts.kill, VICTIM)
            values = [v for o in load.operations if o.outcome is Outcome.OK and len(o.writes) == 1
                      for _, v in o.writes if v is not None]
            node, logged = max(((d, b"".join(p.read_bytes() for p in d.glob("log/db/*.log")))
                                for d in (hosts.shard_dir(VICTIM, s) for s in range(SHARDS))),
                               key=lambda found: sum(v in found[1] for v in values))  # the busiest node
            values = [v for v in values if v in logged]
            # Not the very last: what was not synced yet here, a log may lose (the others acknowledged it)
            for value in (values[-60], values[-120]):
                # of this node only: the others go on, and what they do must last
                with kept_aside(hosts, node):
                    flip(node, "log/db/*.log", value)
                    await refused_while_others_serve(hosts, load, f"the log at {node / 'log'}")
            await aside(hosts.start, VICTIM)

    asyncio.run(scenario())


async def get(hosts: Hosts, host: int, key: bytes) -> bytes:
    """A serializable read at one host."""
    client = await Client.open([Endpoint(*hosts.endpoints[host])], 1)
    try:
        answer = await client.unary(
            "/etcdserverpb.KV/Range", rpc_pb2.RangeRequest(key=key, serializable=True), rpc_pb2.RangeResponse
        )
        return answer.kvs[0].value if answer.kvs else b""
    finally:
        await client.close()


def test_a_flipped_bit_in_the_state_is_found_and_named_and_never_served(hosts: Hosts) -> None:
    key, value = b"/flip/state/k", b"the value that a bit is flipped in"

    async def scenario() -> None:
        client = await Client.open([Endpoint(*hosts.endpoints[VICTIM])], 1)
        await client.unary(
            "/etcdserverpb.KV/Put", rpc_pb2.PutRequest(key=key, value=value), rpc_pb2.PutResponse
        )
        await client.close()
        assert await get(hosts, VICTIM, key) == value
        async with Load(hosts, "stateflip") as load:
            await load.acknowledged(50)
            await aside(hosts.stop, VICTIM)  # flushes
            node = node_that_holds(hosts, "state/db-*/*.sst", value)
            with kept_aside(hosts, node):
                path = flip(node, "state/db-*/*.sst", value)
                log, told = hosts.log(VICTIM), hosts.told
                await aside(hosts.launch, VICTIM)
                await aside(until, lambda: hosts.ready(VICTIM) or hosts.told_since(told))
                # whichever way it fails; where the node has met the damage and is gone, another host answers
                with contextlib.suppress(RpcError, TimeoutError, OSError):
                    assert await get(hosts, VICTIM, key) == value
                assert await aside(hosts.exit_code, VICTIM, told) != 0
                assert path.name in log.text()
                assert "checksum mismatch" in log.text()
                await load.acknowledged(50)
            await aside(hosts.start, VICTIM)
            assert await get(hosts, VICTIM, key) == value

    asyncio.run(scenario())


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own for the victim's data."""
    with mounted(tmp_path / "c" / f"host{VICTIM}", "256m") as disk:
        yield disk


def test_a_full_disk_ends_its_host_only_and_space_brings_it_back(small_disk: Path) -> None:
    async def scenario(hosts: Hosts) -> None:
        async with Load(hosts, "full", value_bytes=2000) as load:
            await load.acknowledged(100)
            log = hosts.log(VICTIM)
            filler = small_disk / "filler"
            with open(filler, "wb") as file, contextlib.suppress(OSError):
                while True:
                    os.write(file.fileno(), bytes(1 << 20))
            with open(filler, "ab") as file, contextlib.suppress(OSError):
                while True:
                    os.write(file.fileno(), bytes(512))
            await aside(log.await_text, "No space left on device")
            await load.acknowledged(200)
            filler.unlink()
            if not await aside(_came_back, hosts):
                await aside(hosts.start, VICTIM)
            await aside(until, lambda: hosts.ready(VICTIM))
            await load.acknowledged(100)

    with three_hosts(small_disk.parent, *KEEP_LITTLE) as hosts:
        asyncio.run(scenario(hosts))


def _came_back(hosts: Hosts) -> bool:
    """By its supervisor, or not at all."""
    until(lambda: hosts.ready(VICTIM) or not hosts.up(VICTIM))
    return hosts.up(VICTIM)
