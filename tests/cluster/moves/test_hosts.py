"""Hosts change in the midst of a move, in real processes: one is replaced, one learns and votes, one is left
alone, and a backup is made and restored. What was acknowledged is there, a watch has each change once, and
the move goes on."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cluster.pb import rpc_pb2 as pb
from tests.cluster.local_cluster import until
from tests.cluster.members.hosts import LIMIT_S, Hosts
from tests.cluster.members.test_forced import FORCED, asked, ctl, everything, kill, three
from tests.cluster.moves.moving import Operator, standing, whole
from tests.cluster.serving.test_births import Load

pytestmark = pytest.mark.timeout(900)

Keys = dict[bytes, int]  # by their revisions


@contextmanager
def moving(folder: Path, *writes_at: int) -> Iterator[tuple[Hosts, Operator, Load]]:
    """Three hosts of two shards, under load."""
    with three(folder) as hosts:
        operator = Operator(lambda: {host: hosts.client(host) for host in list(hosts.running)},
                            lambda host: folder / f"h{host}")
        try:
            operator.grow()
            with Load([hosts.client(host) for host in writes_at]) as load:
                until(lambda: len(load.written) > 100, LIMIT_S)
                yield hosts, operator, load
        finally:
            operator.close()


def span_of(operator: Operator, source: int) -> tuple[bytes, bytes]:
    span = operator.span(source, 1 - source)
    assert span is not None
    return span


def own(hosts: Hosts, host: int, revision: int) -> Keys:
    """What the host's own replicas have, once they are so far."""
    def found() -> pb.RangeResponse | None:
        request = pb.RangeRequest(key=b"/load/", range_end=b"/load0", serializable=True)
        answer: pb.RangeResponse = asked(hosts, host, "KV/Range", request, pb.RangeResponse)
        return answer if answer.header.revision >= revision else None

    return {kv.key: kv.mod_revision for kv in until(found, LIMIT_S).kvs}


def ends_well(hosts: Hosts, load: Load) -> None:
    """After more puts: nothing that was acknowledged is lost, at any host."""
    written = len(load.written)
    until(lambda: len(load.written) > written + 100, LIMIT_S)
    load.check()
    wanted = dict(load.written)
    for host in list(hosts.running):
        assert wanted.items() <= own(hosts, host, max(wanted.values())).items(), host


def follows(operator: Operator, shard: int, *but: int) -> int:
    """The process of a shard that does not lead it, on none of these hosts."""
    nodes = operator.nodes()
    host = next(h for (h, of) in sorted(nodes.pids)
                if of == shard and h not in (*but, nodes.leaders[shard]))
    return nodes.pids[host, shard]


@pytest.mark.soak
def test_a_host_gives_way_to_a_learner_while_keys_move(tmp_path: Path) -> None:
    """The move to shard 0 waits for every voter's copy: that of the host that has just come, too."""
    with moving(tmp_path, 0, 1) as (hosts, operator, load):
        span = span_of(operator, 1)
        with standing(follows(operator, 1, 2)):
            number = operator.begin(span, 0)
            hosts.add(3, learner=True)
            hosts.join(3)
            request = pb.MemberPromoteRequest(ID=hosts.member(3).ID)
            hosts.settle(lambda: not hosts.member(3).isLearner, "Cluster/MemberPromote", request,
                         pb.MemberPromoteResponse)
            hosts.votes(3)
            assert hosts.remove(2) == 0
            assert operator.goes_on(number)
        operator.moved(number, span, 0)
        ends_well(hosts, load)


@pytest.mark.soak
def test_a_host_that_lost_its_disk_is_replaced_while_keys_move(tmp_path: Path) -> None:
    with moving(tmp_path, 0, 1) as (hosts, operator, load):
        span = span_of(operator, 1)
        hosts.running[2].kill()
        hosts.running[2].wait(LIMIT_S)
        shutil.rmtree(tmp_path / "h2")
        cancelled = operator.begin(span, 0)  # which waits for every voter's copy
        until(lambda: operator.cancel(cancelled), LIMIT_S)
        until(lambda: not operator.goes_on(cancelled), LIMIT_S)
        assert operator.table().owners_of(*span) == (1,)
        number = operator.begin(span, 0)
        until(lambda: max(whole(operator.said(number, host)) for host in (0, 1)) == 2, LIMIT_S)
        hosts.remove(2)
        hosts.add(2)  # under its old URLs
        hosts.join(2)
        hosts.votes(2)
        operator.moved(number, span, 0)
        ends_well(hosts, load)


@pytest.mark.parametrize("target", [0, pytest.param(1, marks=pytest.mark.soak)])
def test_backups_and_a_forced_start_in_the_midst_of_a_move_keep_all(tmp_path: Path, target: int) -> None:
    with moving(tmp_path, 0, 1, 2) as (hosts, operator, load):
        span = span_of(operator, 1 - target)
        with standing(follows(operator, 1, 0)):  # a source or a target on a host that is given up
            number = operator.begin(span, target)
            until(lambda: max(whole(operator.said(number, host)) for host in range(3)) == 2, LIMIT_S)
            before = dict(load.written)
            running, files = str(tmp_path / "running.db"), str(tmp_path / "files.db")
            ctl("snapshot", "save", running, f"--endpoints={hosts.client(0)}")
            assert operator.goes_on(number)
            with load.resting:
                written = dict(load.written)
                assert written.items() <= own(hosts, 0, max(written.values())).items()
                kill(hosts, 0, 1, 2)
                until(lambda: save_files(hosts, 0, files), LIMIT_S)
                restores(hosts, running, 4, 1, before)
                restores(hosts, files, 5, 3, written)
                hosts.start(0, FORCED)
                until(lambda: hosts.member(0).name, LIMIT_S)
        operator.moved(number, span, target)
        ends_well(hosts, load)
        back = span_of(operator, 1 - target)  # it goes on moving
        operator.moved(operator.begin(back, target), back, target)
        ends_well(hosts, load)


def save_files(hosts: Hosts, host: int, file: str) -> bool:
    """A backup of the files of a host that was killed: its processes end a moment after it."""
    try:
        ctl("snapshot", "save", file, f"--data-dir={hosts.folder / f'h{host}'}")
    except AssertionError as error:
        if "in use" not in str(error):
            raise
        return False
    return True


def restores(hosts: Hosts, file: str, host: int, shards: int, wanted: Keys) -> None:
    """A backup becomes a cluster of one host, with as many shards, that has all of this. No other runs."""
    ctl("snapshot", "restore", file, f"--data-dir={hosts.folder / f'h{host}'}", f"--name=h{host}",
        f"--initial-cluster=h{host}={hosts.peer(host)}", f"--initial-advertise-peer-urls={hosts.peer(host)}",
        f"--shards={shards}")
    hosts.start(host)
    until(lambda: hosts.member(host).name, LIMIT_S)
    found = {bytes(kv.key): kv.mod_revision for kv in everything(hosts, host).kvs}
    assert wanted.items() <= found.items()
    asked(hosts, host, "KV/Put", pb.PutRequest(key=b"/load/0/after", value=b"v"), pb.PutResponse)
    kill(hosts, host)
