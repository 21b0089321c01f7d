"""What a leader shows before its revision is known: answers are those of the requests one after another."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from typing import Any

import pytest

from cluster.effects.records import PENDING_REVISION
from cluster.errors import EtcdError
from cluster.evaluate.steps import finish
from cluster.evaluate.txns.transactions import DueAnswer
from cluster.evaluate.view import Current, Late, Version
from cluster.grain import GRAIN
from cluster.order.leading.bound import Bound, pending_row
from cluster.order.leading.shard_leader import ShardLeader, Start
from cluster.pacing.pace import Pace
from cluster.pb import rpc_pb2 as pb
from cluster.wire.messages import HEAD, Method, Status
from cluster.wire.protobuf import key_value
from tests.unit.order.leading.several import Before
from tests.unit.semantics.memory import MemoryShard

KEYS = [b"a", b"b", b"c", b"d"]
TERM = 3
PAUSE = (b"", b"")


def test_a_pending_revision_becomes_what_its_batch_was_given() -> None:
    bound = Bound(2)
    bound.bind(PENDING_REVISION, 10)
    bound.bind(PENDING_REVISION + 2, 12)  # of the same cut
    bound.bind(PENDING_REVISION + 3, 20)
    given = [9, PENDING_REVISION + 1, PENDING_REVISION + 3, PENDING_REVISION + 4]
    assert [bound.known(revision) for revision in given] == [9, 11, 13, 21]
    bound.bind(PENDING_REVISION + 5, 30)
    assert bound.known(PENDING_REVISION + 4) == 21
    with pytest.raises(LookupError):
        bound.known(PENDING_REVISION + 1)  # nothing that is answered now can show it


@pytest.mark.parametrize("key", [b"k", b"k" * 300])
@pytest.mark.parametrize("value", [b"", b"v" * 300])
@pytest.mark.parametrize("created", [5, PENDING_REVISION + 1])
def test_a_pending_row_is_what_the_key_holds(key: bytes, value: bytes, created: int) -> None:
    bound = Bound(1)
    bound.bind(PENDING_REVISION, 100)
    mod = PENDING_REVISION + 2
    version = Version(created, mod, 3, 9, key_value(key, created, mod, 3, value, 9))
    row = pending_row(key, version)
    assert pb_row(row) == (key, created, mod, 3, value, 9)
    known = 101 if created > PENDING_REVISION else created
    assert pb_row(bound.row(row) or b"") == (key, known, 102, 3, value, 9)
    assert bound.current(version) == Current(known, 102, 3, 9)
    settled = key_value(key, 5, 6, 1, value, 0)
    assert bound.row(settled) is settled


def pb_row(row: bytes) -> tuple[bytes, int, int, int, bytes, int]:
    kv = pb.RangeResponse.FromString(b"\x12" + length(row) + row).kvs[0]
    return kv.key, kv.create_revision, kv.mod_revision, kv.version, kv.value, kv.lease


def length(row: bytes) -> bytes:
    size, found = len(row), bytearray()
    while size >= 0x80:
        found.append(size & 0x7F | 0x80)
        size >>= 7
    return bytes([*found, size])


class Store:
    """The applied state over the model."""

    compact_revision = 0

    def __init__(self, model: MemoryShard) -> None:
        self._model = model
        self.current, self.get, self.live_count = model.current, model.get, model.count
        self.lease = model.leases.get

    @property
    def revision(self) -> int:
        return self._model.revision

    def scan(
        self, start: bytes, end: bytes, revision: int = 0, look: int = 0
    ) -> Iterator[tuple[bytes, bytes]]:
        for number, row in enumerate(self._model.scan(start, end, revision)):
            if look and number % 2:
                yield PAUSE
            yield row
        if look:
            yield PAUSE


class World:
    """A leader over the model, to which its requests come one after another once they are in order."""

    def __init__(self) -> None:
        self.model = MemoryShard()
        self.model.revision, self.model.leases = 7, {7: 60}
        store: Any = Store(self.model)
        self.leader: ShardLeader[int] = ShardLeader(
            store, 1, TERM, Start(5, 0), max_txn_ops=128, pace=Pace(full_requests=1))
        self.leader.applied_records([(1, 2, [])])
        self.leader.serve()
        self.bodies: list[tuple[Method, bytes]] = []
        self.index, self.record = 5, 1
        self.logged: list[list[int]] = []
        self.expected: dict[int, bytes] = {}
        self.answered: dict[int, bytes] = {}
        self.elsewhere: set[int] = set()  # or given up

    def submit(self, method: Method, request: Any) -> None:
        body = request.SerializeToString()
        self.leader.submit(len(self.bodies), method, body)
        self.bodies.append((method, body))

    def log(self) -> None:
        self.leader.run()
        for token, _, _ in self.leader.take_unlooked():  # of ranges that it compares
            self.leader.resume(token, None)
            self.elsewhere.add(token)
        if self.leader.dirty:
            batch = self.leader._open
            self.index += 1
            self.leader.seal()
            self.leader.logged(self.index)
            self.logged.append(batch.owed())

    def cut(self, entries: int, others: int) -> None:
        """So many entries are in order, behind changes of other shards."""
        done, self.logged = self.logged[:entries], self.logged[entries:]
        self.model.revision += others
        base = self.model.revision
        for token in [token for batch in done for token in batch]:
            try:
                revision, tail = self.model.execute(*self.bodies[token])
                self.expected[token] = HEAD.pack(revision, TERM) + tail
            except EtcdError as error:
                self.expected[token] = error.encode()
        self.record += 1
        self.leader.applied_entries(self.index - len(self.logged), base)
        self.leader.applied_records([(self.record, 2, [])])
        for puts, before in self.leader.take_puts():
            for revision, put in enumerate(puts, before + 1):
                self.answered[put[0]] = HEAD.pack(revision, TERM)
        for token, status, answer in self.leader.take_answers():
            if status == Status.ELSEWHERE:
                self.elsewhere.add(token)
                continue
            if isinstance(answer, DueAnswer):
                before: Any = Before(self.model, answer.before)  # type: ignore[arg-type]
                answer = HEAD.pack(answer.revision, TERM) + b"".join(finish(answer.late.pieces(before)))
            self.answered[token] = answer


def hot(value: bytes) -> Any:
    """Show the row before and behind a put of it."""
    get = pb.RequestOp(request_range=pb.RangeRequest(key=b"a"))
    return pb.TxnRequest(success=[get, pb.RequestOp(request_put=pb.PutRequest(key=b"a", value=value)), get])


def test_transactions_that_show_one_key_go_into_one_entry() -> None:
    """Each waited for the one before it to be in order: a round each, 60 a second of three hosts."""
    world = World()
    for number in range(50):
        world.submit(Method.TXN, hot(b"%d" % number))
    world.log()
    assert [len(batch) for batch in world.logged] == [50]
    world.cut(1, 3)
    assert world.answered == world.expected
    last = pb.TxnResponse.FromString(world.answered[49][HEAD.size :])
    rows = [last.responses[at].response_range.kvs[0] for at in (0, 2)]
    assert [(kv.create_revision, kv.mod_revision, kv.version, kv.value) for kv in rows] == [
        (11, 59, 49, b"48"), (11, 60, 50, b"49")]


def test_a_key_may_be_hot_for_as_long_as_it_likes() -> None:
    """Its creation stayed pending while each entry came before the one in front of it was in order."""
    world = World()
    for number in range(200):
        world.submit(Method.TXN, hot(b"%d" % number))
        world.log()
        if number:
            world.cut(1, 1)
    world.cut(1, 1)
    assert world.answered == world.expected
    assert len(world.answered) == 200


def test_many_pending_rows_are_shown_late() -> None:
    """100 transactions that showed 5,000 rows that were pending took a turn of seconds."""
    world = World()
    for number in range(GRAIN.late_rows + 1):
        world.submit(Method.PUT, pb.PutRequest(key=b"a%d" % number, value=b"v"))
    shown = pb.RequestOp(request_range=pb.RangeRequest(key=b"a", range_end=b"b"))
    world.submit(Method.TXN, pb.TxnRequest(success=[shown]))
    world.log()
    assert isinstance(world.leader._sealed.entries[-1].replies[-1].tail, Late)


def test_a_delete_shows_the_pending_row_before_it() -> None:
    world = World()
    world.submit(Method.PUT, pb.PutRequest(key=b"a", value=b"v"))
    world.submit(Method.DELETE_RANGE, pb.DeleteRangeRequest(key=b"a", prev_kv=True))
    world.log()
    assert world.logged == [[0, 1]]
    world.cut(1, 2)
    assert world.answered == world.expected


def test_a_put_shows_the_pending_row_before_it() -> None:
    world = World()
    for number in range(5):
        world.submit(Method.PUT, pb.PutRequest(key=b"a", value=b"%d" % number, prev_kv=True))
    world.submit(Method.PUT, pb.PutRequest(key=b"a", ignore_value=True, lease=7))
    world.log()
    world.cut(1, 2)
    assert world.answered == world.expected
    assert pb.PutResponse.FromString(world.answered[4][HEAD.size :]).prev_kv.mod_revision == 13


def test_a_transaction_reads_back_its_own_put_of_a_key_that_is_not_in_order_yet() -> None:
    world = World()
    for number in range(3):
        txn = hot(b"%d" % number)
        del txn.success[0]
        world.submit(Method.TXN, txn)
    world.log()
    world.cut(1, 2)
    assert world.answered == world.expected
    last = pb.TxnResponse.FromString(world.answered[2][HEAD.size :]).responses[1].response_range.kvs[0]
    assert (last.create_revision, last.mod_revision, last.version) == (10, 12, 3)


def test_what_it_compares_with_an_unknown_revision_still_waits() -> None:
    world = World()
    world.submit(Method.PUT, pb.PutRequest(key=b"a", value=b"1"))
    world.submit(Method.TXN, pb.TxnRequest(compare=[pb.Compare(key=b"a", target="MOD", mod_revision=9)]))
    taken = pb.RangeRequest(key=b"a", range_end=b"z", min_mod_revision=9)
    world.submit(Method.TXN, pb.TxnRequest(success=[pb.RequestOp(request_range=taken)]))
    world.log()
    assert world.logged == [[0]]
    world.cut(1, 1)
    world.log()
    world.cut(1, 0)
    assert world.answered == world.expected
    assert len(world.answered) == 3


def a_key(r: Random) -> dict[str, bytes]:
    key = r.choice(KEYS)
    return {"key": key} if r.random() < 0.7 else {"key": key, "range_end": r.choice([b"c", b"z", b"\0"])}


def a_revision(r: Random) -> int:
    return r.randrange(5, 40)


def a_put(r: Random) -> Any:
    put = pb.PutRequest(key=r.choice(KEYS), value=b"%d" % r.randrange(3), lease=r.choice([0, 0, 7]))
    if r.random() < 0.2:
        put.ignore_value, put.value = True, b""
    put.prev_kv = r.random() < 0.4
    return put


def a_range(r: Random) -> Any:
    if r.random() < 0.5:
        return pb.RangeRequest(key=r.choice(KEYS))
    found = pb.RangeRequest(**a_key(r), limit=r.choice([0, 0, 1, 2]), keys_only=r.random() < 0.1,
                            count_only=r.random() < 0.1)
    found.sort_order, found.sort_target = r.randrange(3), r.randrange(5)  # type: ignore[assignment]
    if r.random() < 0.2:
        name = r.choice(["min_mod", "max_mod", "min_create", "max_create"])
        setattr(found, name + "_revision", a_revision(r))
    return found


def a_txn(r: Random, depth: int = 0) -> Any:
    txn = pb.TxnRequest()
    for _ in range(r.choice([0, 1, 1, 2])):
        compare = txn.compare.add(**a_key(r), result=r.randrange(4), target=r.randrange(4))
        if compare.target == pb.Compare.VALUE:
            compare.value = b"%d" % r.randrange(3)
        else:
            name = ("version", "create_revision", "mod_revision")[compare.target]
            setattr(compare, name, a_revision(r) if compare.target else r.randrange(3))
    for branch in (txn.success, txn.failure):
        put = set[bytes]()
        for _ in range(r.randrange(4)):
            roll = r.random()
            if roll < 0.35:
                request = a_put(r)
                if request.key not in put:
                    put.add(request.key)
                    branch.add(request_put=request)
            elif roll < 0.8:
                branch.add(request_range=a_range(r))
            elif roll < 0.9 or depth:
                branch.add(request_delete_range=pb.DeleteRangeRequest(**a_key(r), prev_kv=r.random() < 0.5))
            else:
                branch.add(request_txn=a_txn(r, 1))
    return txn


@pytest.mark.parametrize("seed", range(100))
def test_whatever_is_asked_is_answered_as_one_after_another(seed: int) -> None:
    r = Random(seed)
    world = World()
    for _ in range(30):
        for _ in range(r.randrange(6)):
            roll = r.random()
            if roll < 0.25:
                world.submit(Method.PUT, pb.PutRequest(key=r.choice(KEYS), value=b"%d" % r.randrange(3)))
            elif roll < 0.4:
                world.submit(Method.PUT, a_put(r))
            elif roll < 0.5:
                request = pb.DeleteRangeRequest(**a_key(r), prev_kv=r.random() < 0.5)
                world.submit(Method.DELETE_RANGE, request)
            else:
                world.submit(Method.TXN, a_txn(r))
        if r.random() < 0.7:
            world.log()
        if world.logged and r.random() < 0.4:
            world.cut(r.randrange(1, len(world.logged) + 1), r.randrange(3))
    while world.leader.busy:
        world.log()
        world.cut(len(world.logged), 1)
    assert world.answered == world.expected
    assert len(world.answered) + len(world.elsewhere) == len(world.bodies)
