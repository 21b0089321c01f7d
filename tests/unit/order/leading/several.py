"""Several shards with a coordinator in one process: a store for transactions over them."""

from __future__ import annotations

from collections.abc import Iterator

from cluster.evaluate.overlay import Overlay
from cluster.evaluate.reading.ranges import Fields
from cluster.evaluate.txns.range_compares import RangeCompares
from cluster.evaluate.txns.transactions import finish
from cluster.evaluate.view import Current, Outcome
from cluster.order.leading.attempts import Reading
from cluster.order.leading.shard_leader import ShardLeader, Start
from cluster.order.log import Attempt, Cut, Fold
from cluster.order.prepare import Grant, Prepare, Touch
from cluster.order.sequencing.coordinator import Coordinator, Wide
from cluster.order.sequencing.fetching import Fetching
from cluster.order.shown import decode_ask
from cluster.pb import rpc_pb2 as pb
from cluster.placement import Placement
from cluster.wire.messages import Method, Status
from tests.unit.semantics.memory import MemoryShard

SHARDS = 3
TERM = 3  # of every other shard's leader
PLACEMENT = Placement(SHARDS, 2)
KEYS = [b"k%02d" % at for at in range(24)]
VALUES = (b"1", b"2", b"3")


class Moment:
    """A shard at one revision."""

    def __init__(self, part: Part, revision: int) -> None:
        self._part = part
        self.revision = revision
        self.compact_revision = part.compact_revision

    def scan(
        self, start: bytes, end: bytes, look: int = 0, revision: int = 0
    ) -> Iterator[tuple[bytes, bytes]]:
        return self._part.scan(start, end, revision or self.revision)


class Before(Moment):
    """The same, as a view."""

    def scan(  # type: ignore[override]  # as a view has it
        self, start: bytes, end: bytes, revision: int = 0, look: int = 0
    ) -> Iterator[tuple[bytes, bytes]]:
        return super().scan(start, end, look, revision)

    def get(self, key: bytes) -> bytes | None:
        return self._part.get(key, self.revision)

    def current(self, key: bytes) -> Current | None:
        kv = self.get(key)
        if kv is None:
            return None
        fields = Fields(kv)
        return Current(fields.create, fields.mod, fields.version, fields.lease)


class Part(MemoryShard):
    """As ``cluster.evaluate.replica.AppliedState``. Counts the rows that are read."""

    def __init__(self) -> None:
        super().__init__()
        self.rows = 0

    def scan(
        self, start: bytes, end: bytes, revision: int = 0, look: int = 0
    ) -> Iterator[tuple[bytes, bytes]]:
        for row in super().scan(start, end, revision, look):
            self.rows += 1
            yield row

    def count(self, start: bytes, end: bytes) -> int:
        return sum(1 for _ in super().scan(start, end))

    def reader(self, revision: int = 0) -> Moment:
        return Moment(self, revision or self.revision)

    live_count = count

    def lease(self, lease: int) -> tuple[int, int] | None:
        return None

    def changes(self, from_revision: int) -> Iterator[tuple[int, int, int, bytes]]:
        return iter([(at, 0, kind, key) for at, kind, key, _ in self.events if at >= from_revision])


