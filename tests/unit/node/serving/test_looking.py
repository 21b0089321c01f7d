"""Range compares that decide what a transaction writes: looked at in slices, as if they were looked at in its
turn."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cluster.errors import EtcdError
from cluster.evaluate import requests as evaluate
from cluster.evaluate.overlay import NotYet
from cluster.evaluate.reading import rows as reading_rows
from cluster.evaluate.replica import Leader
from cluster.evaluate.txns import range_compares
from cluster.evaluate.txns.compares import Unlooked
from cluster.faults import faults
from cluster.grain import GRAIN
from cluster.pb import rpc_pb2 as pb
from cluster.wire.messages import HEAD, Method, Status
from node.links.fronts import FrontLink
from node.serving.txns import looking
from node.slicing import slicer
from tests.unit.node.serving.test_long_answers import KEYS, Replica, fill, span, transaction, watched_steps


@pytest.fixture
def replica(tmp_path: Path) -> Iterator[Replica]:
    replica = Replica(tmp_path / "state")
    yield replica
    replica.store.close()


def compared(replica: Replica, monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Every evaluation after a look ahead is compared with one that looks at all of it in its turn."""
    execute = Leader.execute
    found: list[bool] = []

    def both(self: Leader, method: int, body: bytes, looked: Any = None) -> Any:
        if looked is None:
            return execute(self, method, body)
        expected: Any
        try:
            expected = evaluate.txn(self.view, body, 128)
        except EtcdError as e:
            expected = e.encode()
        refusal = None
        try:
            outcome = execute(self, method, body, looked)
        except EtcdError as e:
            refusal = e
        except (Unlooked, NotYet):
            found.append(False)
            raise
        found.append(True)
        if refusal is not None:
            assert refusal.encode() == expected
            raise refusal
        assert (outcome.items, outcome.revision) == (expected.items, expected.revision)
        return outcome

    monkeypatch.setattr(Leader, "execute", both)
    return found


def compare(rng: random.Random, revision: int) -> pb.Compare:
    key, end = rng.choice(((KEYS[0], b"\0"), (KEYS[10], KEYS[40]), span(rng)))
    target = rng.choice((0, 1, 2, 2, 3, 4))
    found = pb.Compare(key=key, range_end=end, result=rng.choice((0, 1, 2, 3, 3, 7)), target=target)  # type: ignore[arg-type]
    if target == 3:
        found.value = b"%d" % rng.randrange(4)
    elif target == 2:
        found.mod_revision = rng.randint(0, revision)
    elif target == 1:
        found.create_revision = rng.randint(0, revision)
    elif target == 0:
        found.version = rng.choice((0, 1, 1, 2))
    return found


def noise(rng: random.Random, replica: Replica) -> None:
    """A write of somebody else, logged and perhaps applied."""
    what = rng.random()
    if what < 0.6:
        replica.write(Method.PUT, pb.PutRequest(key=rng.choice(KEYS), value=b"%d" % rng.randrange(4)))
    elif what < 0.9:
        key, end = span(rng)
        replica.write(
            Method.DELETE_RANGE, pb.DeleteRangeRequest(key=key, range_end=end if rng.random() < 0.2 else b"")
        )
    elif what < 0.95:
        replica.write(Method.COMPACT, pb.CompactionRequest(revision=replica.store.revision))
    if rng.random() < 0.6 and replica.index < replica.raft.last:
        replica.apply(replica.index + 1)
    replica.writes.run()


