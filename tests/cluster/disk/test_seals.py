"""H10: a host that was killed right after its first start does not come back as itself without what it had.

A host of one shard is started, by a real process, and killed with SIGKILL as soon as its node may send. Every
set of the parts of its data directory may then be gone: each is refused with a text that says what to do, or
is a new host.
"""

from __future__ import annotations

import itertools
import os
import shutil
import signal
from pathlib import Path

import psutil
import pytest

from tests.cluster.local_cluster import until
from tests.cluster.one_host import started
from tools.muster.config import settings as config
from tools.muster.config.flags import SERVER_FLAGS
from tools.muster.config.parse import ConfigError, resolve
from tools.muster.host.identity import bootstrap

PARTS = {
    "log": "shard-0/log/db", "mark": "shard-0/log/synced", "state": "shard-0/state",
    "seal": "shard-0/incarnation", "identity": "identity.json",
}
SETS = [frozenset(s) for n in range(len(PARTS) + 1) for s in itertools.combinations(PARTS, n)]


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data directory of a host that was killed after its first vote."""
    data_dir = tmp_path_factory.mktemp("killed") / "data"
    with started(data_dir) as host:
        until(host.leads)
    return data_dir


def lacking(killed: Path, to: Path, parts: frozenset[str]) -> Path:
    """A copy of it without some parts."""
    shutil.copytree(killed, to, ignore=shutil.ignore_patterns("run", "*.sock"))
    for part in parts:
        path = to / "member" / PARTS[part]
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    return to


def establish(data_dir: Path) -> tuple[bootstrap.Identity, bool]:
    settings = config.build(resolve(SERVER_FLAGS, (f"--data-dir={data_dir}", "--shards=1"), {}))
    identity, is_new = bootstrap.establish(settings)
    if is_new:
        bootstrap.keep(settings, identity)
    return identity, is_new


@pytest.mark.parametrize("parts", SETS, ids=lambda parts: "+".join(sorted(parts)) or "nothing")
def test_every_loss_is_refused_or_makes_a_new_host(
    killed: Path, tmp_path: Path, parts: frozenset[str]
) -> None:
    was, _ = establish(killed)
    data_dir = lacking(killed, tmp_path / "data", parts)
    if not parts:
        assert establish(data_dir) == (was, False)
        return
    if parts == PARTS.keys():  # nobody can tell it from an empty directory: peers know another incarnation
        shutil.rmtree(data_dir / "member" / "shard-0")
        now, is_new = establish(data_dir)
        assert is_new
        assert now.incarnation != was.incarnation
        return
    with pytest.raises(ConfigError) as refused:
        establish(data_dir)
    text = str(refused.value)
    if "identity" in parts:
        assert "identity.json is missing, but" in text
        assert "restore the file or empty the data directory" in text
        return
    assert str(data_dir / "member" / "shard-0") in text
    assert "must not vote under its old identity" in text
    assert "remove the member, then add it anew with an empty data directory" in text
    if "seal" not in parts:
        for part, name in (("log", "log/db"), ("mark", "log/synced"), ("state", "(state)")):
            assert (name in text) == (part in parts), text


@pytest.mark.parametrize(
    "parts", [{"log", "mark", "state"}, {"log", "mark"}, {"state"}], ids=lambda parts: "+".join(sorted(parts))
)
def test_the_host_does_not_start_without_them(killed: Path, tmp_path: Path, parts: set[str]) -> None:
    with started(lacking(killed, tmp_path / "data", frozenset(parts))) as host:
        assert until(lambda: host.process.poll() is not None or host.leads())
        assert host.process.poll() not in (None, 0), "it leads again"
        assert "must not vote under its old identity" in host.log.read_text()


def test_a_node_that_is_started_anew_while_its_host_runs_looks_as_well(killed: Path, tmp_path: Path) -> None:
    """Its directory is lost meanwhile, the seal too; only then it crashes."""
    with started(lacking(killed, tmp_path / "data", frozenset())) as host:
        until(host.leads)
        shutil.rmtree(host.data_dir / "member" / "shard-0")
        (host.data_dir / "member" / "shard-0").mkdir()
        node = psutil.Process(host.process.pid).children()[0]
        os.kill(node.pid, signal.SIGKILL)
        until(lambda: host.process.poll() is not None)
        assert "must not vote under its old identity" in host.log.read_text()


def older(data_dir: Path) -> None:
    """The seal as older versions wrote it: with the incarnation only."""
    path = data_dir / "member" / PARTS["seal"]
    path.write_text(path.read_text().split()[0] + "\n")


def test_a_directory_of_an_older_version_starts_and_is_sealed_anew(killed: Path, tmp_path: Path) -> None:
    data_dir = lacking(killed, tmp_path / "data", frozenset())
    older(data_dir)
    with started(data_dir) as host:
        until(host.leads)
    assert (data_dir / "member" / PARTS["seal"]).read_text().split()[1:] == ["begun"]


def test_a_directory_of_an_older_version_without_a_log_is_refused(killed: Path, tmp_path: Path) -> None:
    data_dir = lacking(killed, tmp_path / "data", frozenset({"log", "mark", "state"}))
    older(data_dir)
    with pytest.raises(
        ConfigError,
        match=r"has no log, and its seal is an older version's.*must not vote under its old identity",
    ):
        establish(data_dir)


def test_a_host_that_was_killed_before_its_node_began_starts_as_new(tmp_path: Path) -> None:
    bootstrap.prepare_data_dir(str(tmp_path / "data"))
    before, _ = establish(tmp_path / "data")  # the identity is written, and then it dies
    assert establish(tmp_path / "data") == (before, False)
    # a node had begun to make its log
    (tmp_path / "data" / "member" / "shard-0" / "log" / "db").mkdir(parents=True)
    with started(tmp_path / "data") as host:
        until(host.leads)
