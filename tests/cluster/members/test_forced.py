"""``--force-new-cluster``: the one host that is left goes on alone with what it has, and grows again."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import signal
import threading
import urllib.request
from base64 import b64decode
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import grpc
import psutil
import pytest

from cluster.bolt import Database
from cluster.bolt.etcd import key_in, read_revision
from cluster.pb import rpc_pb2 as pb
from cluster.placement import Placement
from node.backup.stopped import dropped
from node.backup.stopped.salvage import Salvaged
from tests import forks
from tests.cluster.local_cluster import environment, until
from tests.cluster.members.hosts import LIMIT_S, Hosts
from tools.muster.config.parse import ConfigError
from tools.muster.host import control, rundir, salvaging

SHARDS = 2
FORCED = "--force-new-cluster"
EVERYTHING: dict[str, Any] = {"key": b"\0", "range_end": b"\0"}


class Writers:
    """Clients that write transactions to both shards until they are stopped."""

    def __init__(self, hosts: Hosts, count: int, *, at: Sequence[int], over_shards: bool) -> None:
        self._hosts, self._at, self._over_shards = hosts, at, over_shards
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self.acknowledged: dict[bytes, tuple[bytes, int]] = {}  # key -> value and revision
        self._threads = [threading.Thread(target=self._run, args=(i,)) for i in range(count)]
        for thread in self._threads:
            thread.start()

    def _run(self, number: int) -> None:
        turn = 0
        while not self._stop.is_set():
            turn += 1
            keys = [b"/w%d/%d%c" % (number, turn, c) for c in b"ab"]  # of one directory
            if self._over_shards and turn % 5 == 0:  # of several, hence perhaps of both shards
                keys += [b"/t%d/%d" % (n, number) for n in range(3)]
            value = b"%d" % turn
            puts = [pb.RequestOp(request_put=pb.PutRequest(key=key, value=value)) for key in keys]
            with contextlib.suppress(grpc.RpcError):
                host = self._at[turn % len(self._at)]
                done = self._hosts.call(host, "KV/Txn", pb.TxnRequest(success=puts), pb.TxnResponse)
                with self._lock:
                    self.acknowledged.update(dict.fromkeys(keys, (value, done.header.revision)))

    def keys(self) -> list[bytes]:
        with self._lock:
            return list(self.acknowledged)

    def wait(self, goal: int) -> None:
        until(lambda: len(self.acknowledged) >= goal, LIMIT_S)

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()


@contextlib.contextmanager
def three(folder: Path, *flags: str) -> Iterator[Hosts]:
    """Hosts of one cluster, which serve."""
    made = Hosts(folder, SHARDS)
    cluster = ",".join(f"h{i}={made.peer(i)}" for i in range(3))
    try:
        for host in range(3):
            made.start(host, f"--initial-cluster={cluster}", f"--shards={SHARDS}", *flags)
        until(lambda: all(made.member(host).name for host in range(3)), LIMIT_S)
        yield made
    finally:
        made.close()


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosts]:
    with three(tmp_path_factory.mktemp("forced")) as made:
        yield made


def kill(hosts: Hosts, *numbers: int) -> None:
    """At once, as far as can be."""
    for host in numbers:
        hosts.running[host].kill()
    for host in numbers:
        hosts.running.pop(host).wait(30)


def asked(hosts: Hosts, host: int, method: str, request: Any, response: Any) -> Any:
    """Until it is answered: a group may have no leader yet."""

    def tried() -> Any:
        with contextlib.suppress(grpc.RpcError):
            return hosts.call(host, method, request, response)
        return None

    return until(tried, LIMIT_S)


def everything(hosts: Hosts, host: int, **more: Any) -> pb.RangeResponse:
    request = pb.RangeRequest(**EVERYTHING, **more)
    found: pb.RangeResponse = asked(hosts, host, "KV/Range", request, pb.RangeResponse)
    return found


def backup_of_files(hosts: Hosts, host: int) -> tuple[Salvaged, dict[bytes, bytes]]:
    """Of a host that was killed, whose states are behind its logs; and the keys that are live in it."""
    file = hosts.folder / "killed.db"

    def tried() -> Salvaged | None:
        try:
            return salvaging.save(str(hosts.folder / f"h{host}"), file, False, print)
        except ConfigError as error:  # its processes end with it, a moment later
            if "in use" not in str(error):
                raise
            return None

    found: Salvaged = until(tried, LIMIT_S)
    database = Database(file.read_bytes())
    live: dict[bytes, bytes] = {}
    for at, value in database.rows(b"key"):
        if read_revision(at)[2]:
            live.pop(key_in(value), None)
        else:
            live[key_in(value)] = value
    return found, live


@pytest.mark.timeout(400)
def test_the_host_that_is_left_keeps_what_it_has_and_grows_again(hosts: Hosts) -> None:
    before = hosts.anywhere("Maintenance/Status", pb.StatusRequest(), pb.StatusResponse).header
    first = hosts.member(0)
    lease = hosts.anywhere(
        "Lease/LeaseGrant", pb.LeaseGrantRequest(TTL=3600, ID=77), pb.LeaseGrantResponse
    ).ID
    quiet = {b"/q%d/k" % n: b"%d" % n for n in range(40)}
    for key, value in quiet.items():
        asked(hosts, 1, "KV/Put", pb.PutRequest(key=key, value=value, lease=lease), pb.PutResponse)
    last = everything(hosts, 1).header.revision
    until(lambda: everything(hosts, 0, serializable=True).header.revision >= last, LIMIT_S)

    writers = Writers(hosts, 6, at=(0, 1, 2), over_shards=True)
    try:
        writers.wait(200)
        kill(hosts, 1, 2)  # in the midst of it
    finally:
        writers.stop()
    kill(hosts, 0)
    saved, live = backup_of_files(hosts, 0)
    hosts.start(0, FORCED)
    until(lambda: hosts.member(0).name, LIMIT_S)
    then = {bytes(kv.key): kv.SerializeToString() for kv in everything(hosts, 0, revision=saved.revision).kvs}
    assert live == then
    if '"lost_entries":{}' in hosts.log(0):
        assert saved.revision == everything(hosts, 0).header.revision

    # the longest beginning of the order that it has: all that was acknowledged up to that revision
    found = everything(hosts, 0)
    assert found.header.revision >= last
    assert (found.header.cluster_id, hosts.members()) == (before.cluster_id, [first])
    kvs = {kv.key: kv for kv in found.kvs}
    assert {key: kvs[key].value for key in quiet} == quiet
    for key, (value, revision) in writers.acknowledged.items():
        if revision <= found.header.revision:
            kv = kvs[key]
            assert (
                kv.mod_revision >= revision
            )  # a transaction whose answer nobody got may have come behind it
            assert kv.mod_revision > revision or kv.value == value
    history = [
        revision for _, revision in writers.acknowledged.values() if revision <= found.header.revision
    ]
    print(f"kept {len(history)} of {len(writers.acknowledged)} keys put in the last moments")
    left = asked(
        hosts,
        0,
        "Lease/LeaseTimeToLive",
        pb.LeaseTimeToLiveRequest(ID=lease, keys=True),
        pb.LeaseTimeToLiveResponse,
    )
    assert sorted(left.keys) == sorted(quiet)
    for key in (b"/w0/1", b"/q3/k", b"/new/1", b"/other/2"):
        asked(hosts, 0, "KV/Put", pb.PutRequest(key=key, value=b"after"), pb.PutResponse)

    # as etcd's, the flag may stay while the host is alone
    kill(hosts, 0)
    hosts.start(0, FORCED)
    until(lambda: hosts.member(0).name, LIMIT_S)
    assert "this host is the only member already" in hosts.log(0)

    hosts.add(3)
    hosts.join(3)
    hosts.votes(3)
    want = everything(hosts, 0)
    until(
        lambda: everything(hosts, 3, serializable=True).header.revision >= want.header.revision, LIMIT_S
    )
    assert list(everything(hosts, 3, serializable=True, revision=want.header.revision).kvs) == list(
        want.kvs
    )
    hashes = [
        asked(
            hosts,
            i,
            "Maintenance/HashKV",
            pb.HashKVRequest(revision=want.header.revision),
            pb.HashKVResponse,
        )
        for i in (0, 3)
    ]
    assert hashes[0].hash == hashes[1].hash


@pytest.mark.timeout(200)
def test_a_host_that_was_given_up_is_not_let_in_again(hosts: Hosts) -> None:
    process = hosts.start(1)
    try:
        assert process.wait(LIMIT_S) == 0
    finally:
        process.kill()
        del hosts.running[1]
    assert "the member has been permanently removed from the cluster" in hosts.log(1)


def ctl(*words: str) -> str:
    """What a command says of its work."""
    command = [*forks.MUSTERCTL, *words]
    done = forks.run(
        command, env=environment(), capture_output=True, text=True, timeout=LIMIT_S)
    assert done.returncode == 0, done.stderr
    return done.stderr


def _holds_a_beginning(hosts: Hosts, acknowledged: dict[bytes, tuple[bytes, int]]) -> int:
    """A backup of the files of host 0, which does not run and whose shards have not come equally far:
    restored to a host of one shard it has all that was acknowledged up to its revision."""
    file, new = str(hosts.folder / "salvaged.db"), 4
    said = ctl("snapshot", "save", file, f"--data-dir={hosts.folder / 'h0'}")
    assert "of shard 1's log next" in said
    ctl("snapshot", "restore", file, f"--data-dir={hosts.folder / f'h{new}'}", f"--name=h{new}",
        f"--initial-cluster=h{new}={hosts.peer(new)}", f"--initial-advertise-peer-urls={hosts.peer(new)}")
    hosts.start(new)
    until(lambda: hosts.member(new).name, LIMIT_S)
    found = everything(hosts, new)
    revision: int = found.header.revision
    kvs = {kv.key: kv for kv in found.kvs}
    assert kvs[b"/q/k"].value == b"before"
    whole = {key: put for key, put in acknowledged.items() if put[1] <= revision}
    assert {key: (kvs[key].value, kvs[key].mod_revision) for key in whole} == whole
    assert not kvs.keys() & (acknowledged.keys() - whole.keys())
    kill(hosts, new)
    return revision


def _node_of_shard_1(hosts: Hosts, host: int) -> psutil.Process:
    run_dir = rundir.run_dir_of(str(hosts.folder / f"h{host}"))
    found = control.ask(os.path.join(run_dir, "control.sock"), {"do": "status"})
    return psutil.Process(next(node["pid"] for node in found["nodes"] if node["shard"] == 1))


@pytest.mark.timeout(400)
def test_entries_that_one_shard_never_got_are_made_up_where_the_other_went_on(tmp_path: Path) -> None:
    """H18: the state of shard 0 does not go back."""
    with three(tmp_path) as hosts:
        put = pb.PutRequest(key=b"/q/k", value=b"before")
        last = hosts.anywhere("KV/Put", put, pb.PutResponse).header.revision
        until(lambda: everything(hosts, 0, serializable=True).header.revision >= last, LIMIT_S)
        _node_of_shard_1(hosts, 0).send_signal(signal.SIGSTOP)
        writers = Writers(hosts, 8, at=(1, 2), over_shards=False)
        placement = Placement(SHARDS, 2)

        def written() -> list[int]:
            """To each shard."""
            keys = Counter(map(placement.shard_of, writers.keys()))
            return [keys[shard] for shard in range(SHARDS)]

        try:
            # another host may have to be elected in the one shard first
            until(lambda: min(written()) >= 100, LIMIT_S)
            kill(hosts, 1, 2)
        finally:
            writers.stop()
        process = hosts.running.pop(0)
        process.terminate()  # in order, so that what is applied is written
        process.wait(LIMIT_S)
        saved = _holds_a_beginning(hosts, writers.acknowledged)
        hosts.start(0, FORCED)
        until(lambda: hosts.member(0).name, LIMIT_S)
        assert '"lost_entries":{"1":[' in hosts.log(0)

        found = everything(hosts, 0)
        kvs = {kv.key: kv for kv in found.kvs}
        assert found.header.revision > saved >= last
        assert kvs[b"/q/k"].value == b"before"
        kept = {key: put for key, put in writers.acknowledged.items() if key in kvs}
        for key, (value, revision) in kept.items():
            assert (kvs[key].value, kvs[key].mod_revision) == (value, revision)
        lost = writers.acknowledged.keys() - kept.keys()
        print(f"kept {len(kept)} keys, {len(lost)} were only on the hosts that are lost")
        assert kept
        for key in (b"/q/k", min(lost), min(kept)):
            asked(hosts, 0, "KV/Put", pb.PutRequest(key=key, value=b"after"), pb.PutResponse)


@pytest.mark.timeout(400)
def test_what_goes_behind_the_gap_of_one_shard_is_told_beforehand_and_kept_in_a_file(tmp_path: Path) -> None:
    """As above, but the host is killed: no state of it is beyond the gap."""
    placement = Placement(SHARDS, 2)
    with three(tmp_path) as hosts:
        put = pb.PutRequest(key=b"/q/k", value=b"before")
        last = hosts.anywhere("KV/Put", put, pb.PutResponse).header.revision
        until(lambda: everything(hosts, 0, serializable=True).header.revision >= last, LIMIT_S)
        assert "this host lacks order records" not in hosts.log(0)
        _node_of_shard_1(hosts, 0).send_signal(signal.SIGSTOP)
        writers = Writers(hosts, 4, at=(1, 2), over_shards=False)

        def written() -> list[int]:
            keys = Counter(map(placement.shard_of, writers.keys()))
            return [keys[shard] for shard in range(SHARDS)]

        try:
            until(lambda: min(written()) >= 100, LIMIT_S)
            until(lambda: "this host lacks order records" in hosts.log(0), LIMIT_S)
            said = ctl("shard", "list", f"--endpoints={hosts.client(1)}", "--command-timeout=60s")
            assert re.search("host h0 lacks up to [0-9]+ order records of shards 1: a forced start", said)
            kill(hosts, 1, 2)
        finally:
            writers.stop()
        kill(hosts, 0)
        hosts.start(0, FORCED)
        until(lambda: hosts.member(0).name, LIMIT_S)

        (found,) = dropped.found_in(tmp_path / "h0" / "member")
        assert f'"dropped_changes":{found.changes},' in hosts.log(0)
        lines = [line for line in dropped.read(found.path) if line["type"] == "PUT"]
        lost = {b64decode(line["key"]): (b64decode(line["value"]), line["mod_revision"]) for line in lines
                if "mod_revision" in line}
        had = max(revision for _, revision in lost.values())
        kvs = {kv.key: (kv.value, kv.mod_revision) for kv in everything(hosts, 0).kvs}
        for key, put_ in writers.acknowledged.items():
            if placement.shard_of(key) == 0 and put_[1] <= had:
                assert kvs.get(key, lost.get(key)) == put_
        assert lost.keys() & writers.acknowledged.keys()
        print(f"{len(kvs)} keys kept, {len(lost)} in the file")

        process = hosts.running.pop(0)
        process.terminate()
        process.wait(LIMIT_S)
        said = ctl("snapshot", "save", str(tmp_path / "b.db"), f"--data-dir={tmp_path / 'h0'}", "--uneven")
        assert f"has dropped {found.changes} changes, of {', '.join(found.keys)}" in said
        assert salvaging.beside(tmp_path / "b.db").read_bytes() == found.path.read_bytes()


def _order_index(hosts: Hosts, host: int, shard: int) -> int:
    with urllib.request.urlopen(f"http://{hosts.client(host)}/muster/shards", timeout=10) as answer:
        return int(next(f for f in json.load(answer)["shards"] if f["shard"] == shard)["order_index"])


def _log_begins(hosts: Hosts, host: int) -> int:
    """The last record that a host's order log has dropped."""
    lines = [x for x in hosts.log(host).splitlines() if "truncated the log" in x and "node-0" in x]
    said = [re.search(r'index"?[=:](\d+)', line) for line in lines]
    return max((int(found[1]) for found in said if found), default=0)