class Store:
    """A store of three shards, whose sequencer talks to the leaders of the two others, and a store in one."""

    def __init__(self) -> None:
        self.whole = MemoryShard()
        self.parts = [Part() for _ in range(SHARDS)]
        self.asked: list[tuple[int, list[Touch]]] = []
        self.granted_bytes = 0
        self.noise: list[tuple[bytes, bytes]] = []
        self.looks: list[int] = []  # shards in which was looked ahead
        self.pieces = 0  # of rows that were fetched
        self.rewrites = True
        self.longest = 0  # rows that were read in one turn of anybody's loop
        self._read = 0

    def put(self, key: bytes, value: bytes) -> None:
        """At a revision of its own: the other shards skip it."""
        body = pb.PutRequest(key=key, value=value).SerializeToString()
        self.whole.execute(Method.PUT, body)
        for shard, part in enumerate(self.parts):
            if shard == PLACEMENT.shard_of(key):
                part.execute(Method.PUT, body)
            else:
                part.revision += 1

    def turn(self) -> None:
        """One is over."""
        read = sum(part.rows for part in self.parts)
        self.longest, self._read = max(self.longest, read - self._read), read

    def run(self, request: pb.TxnRequest | pb.DeleteRangeRequest) -> Outcome:
        """What the sequencer makes of it."""
        coordinator: Coordinator[str] = Coordinator(
            5, PLACEMENT, Overlay(self.parts[0]),  # type: ignore[arg-type]
            Fold(self.whole.revision, {1: Cut(1, TERM, 0), 2: Cut(1, TERM, 0)}), max_txn_ops=128,
            heartbeat_ms=100)
        leaders: dict[int, ShardLeader[int]] = {}
        for shard in range(1, SHARDS):
            leaders[shard] = ShardLeader(
                self.parts[shard], shard, TERM,  # type: ignore[arg-type]
                Start(5, 0), max_txn_ops=128)
            leaders[shard].applied_records([(1, 5, [])])
            leaders[shard].serve()
            coordinator.leader_of(shard, TERM)
        outcomes: list[tuple[Outcome, Wide[str]]] = []

        def append(item: bytes, outcome: Outcome, wide: Wide[str]) -> None:
            outcomes.append((outcome, wide))

        method = Method.TXN if isinstance(request, pb.TxnRequest) else Method.DELETE_RANGE
        assert coordinator.submit("client", method, request.SerializeToString())
        for turn in range(30):
            self.turn()
            coordinator.run(turn, append)
            self.turn()
            if outcomes:
                return self._answered(*outcomes[0], leaders)
            for wide, looked in coordinator.take_unlooked():
                looked = self._look(0, looked)
                self._others_put((0,) if wide.attempt else (0, 1, 2), coordinator)
                coordinator.looked_at(wide, looked)
            for message in coordinator.take_messages():
                if message.method == Method.PREPARE:
                    self._prepare(coordinator, leaders[message.shard], Prepare.decode(message.body))
                else:
                    given_up = Attempt(*_attempt(message.body))
                    leaders[message.shard].release(given_up)
                    leaders[message.shard].shown.drop(given_up)  # as its node does
        raise AssertionError("it was not done")

    def _answered(self, outcome: Outcome, wide: Wide[str], leaders: dict[int, ShardLeader[int]]) -> Outcome:
        """Its answer is there, if that shows many rows: they are fetched when everything is written anew."""
        before, pinned = self.whole.revision, wide.pinned
        assert set(pinned) == {shard for shard, leader in leaders.items() if len(leader.shown)}
        if outcome.late is None:
            return outcome
        if self.rewrites:
            for part in self.parts:
                for key in KEYS:
                    part.execute(Method.PUT, pb.PutRequest(key=key, value=b"later").SerializeToString())
        ends: list[bool] = []
        steps = outcome.late.pieces(Before(self.parts[0], before))  # type: ignore[arg-type]
        if pinned:
            assert wide.attempt is not None
            assert wide.fetched is not None
            fetching = Fetching(100, 1000)
            fetching.start(wide.attempt, pinned, wide.fetched, lambda: True, ends.append, 0)
            while asks := fetching.take_messages():
                for ask in asks:
                    if ask.answered:
                        self.pieces += 1
                        piece = leaders[ask.shard].shown.piece(*decode_ask(ask.body))
                        self.turn()
                        fetching.came(ask, piece, 0)
                    else:
                        leaders[ask.shard].shown.drop(ask.attempt)
            assert not len(fetching)
            assert not any(len(leader.shown) for leader in leaders.values())
        assert all(ends)
        self.turn()
        while True:
            try:
                next(steps)
            except StopIteration as end:
                outcome.tail = b"".join(end.value)
                return outcome
            finally:
                self.turn()

    def _look(self, shard: int, looked: RangeCompares | Reading) -> RangeCompares | Reading:
        if isinstance(looked, Reading):
            for _ in looked.steps():
                self.turn()
            return looked
        self.looks.append(shard)
        part = self.parts[shard]
        if looked.unwalked(part.compact_revision):
            finish(looked.walk(part))
        finish(looked.catch_up(part))  # type: ignore[arg-type]
        return looked

    def _others_put(self, free: tuple[int, ...], coordinator: Coordinator[str]) -> None:
        """What is written while others look, if its shard is not locked."""
        if self.noise and PLACEMENT.shard_of(self.noise[-1][0]) in free:
            self.put(*self.noise.pop())
            coordinator._view.revision += 1

    def _prepare(self, coordinator: Coordinator[str], leader: ShardLeader[int], prepare: Prepare) -> None:
        self.asked.append((leader.shard, prepare.touches))
        self.turn()
        leader.prepare(0, prepare)
        self.turn()
        while unlooked := leader.take_unlooked():
            for _, attempt, looked in unlooked:
                assert isinstance(attempt, Attempt)
                looked = self._look(leader.shard, looked)
                locked = leader._table.find(attempt) is not None
                self._others_put((0,) if locked else (0, leader.shard), coordinator)
                leader.looked_at(attempt, looked)
        for _, status, body in leader.take_answers():
            assert status == Status.OK
            assert isinstance(body, bytes)
            self.granted_bytes += len(body)
            coordinator.granted(prepare.attempt, leader.shard, Grant.decode(body))


def _attempt(body: bytes) -> tuple[int, int]:
    return int.from_bytes(body[:8], "little"), int.from_bytes(body[8:16], "little")
