"""Ranges as this replica answers them from its applied state, in one answer or in parts.

Hot path: a read of one key costs one parse (0.3 us), one store look-up and two joins, at once. Everything
that may be long is a generator for ``node.serving.reads``.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from typing import NamedTuple

from cluster import errors
from cluster.errors import EtcdError
from cluster.evaluate.reading.ranges import RangeRead, RowSource, plain_answer, plain_get
from cluster.evaluate.reading.rows import some_rows
from cluster.evaluate.steps import STEP_BYTES
from cluster.placement import Owned
from cluster.raft import Raft
from cluster.wire.messages import HEAD, Status
from node.links.fronts import FrontLink
from node.serving.reads import reader_at
from node.serving.streams import PIECE_BYTES, Answer, RangeStream, Streams
from node.slicing.slicer import Slices
from node.storage import LEAST_ROWS, Compacted, FutureRevision, Reader, StateStore

_SLICE_ROWS = 256
_PARTIAL_ROWS = 1024
_SIGN_SLICES = 16  # with nothing to send, the front hears that the read goes on: some ms
_LOOK = 1000  # rows passed over in a slice: of keys that are gone, or newer
_RESTS = 2048  # notes of lists whose next page may be asked for: two of each page
_REST_KEY_BYTES = 1024  # of one that is remembered
_GAP_SLICES = 64  # of what other hosts have served of a list since; with more, it may be another list


class _Rest(NamedTuple):
    """What came behind a list's last page here."""

    start: bytes
    keys: int
    owned: Owned | None  # by what: a switch takes no revision
    parts: list[tuple[bytes, bytes]]  # G6: that are shown