@pytest.mark.parametrize("seed", range(40))
def test_a_look_ahead_decides_what_a_look_in_the_turn_decides(
    replica: Replica, seed: int, monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Beside writes that are logged, applied and compacted at any moment of it."""
    rng = random.Random(seed)
    for module, name, value in (
        (GRAIN, "turn_rows", rng.choice((0, 9))),
        (GRAIN, "many_keys", rng.choice((4, 256))),
        (reading_rows, "_STEP_ROWS", rng.choice((1, 7))),
        (range_compares, "_KEPT", rng.choice((1, 2, 16))),
        (range_compares, "LOOKS", rng.choice((1, 4, 4096))),
        (range_compares, "MOST_LOOKS", 4096),
        (range_compares, "_STEP_CHANGES", 2),
        (range_compares, "_STEP_CHECKS", 3),
        (looking, "FEW", rng.choice((0, 64))),
        (slicer, "SLICE_S", 0.0),
    ):
        monkeypatch.setattr(module, name, value)
    for key in rng.sample(KEYS, rng.choice((0, 2, 40))):
        replica.write(Method.PUT, pb.PutRequest(key=key, value=b"%d" % rng.randrange(4)))
    replica.settle()
    found = compared(replica, monkeypatch)
    for _ in range(15):
        request = transaction(rng, replica.store.revision, 1, False)
        del request.compare[:]
        request.compare.extend(compare(rng, replica.store.revision) for _ in range(rng.choice((1, 1, 2, 3))))
        if rng.random() < 0.3:
            nested = pb.TxnRequest(compare=[compare(rng, replica.store.revision)], success=[pb.RequestOp(
                request_put=pb.PutRequest(key=b"nested", value=b"n"))])
            request.success.append(pb.RequestOp(request_txn=nested))
        rid = replica.write(Method.TXN, request)
        for _ in range(rng.choice((0, 5, 30))):
            replica.loop.turn()
            if rng.random() < 0.5:
                noise(rng, replica)
            replica.writes.run()
        assert rid in replica.settle()
    assert True in found


FULL = pb.Compare(key=b"f", range_end=b"g", target=pb.Compare.VERSION, version=9, result=pb.Compare.LESS)
PUT = pb.RequestOp(request_put=pb.PutRequest(key=b"done", value=b"v"))


def test_fifty_compares_over_many_keys_walk_these_once_and_hold_nobody_up(
    replica: Replica, monkeypatch: pytest.MonkeyPatch,
) -> None:
    """1 KB of them over 60,000 keys held all writes up for 7 s."""
    fill(replica, 5000)
    rid = replica.write(Method.TXN, pb.TxnRequest(compare=[FULL] * 50, success=[PUT]))
    steps = watched_steps(monkeypatch)
    other = replica.write(Method.PUT, pb.PutRequest(key=b"f000003", value=b"x"))
    found = replica.settle()
    assert pb.TxnResponse.FromString(found[rid][1][HEAD.size :]).succeeded
    assert found[other][0] == Status.OK
    assert 5000 // 256 <= len(steps) <= 5000 // 256 + 2
    assert max(steps) <= 256


def test_a_compare_that_fails_early_is_decided_in_its_turn(replica: Replica) -> None:
    fill(replica, 5000)
    failing = pb.Compare(
        key=b"f", range_end=b"g", target=pb.Compare.VERSION, version=5, result=pb.Compare.GREATER
    )
    replica.write(Method.TXN, pb.TxnRequest(compare=[failing] * 50, success=[PUT]))
    assert not len(replica.looking)


def test_deleted_keys_that_are_passed_over_count(replica: Replica) -> None:
    """60,000 tombstones take as long as 60,000 keys."""
    fill(replica, 5000)
    replica.write(Method.DELETE_RANGE, pb.DeleteRangeRequest(key=b"f", range_end=b"g"))
    replica.settle()
    rid = replica.write(Method.TXN, pb.TxnRequest(compare=[FULL], success=[PUT]))
    assert len(replica.looking) == 1
    assert replica.settle()[rid][0] == Status.OK


def test_a_look_ahead_ends_with_the_term(replica: Replica) -> None:
    fill(replica, 5000)
    rid = replica.write(Method.TXN, pb.TxnRequest(compare=[FULL], success=[PUT]))
    replica.raft.term += 1
    replica.writes.resign()
    assert replica.settle()[rid][0] == Status.NOT_LEADER
    assert not len(replica.looking)
    assert not replica.writes._looked


def test_too_many_looks_are_refused(replica: Replica, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(looking, "MOST", 2)
    fill(replica, 600)
    rids = [replica.write(Method.TXN, pb.TxnRequest(compare=[FULL], success=[PUT])) for _ in range(3)]
    found = replica.settle()
    assert [found[rid][0] for rid in rids] == [Status.OK, Status.OK, Status.ERROR]


@pytest.mark.parametrize("slices", [1, 3])
def test_a_look_ahead_that_is_given_up_midway_decides_nothing(
    replica: Replica, monkeypatch: pytest.MonkeyPatch, slices: int,
) -> None:
    """Its front has given the request up by then. The key that fails is the last one of the range."""
    monkeypatch.setattr(slicer, "SLICE_S", 0.0)
    fill(replica, 5000)
    replica.write(Method.PUT, pb.PutRequest(key=b"f~", value=b"x"))
    replica.write(Method.PUT, pb.PutRequest(key=b"f~", value=b"y"))
    replica.settle()
    new = pb.Compare(key=b"f", range_end=b"g", target=pb.Compare.VERSION, version=2, result=pb.Compare.LESS)
    rid = replica.write(Method.TXN, pb.TxnRequest(compare=[new], success=[PUT]))
    for _ in range(slices):
        replica.loop.turn()
    replica.link.overdue = rid
    replica.settle()
    assert replica.store.get(b"done") is None
    assert not replica.writes._aside


def test_looks_that_wait_and_are_given_up_end_one_after_the_other(replica: Replica) -> None:
    """Each begins the next one in its own slice; the slicer took that for one more, and ended the node over
    it."""
    fill(replica, 600)
    for _ in range(looking.AT_ONCE + 4):
        replica.write(Method.TXN, pb.TxnRequest(compare=[FULL], success=[PUT]))
    assert len(replica.looking) == looking.AT_ONCE + 4
    replica.link.overdue = replica.rid
    replica.settle()
    assert not len(replica.looking)


def test_a_mistake_behind_a_look_leaves_the_next_one_its_turn(replica: Replica) -> None:
    fill(replica, 600)
    waits: list[Any] = []

    def mistaken(seen: Any) -> None:
        raise ValueError("a mistake")

    for rid in range(looking.AT_ONCE):
        looked = range_compares.RangeCompares(pb.TxnRequest(compare=[FULL]))
        replica.looking.start(replica.link, rid, looked, lambda: True, mistaken)
    looked = range_compares.RangeCompares(pb.TxnRequest(compare=[FULL]))
    replica.looking.start(replica.link, looking.AT_ONCE, looked, lambda: True, waits.append)
    replica.settle()
    assert waits == [looked]
    assert [where for where, _ in faults.take()] == ["reading"]


def test_fronts_take_turns_with_the_looks_that_wait(
    replica: Replica, monkeypatch: pytest.MonkeyPatch,
) -> None:
    fill(replica, 600)
    order: list[bytes] = []
    resume = replica.writes.resume

    def resumed(link: FrontLink, rid: int, looked: Any) -> None:
        order.append(link.identity)
        resume(link, rid, looked)

    monkeypatch.setattr(replica.writes, "resume", resumed)
    for _ in range(3 * looking.AT_ONCE):
        replica.write(Method.TXN, pb.TxnRequest(compare=[FULL], success=[PUT]))
    replica.link = FrontLink(b"other", replica._frame, b"", 2)
    replica.write(Method.TXN, pb.TxnRequest(compare=[FULL], success=[PUT]))
    replica.settle()
    assert len(order) == 3 * looking.AT_ONCE + 1
    assert order.index(b"other") <= 2 * looking.AT_ONCE


def test_long_work_for_a_request_goes_on_when_other_work_for_it_ends(replica: Replica) -> None:
    """A look of an attempt that has ended, and that of the next one."""
    done: list[str] = []

    def work(name: str, steps: int) -> Iterator[None]:
        for _ in range(steps):
            yield
        done.append(name)

    replica.reads.start(replica.link, 7, work("ended", 1))
    replica.reads.start(replica.link, 7, work("next", 3))
    replica.loop.run()
    assert done == ["ended", "next"]
