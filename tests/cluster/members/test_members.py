"""Hosts are added, promoted, replaced and removed while writes go on, in real processes: nothing that was
acknowledged is lost, and every step's duration is printed."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from cluster.pb import rpc_pb2 as pb
from tests.cluster.local_cluster import until
from tests.cluster.members.hosts import LIMIT_S, REMOVED, Hosts, Writer, timed, works

# of a host that joins: 21 MB
_TURNS, _PUTS = 40, 64
_VALUE = b"v" * 8192


@pytest.fixture(scope="module", params=[1, 3], ids=["1 shard", "3 shards"])
def hosts(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosts]:
    made = Hosts(tmp_path_factory.mktemp("members"), request.param)
    try:
        made.found()
        yield made
    finally:
        made.close()


@pytest.mark.timeout(900)
def test_one_host_becomes_three_and_five_and_three_again_under_writes(hosts: Hosts) -> None:
    writer = Writer(hosts)
    try:
        for host in (1, 2, 3, 4):
            with timed(f"added host {host}"):
                hosts.add(host)
                writer.wait(3)  # a host that was added and has not started holds nobody up
                hosts.join(host)
                hosts.votes(host)
        leader = hosts.leader()
        with timed("killed two of five, which came back"):
            dead = [host for host in hosts.running if host != leader][-2:]
            for host in dead:
                hosts.running[host].kill()
            for host in dead:
                hosts.running[host].wait(30)
            writer.wait(3)  # the three that are left go on
            for host in dead:
                hosts.start(host)
            until(lambda: all(map(hosts.serves, dead)), LIMIT_S)
        leader = hosts.leader()
        for host in (leader, *[i for i in (3, 4) if i != leader][:1]):
            with timed(f"removed host {host}"):
                assert hosts.remove(host) == 0
                assert REMOVED in hosts.log(host)
                writer.wait(3)
    finally:
        writer.stop()
    found = hosts.anywhere(
        "KV/Range", pb.RangeRequest(key=b"/w", range_end=b"/x", keys_only=True), pb.RangeResponse
    )
    lost = set(writer.acknowledged) - {kv.key.decode() for kv in found.kvs}
    print(f"{len(writer.acknowledged)} puts, the longest gap {writer.longest_s:.1f} s")
    assert not lost
    wanted = sorted(m.ID for m in hosts.members())
    assert len(wanted) == 3
    # each by what its own host knows, which may be a moment behind
    until(lambda: all(hosts.knows(i) == wanted for i in hosts.running), LIMIT_S)


@pytest.mark.timeout(600)
def test_a_host_that_was_removed_does_not_start_again(hosts: Hosts) -> None:
    if not hosts.removed:
        hosts.at_least(2)
        assert hosts.remove(1) == 0
    gone = hosts.removed[-1]
    process = hosts.start(gone, f"--initial-cluster=h{gone}={hosts.peer(gone)}")
    try:
        assert process.wait(LIMIT_S) == 0
    finally:
        del hosts.running[gone]
    assert hosts.log(gone).count("data-dir used by this member must be removed") == 2


@pytest.mark.timeout(600)
def test_a_learner_reads_what_is_there_and_votes_once_it_is_promoted(hosts: Hosts) -> None:
    hosts.anywhere("KV/Put", pb.PutRequest(key=b"/there", value=b"v"), pb.PutResponse)
    with timed("added a learner"):
        hosts.add(5, learner=True)
    learner = hosts.member(5).ID
    other = next(iter(hosts.running))
    promote = pb.MemberPromoteRequest(ID=learner)
    with pytest.raises(grpc.RpcError) as early:
        hosts.call(other, "Cluster/MemberPromote", promote, pb.MemberPromoteResponse)
    assert (
        early.value.details() == "etcdserver: can only promote a learner member which is in sync with leader"
    )
    request = pb.MemberAddRequest(peerURLs=[hosts.peer(6)], isLearner=True)
    with pytest.raises(grpc.RpcError) as second:
        hosts.call(other, "Cluster/MemberAdd", request, pb.MemberAddResponse)
    assert second.value.details() == "etcdserver: too many learner members in cluster"
    hosts.join(5)
    range_request = pb.RangeRequest(key=b"/there", serializable=True)
    until(lambda: hosts.call(5, "KV/Range", range_request, pb.RangeResponse).kvs, LIMIT_S)
    for method, refused, response in (
        ("KV/Range", pb.RangeRequest(key=b"/there"), pb.RangeResponse),
        ("KV/Put", pb.PutRequest(key=b"k"), pb.PutResponse),
    ):
        with pytest.raises(grpc.RpcError) as no:
            hosts.call(5, method, refused, response)
        assert no.value.details() == "etcdserver: rpc not supported for learner"
    with timed("promoted it"):
        hosts.settle(
            lambda: not hosts.member(5).isLearner, "Cluster/MemberPromote", promote, pb.MemberPromoteResponse
        )
        hosts.votes(5)
    until(lambda: works(lambda: hosts.call(5, "KV/Put", pb.PutRequest(key=b"k"), pb.PutResponse)), LIMIT_S)


@pytest.mark.timeout(600)
def test_a_host_that_lost_its_disk_is_replaced_though_the_leader_is_killed_meanwhile(hosts: Hosts) -> None:
    hosts.at_least(3)
    leader = hosts.leader()
    dead = next(i for i in hosts.running if i not in (leader, 5))
    hosts.running[dead].kill()
    hosts.running[dead].wait(30)
    shutil.rmtree(hosts.folder / f"h{dead}")
    with timed("replaced a host that lost its disk"):
        hosts.remove(dead)
        hosts.add(dead)  # under its old URLs
        killed = hosts.leader()
        hosts.running[killed].kill()
        hosts.running[killed].wait(30)
        hosts.start(killed)
        hosts.join(dead)
        hosts.votes(dead)
    assert len(hosts.members()) == len(hosts.running)


@pytest.mark.timeout(600)
def test_a_host_that_was_down_while_all_others_were_replaced_comes_back(hosts: Hosts) -> None:
    """Its front ended again and again, for a leader at no address, and its nodes refused who leads."""
    hosts.at_least(3)
    away = next(i for i in hosts.running if i != hosts.leader())
    hosts.running[away].kill()
    hosts.running.pop(away).wait(30)
    known = list(hosts.running)
    for new in (7, 8):
        hosts.add(new)
        hosts.join(new)
        hosts.votes(new)
    for old in known:
        hosts.remove(old)
    leader = hosts.leader()
    assert leader in (7, 8)
    process = hosts.start(away)
    put = pb.PutRequest(key=b"/back", value=b"v")
    with timed("a host came back that had not heard of any of the others"):
        until(lambda: works(lambda: hosts.call(away, "KV/Put", put, pb.PutResponse)), LIMIT_S)
    assert process.poll() is None
    said = hosts.log(away)
    assert '"this process crashed"' not in said
    assert "is not in this cluster" not in said
    members = sorted(m.ID for m in hosts.members())
    until(lambda: hosts.knows(away) == members, LIMIT_S)


@pytest.mark.timeout(600)
def test_a_host_that_was_down_while_one_moved_that_leads_now_comes_back(hosts: Hosts) -> None:
    """It hears the leader, and knew no address to answer at."""
    hosts.at_least(3)
    moves, away = list(hosts.running)[:2]
    hosts.running[away].kill()
    hosts.running.pop(away).wait(30)
    member_id, before = hosts.member(moves).ID, hosts.peer(moves)
    hosts.moved[moves] = 50
    request = pb.MemberUpdateRequest(ID=member_id, peerURLs=[hosts.peer(moves)])
    hosts.settle(
        lambda: member_id == hosts.member(moves).ID, "Cluster/MemberUpdate", request, pb.MemberUpdateResponse
    )
    other = next(i for i in hosts.running if i != moves)
    put = pb.PutRequest(key=b"/moved", value=b"v")
    until(lambda: works(lambda: hosts.call(other, "KV/Put", put, pb.PutResponse)), LIMIT_S)
    hosts.running[moves].terminate()
    hosts.running[moves].wait(60)
    hosts.start(moves)
    assert hosts.peer(moves) != before
    hosts.lead(moves)
    process = hosts.start(away)
    with timed("a host came back that had not heard where the leader is"):
        until(lambda: works(lambda: hosts.call(away, "KV/Put", put, pb.PutResponse)), LIMIT_S)
    assert process.poll() is None


@pytest.mark.timeout(600)
@pytest.mark.parametrize("shards", [1, 3])
def test_a_host_that_joins_shows_nothing_before_it_has_all_that_was_there(
    tmp_path: Path, shards: int
) -> None:
    """Also one that is killed on its way. Once it has served, it needs nobody to serve again."""
    hosts = Hosts(tmp_path, shards, most=2)
    try:
        hosts.found()
        for turn in range(_TURNS):
            puts = [pb.RequestOp(request_put=pb.PutRequest(key=b"/there%d/%d" % (n, turn), value=_VALUE))
                    for n in range(_PUTS)]
            written = hosts.call(0, "KV/Txn", pb.TxnRequest(success=puts), pb.TxnResponse)
        hosts.add(1)
        hosts.begin(1)
        until(lambda: "it serves once it has the cluster's data" in hosts.log(1), LIMIT_S)
        hosts.running[1].kill()
        hosts.running[1].wait(30)
        hosts.start(1)
        shows_all(hosts, written.header.revision)
        hosts.votes(1)
        noted = tmp_path / "h1" / "member" / "identity.json"  # by its supervisor, once a front has told it
        until(lambda: not json.loads(noted.read_text(encoding="utf-8")).get("joining"), LIMIT_S)
        for host in (0, 1):
            hosts.running[host].kill()
            hosts.running[host].wait(30)
        hosts.start(1)
        shows_all(hosts, written.header.revision)
    finally:
        hosts.close()


def shows_all(hosts: Hosts, revision: int) -> None:
    """What host 1 answers as soon as it answers."""
    request = pb.RangeRequest(key=b"/there", range_end=b"/therf", count_only=True, serializable=True)

    def answered() -> pb.RangeResponse | None:
        assert hosts.running[1].poll() is None, hosts.log(1)
        with contextlib.suppress(grpc.RpcError):
            return hosts.call(1, "KV/Range", request, pb.RangeResponse)
        return None

    with timed("a serializable range was answered"):
        found = until(answered, LIMIT_S)
    assert found.count == _TURNS * _PUTS
    status = hosts.call(1, "Maintenance/Status", pb.StatusRequest(), pb.StatusResponse)
    assert min(found.header.revision, status.header.revision) >= revision