@pytest.mark.timeout(500)
def test_what_the_order_log_has_dropped_for_a_shard_is_read_from_its_files(tmp_path: Path) -> None:
    """A shard without a majority, whose process stands still on the host that is left."""
    few = ("--snapshot-count=20", "--snapshot-catchup-entries=10")  # 400 records are kept usually
    placement = Placement(SHARDS, 2)
    own, other = (next(k for n in range(99) if placement.shard_of(k := b"/d%d/k" % n) == s) for s in (1, 0))
    with three(tmp_path, *few) as hosts:
        both = [pb.RequestOp(request_put=pb.PutRequest(key=key, value=b"both")) for key in (own, other)]
        last = hosts.anywhere("KV/Txn", pb.TxnRequest(success=both), pb.TxnResponse).header.revision
        until(lambda: everything(hosts, 0, serializable=True).header.revision >= last, LIMIT_S)
        stood = _order_index(hosts, 0, 0)
        for host in (0, 1):
            _node_of_shard_1(hosts, host).send_signal(signal.SIGSTOP)
        done: dict[bytes, bytes] = {}

        def write(number: int) -> None:
            for turn in itertools.count():
                if ended.is_set():
                    return
                with contextlib.suppress(grpc.RpcError):
                    key = other + b"%d" % number
                    hosts.call(2, "KV/Put", pb.PutRequest(key=key, value=b"%d" % turn), pb.PutResponse)
                    done[key] = b"%d" % turn

        ended = threading.Event()
        threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        try:
            until(lambda: _log_begins(hosts, 0) > stood + 100, LIMIT_S)
        finally:
            ended.set()
            for thread in threads:
                thread.join()
        kept = tmp_path / "h0" / "member" / "shard-0" / "kept"
        assert any(kept.iterdir())
        for host in (0, 1):
            _node_of_shard_1(hosts, host).kill()
        kill(hosts, 0, 1, 2)
        saved, live = backup_of_files(hosts, 0)
        assert (saved.order_index, saved.ends) == (saved.order_end, "")
        assert {own, other, *done} <= live.keys()
        hosts.start(0, FORCED)
        until(lambda: hosts.member(0).name, LIMIT_S)
        kvs = {kv.key: kv.value for kv in everything(hosts, 0).kvs}
        assert kvs == {own: b"both", other: b"both", **kvs}
        assert {key: int(kvs[key]) >= int(value) for key, value in done.items()} == dict.fromkeys(done, True)
        asked(hosts, 0, "KV/Put", pb.PutRequest(key=own, value=b"after"), pb.PutResponse)