class Ranges:
    def __init__(self, store: StateStore, raft: Raft, streams: Streams) -> None:
        self._store = store
        self._raft = raft
        self._streams = streams
        self.count = 0
        # by revision, end and start; and each list's last one, without its start: another page may come next
        self._rests: dict[tuple[int, bytes, bytes | None], _Rest] = {}

    def replaced(self) -> None:
        self._rests.clear()

    def get(self, key: bytes) -> tuple[int, int, bytes]:
        """For a front in this very process: applied revision, term, and the answer for one key after its
        header."""
        self.count += 1
        return self._store.revision, self._raft.term, plain_answer(self._store.get(key))

    def whole(self, link: FrontLink, rid: int, revision: int, body: bytes) -> Slices | None:
        self.count += 1
        store = self._store
        if not revision and (plain := plain_get(body)) is not None:
            tail = plain_answer(store.get(plain[0]))
            if len(tail) > PIECE_BYTES:
                return self._large(link, rid, tail)
            link.ok(rid, store.revision, self._raft.term, tail)
            return None
        read = RangeRead(body)
        at = revision or read.revision
        if read.single and not read.count_only:
            try:
                kv = store.get(read.key, at)
            except Compacted as e:
                raise EtcdError(errors.COMPACTED) from e
            except FutureRevision as e:
                raise EtcdError(errors.FUTURE_REV) from e
            if kv is not None:
                read.feed(((read.key, kv),))
            tail = read.finish()
            if len(tail) > PIECE_BYTES:
                return self._large(link, rid, tail)
            link.ok(rid, store.revision, self._raft.term, tail)
            return None
        return self._long_range(link, rid, read, at)

    def _large(self, link: FrontLink, rid: int, tail: bytes) -> Slices:
        """One key's answer, as its front takes it: that of many clients is more than a link holds."""
        answer = self._streams.answer(link, rid, [HEAD.pack(self._store.revision, self._raft.term)])
        return answer.run(answer.last([tail]))

    def _long_range(self, link: FrontLink, rid: int, read: RangeRead, at: int) -> Slices:
        """From one snapshot at one revision, whatever is applied meanwhile (H16)."""
        reader = reader_at(self._store, at)
        answer = self._streams.answer(link, rid, [HEAD.pack(reader.position.revision, self._raft.term)])
        return answer.run(self._gathered(answer, reader, read))

    def _gathered(self, answer: Answer, reader: Reader, read: RangeRead) -> Slices:
        for due in self._slices(reader, read):
            if due:
                answer.pieces(read.take_parts())
            yield
        yield from read.ending()
        yield from answer.last(read.take_parts())

    def rows(self, link: FrontLink, rid: int, revision: int, body: bytes) -> Slices:
        """As a range, to be merged with rows of other shards."""
        self.count += 1
        read = RangeRead(body, sized=True)
        reader = reader_at(self._store, revision or read.revision)
        answer = self._streams.answer(link, rid, [])
        return answer.run(self._gathered_rows(answer, reader, read))

    def _gathered_rows(self, answer: Answer, reader: Reader, read: RangeRead) -> Slices:
        head = HEAD.pack(reader.position.revision, self._raft.term)
        for due in self._slices(reader, read):
            if due:
                answer.pieces([head, *read.take_sized()])
            yield
        yield from read.ending()
        answer.end([head, *read.take_sized()])

    def _slices(self, reader: Reader, read: RangeRead) -> Iterator[bool]:
        """Feed a read; whether a part is due: many rows since the last one, or few large ones in the last
        slice. An empty one is a sign of life, as keys are only counted or passed over."""
        at_last = before = 0
        for slices, _ in enumerate(self._feed(reader, read), 1):
            rows = read.count
            due = slices % _SIGN_SLICES == 0 or (not read.satisfied and (
                rows - at_last >= _PARTIAL_ROWS or (
                    rows - before < _SLICE_ROWS and read.unsent and read.unsent_bytes() >= PIECE_BYTES)))
            if due:
                at_last = rows
            before = rows
            yield due

    def _feed(self, reader: Reader, read: RangeRead) -> Slices:
        """Give a read its rows a slice at a time, and the count of the rows that its answer does not show."""
        if read.empty:
            return
        # now, while the store is at the reader's revision; after other requests it may not be
        store, total, most = self._store, None, None
        if reader.revision == store.revision and reader.owned is store.owned and (
                # G6: the counts are of the newest table, and a switch takes no revision
                reader.parts(read.key, read.range_end) == store.shown(read.key, read.range_end)):
            if read.row_limit is None:
                most = store.count_at_most(read.key, read.range_end)
            else:
                total = most = store.quick_count(read.key, read.range_end)
            if most == 0:
                return
        if read.spliced:
            few = min(n for n in (most, read.row_limit, LEAST_ROWS) if n is not None) < LEAST_ROWS
            source: RowSource = (reader.splicer if few else reader.rows)(read.key, read.range_end, _LOOK)
            while not read.satisfied and not read.feed_from(source, _SLICE_ROWS, STEP_BYTES):
                yield
        else:
            rows = reader.scan(read.key, read.range_end, _LOOK)
            ended = False
            while not read.satisfied:
                some, ended = some_rows(rows)
                if (some and read.feed(some)) or ended:
                    break
                yield
        if read.satisfied:
            shown = read.count
            if total is None:
                total = yield from self._by_rest(reader, read)
            if total is not None:
                read.add_count(total - shown)
            else:
                yield from self._count_rest(reader, read)
            self._note_rest(reader, read, read.count - shown)

    def _by_rest(self, reader: Reader, read: RangeRead) -> Generator[None, None, int | None]:
        """How many keys a range has, where a page of its list has counted not far from its start: what was
        there at a revision stays."""
        end = read.range_end
        rests = self._rests
        rest = rests.get((reader.revision, end, read.key)) or rests.get((reader.revision, end, None))
        if rest is None or rest.owned is not reader.owned or rest.parts != reader.parts(rest.start, end):
            return None
        at: bytes | None
        at, start = sorted((rest.start, read.key))
        gap = slices = 0
        while at is not None and at < start:
            if slices == _GAP_SLICES:
                return None
            slices += 1
            count, at = reader.count(at, start, 200)
            gap += count
            yield
        return rest.keys - gap if rest.start < read.key else rest.keys + gap

    def _note_rest(self, reader: Reader, read: RangeRead, rest: int) -> None:
        """The next page need not walk the ``rest`` keys to count them."""
        last, end = read.last_key, read.range_end
        if rest and last is not None and len(last) + len(end) <= _REST_KEY_BYTES:
            start = last + b"\0"
            noted = _Rest(start, rest, reader.owned, reader.parts(start, end))
            for by in (start, None):
                self._rests.pop((reader.revision, end, by), None)
                self._rests[reader.revision, end, by] = noted
            while len(self._rests) > _RESTS:
                del self._rests[next(iter(self._rests))]

    def _count_rest(self, reader: Reader, read: RangeRead) -> Slices:
        start: bytes | None = read.key if read.last_key is None else read.last_key + b"\0"
        end = read.range_end
        if not end:
            if read.last_key is None:
                read.add_count(reader.count(read.key, b"")[0])
            return
        while start is not None and (end == b"\0" or start < end):
            count, start = reader.count(start, end, 200)
            read.add_count(count)
            yield

    def stream(self, link: FrontLink, rid: int, revision: int, body: bytes) -> Slices:
        """As a range, in parts as fast as they are taken; more and count come with the last one."""
        read = RangeRead(body)
        return self._stream(link, rid, revision, read, read.take_parts)

    def stream_rows(self, link: FrontLink, rid: int, revision: int, body: bytes) -> Slices:
        """As a stream, to be merged with rows of other shards."""
        read = RangeRead(body, sized=True)
        return self._stream(link, rid, revision, read, read.take_sized)

    def _stream(
        self, link: FrontLink, rid: int, revision: int, read: RangeRead, take: Callable[[], list[bytes]]
    ) -> Slices:
        reader = reader_at(self._store, revision or read.revision)
        stream = self._streams.open(link, rid)
        return stream.run(self._streamed(stream, reader, read, take))

    def _streamed(
        self, stream: RangeStream, reader: Reader, read: RangeRead, take: Callable[[], list[bytes]]
    ) -> Slices:
        head = HEAD.pack(reader.position.revision, self._raft.term)
        for due in self._slices(reader, read):
            if due or (read.unsent and not read.satisfied):
                stream.send(b"".join([head, *take()]))
            yield
        yield from read.ending()
        stream.link.answer(stream.rid, Status.OK, b"".join([head, *take()]))
