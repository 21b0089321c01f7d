"""The fronts that talk to this node, local ones over ipc and remote ones over tcp.

``cluster.wire.messages`` has frames and records. Answers of a tick leave as one frame per front. A frame
out of sequence means that frames were lost: the link is dropped silently, and the front, which misses the
STATE records, opens a new one (I23: it never resends a write on its own).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from time import monotonic
from typing import Any, Protocol

import structlog

from cluster.placement import Table
from cluster.repeats import Repeats
from cluster.wire import messages
from cluster.wire.frames import HIGHEST, LOWEST, agreed
from cluster.wire.link import spoken_by
from cluster.wire.messages import ANSWER, HEAD, HELLO_BODY, LEADER, SEQUENCE, SPOKEN, Method, Status

log = structlog.get_logger("fronts")

_PARTIAL = int(Status.PARTIAL)
_FRAME_BYTES = 1 << 20  # more leaves as several: each shows the other side that this node lives
_COPIED_BYTES = 4096  # larger bodies are not copied before the frame is joined

Send = Callable[[list[bytes]], bool]
Request = tuple[int, int, int, bytes]  # rid, method, timeout_ms, body
Tell = Callable[["FrontLink", bytes], None]  # gets an answer record, to send it now or later
PassOn = Callable[[int, int, list[bytes]], None]  # rid, status, body in pieces
NODE_IDENTITY = b"n"  # what the identity of another node's link begins with


class FrontLink:
    __slots__ = (
        "_expected", "_out", "_prefix", "_send", "_sent", "alive", "answered", "farewell", "hurried_until",
        "identity", "lost", "member_id", "newest", "overdue", "pass_on", "pieces_sent", "pieces_taken", "row",
        "session", "subscriptions", "table", "taken_at", "version", "wanted", "watches",
        "watermark",
    )  # fmt: skip

    def __init__(self, identity: bytes, send: Send, prefix: bytes, session: int, member_id: int = 0) -> None:
        self.identity = identity
        # a front, not another shard's node (node.links.siblings), which needs no watermarks
        self.watches = identity[:1] != NODE_IDENTITY
        self.session = session
        self.member_id = member_id  # of the host it runs on; 0: no member
        self.version = LOWEST  # that both sides speak
        self.table: Table | None = None  # that its requests go by; None: that of the beginning
        self.row = b""  # the same as it came; empty: no key has moved
        self.alive = True
        self.farewell = False  # it has every answer, and asks nothing more
        # to a front in this process, which takes large answers as they are
        self.pass_on: PassOn | None = None
        self.answered = 0
        # rid of its last request, and of the last one that it has certainly given up
        self.newest = self.overdue = 0
        self.subscriptions: dict[int, Any] = {}  # rid -> node.serving.watch.watches.Subscription
        self.lost: dict[int, Any] = {}  # the same: lost by an install, and the front not told yet
        self.watermark = 0  # revision of the last WATERMARK sent
        self.wanted = 0  # revision that a request there waits for
        self.hurried_until = 0.0  # a request there waited just now
        self.pieces_sent = 0  # bytes of answers in pieces (PARTIAL)
        self.pieces_taken = 0  # of these the front has read (CREDIT with rid 0)
        self.taken_at = 0.0  # when it said so
        self._send = send
        self._prefix = prefix
        self._expected = 2
        self._sent = 0
        self._out: list[bytes] = []

    def in_sequence(self, sequence: int) -> bool:
        """Whether this frame is the next one."""
        if sequence != self._expected:
            return False
        self._expected += 1
        return True

    def awaits(self, rid: int) -> bool:
        """Whether the front may still wait for the answer to this request."""
        return self.alive and rid > self.overdue

    def placed(self, row: bytes) -> None:
        """PLACED: requests behind it go by this table. ValueError."""
        self.table = table = Table.decode(row)
        self.row = row if table.moved else b""

    def put(self, record: bytes) -> None:
        self._out.append(record)

    def answer(self, rid: int, status: int, body: bytes) -> None:
        if status == _PARTIAL:
            self.pieces_sent += len(body)
        if len(body) < _COPIED_BYTES:
            self._out.append(ANSWER.pack(rid, status, len(body)) + body)
        else:
            self._out += (ANSWER.pack(rid, status, len(body)), body)
            self.answered -= 1  # flush counts pieces

    def pieces(self, rid: int, status: int, parts: list[bytes]) -> None:
        """As :meth:`answer`, for a large body in pieces, which a front in this process gets uncopied."""
        if status == _PARTIAL:
            self.pieces_sent += sum(map(len, parts))
        if self.pass_on is not None:
            self.answered += 1
            self.pass_on(rid, status, parts)
            return
        self._out.append(ANSWER.pack(rid, status, sum(map(len, parts))))
        self._out += parts
        self.answered -= len(parts)

    def ok(self, rid: int, revision: int, term: int, tail: bytes) -> None:
        """Queue the answer of an etcd method: header's revision and term, the other fields in wire form."""
        self._out.append(ANSWER.pack(rid, 0, 16 + len(tail)) + HEAD.pack(revision, term) + tail)

    @property
    def local(self) -> bool:
        return not self._prefix

    @property
    def own(self) -> bool:
        """Whether a front of this host is at the other end."""
        return not self._prefix and self.watches

    @property
    def in_flight(self) -> int:
        return self.pieces_sent - self.pieces_taken

    @property
    def pending(self) -> bool:
        return bool(self._out)

    def flush(self) -> bool:
        """Send what is queued, as one frame unless it is large. False: the link is dead."""
        out, self._out = self._out, []
        if len(out) > 2 and sum(map(len, out)) > _FRAME_BYTES:
            return all(map(self._send_frame, _frames(out)))
        return self._send_frame(out)

    def _send_frame(self, records: list[bytes]) -> bool:
        self._sent += 1
        self.answered += len(records)
        if not self._send([self.identity, b"".join([self._prefix, SEQUENCE.pack(self._sent), *records])]):
            self.alive = False
        return self.alive


def cluster_of(data: bytes) -> int | None:
    """The cluster that a front's hello names; None: it is no hello."""
    try:
        _, records = messages.decode_requests(data)
    except (ValueError, IndexError):
        return None
    if not records or records[0][1] != Method.HELLO or len(records[0][3]) != HELLO_BODY.size:
        return None
    return int(HELLO_BODY.unpack(records[0][3])[1])


def _frames(out: list[bytes]) -> Iterator[list[bytes]]:
    """Whole records, each in one piece or several."""
    records: list[bytes] = []
    size = left = 0  # bytes in ``records``, and those that the last one of them lacks
    for piece in out:
        if left <= 0 and piece:  # an answer in pieces may end with empty ones
            if size >= _FRAME_BYTES:
                yield records
                records, size = [], 0
            left = ANSWER.size + ANSWER.unpack_from(piece)[2]
        records.append(piece)
        size += len(piece)
        left -= len(piece)
    yield records


class Fronts:
    """All links, and those with something to send in this tick."""

    def __init__(
        self, cluster_id: int, receive: Callable[[FrontLink, list[tuple[int, int, int, bytes]]], None],
        greet: Callable[[FrontLink], None], gone: Callable[[FrontLink], None], layout: tuple[int, int],
        prompt: bool = True, limit_s: float = 7.0, now: Callable[[], float] = monotonic,
    ) -> None:
        """``limit_s``: fronts wait for no answer longer than that."""
        self._least = LOWEST  # version of links
        self._cluster_id = cluster_id
        self._layout = layout  # shards and placement depth
        self._receive = receive
        self._greet = greet
        self._gone = gone
        self._now = now
        self._prompt = prompt  # local fronts hear of every revision as it is applied
        self._revision = 0  # applied, and all its events queued
        self._limit_s = limit_s
        # when, by link, the last request that had come
        self._came: deque[tuple[float, list[tuple[FrontLink, int]]]] = deque()
        self.links: dict[bytes, FrontLink] = {}
        self.dirty: set[FrontLink] = set()
        self._refusals = Repeats()

    def frame(
        self, identity: bytes, data: bytes, send: Send, prefix: bytes, pass_on: PassOn | None = None
    ) -> None:
        """A front's frame. ``pass_on``: see :class:`FrontLink`."""
        link = self.links.get(identity)
        try:
            sequence, records = messages.decode_requests(data)
        except (ValueError, IndexError) as e:
            self._tell("dropping a front that sent a broken frame", link, error=str(e))
            self.drop(identity)
            return
        if sequence == 1:
            if link is not None:
                self.drop(identity)
            link = self._hello(identity, records, send, prefix)
            if link is None:
                return
            link.pass_on = pass_on
            records = records[1:]
        elif link is None:
            return  # a dropped link: silence makes the front open a new one
        elif not link.in_sequence(sequence):
            self._tell("dropping a front whose frames are out of sequence", link, session=link.session)
            self.drop(identity)
            return
        if records:
            newest = records[-1][0]
            if newest <= link.newest:  # about an older request, as credit
                newest = max([rid for rid, *_ in records])
            link.newest = max(link.newest, newest)
            self._receive(link, records)

    def _tell(self, dropping: str, link: FrontLink | None, **facts: object) -> None:
        if self._refusals.news((dropping, link.member_id if link is not None else 0), self._now()):
            log.warning(dropping, **facts)

    def _hello(
        self, identity: bytes, records: list[tuple[int, int, int, bytes]], send: Send, prefix: bytes
    ) -> FrontLink | None:
        refusal = told = ""
        spoken = (LOWEST, LOWEST)
        session = member_id = 0
        if not records or records[0][1] != Method.HELLO or len(records[0][3]) != HELLO_BODY.size:
            refusal = "the first record must be a hello"
        else:
            version, cluster_id, member_id, session, *layout = HELLO_BODY.unpack(records[0][3])
            spoken = spoken_by(version, records[0][2])
            if (agreed(*spoken) or 0) < self._least:
                refusal = f"protocol version {spoken[1]}, this node speaks {self._least} to {HIGHEST}"
                if self._least > LOWEST:
                    refusal += ": the sender is older than the cluster's data"
            elif cluster_id != self._cluster_id:
                refusal = f"cluster ID mismatch (got {cluster_id:x} want {self._cluster_id:x})"
                told = "cluster ID mismatch"  # a stranger must not learn the ID
            elif any(layout) and tuple(layout) != self._layout:
                refusal = (f"this cluster has {self._layout[0]} shards at placement depth {self._layout[1]}, "
                           f"not {layout[0]} at {layout[1]}")
        if refusal:
            if self._refusals.news((member_id, refusal), self._now()):
                log.warning("refused a front", member=f"{member_id:x}", reason=refusal)
            record = messages.answer(0, Status.REFUSED, (told or refusal).encode())
            send([identity, prefix + SEQUENCE.pack(1) + record])
            return None
        link = FrontLink(identity, send, prefix, session, member_id)
        link.version = agreed(*spoken) or LOWEST
        self.links[identity] = link
        if link.version > LOWEST:
            link.answer(0, Status.VERSIONS, SPOKEN.pack(self._least, HIGHEST))
        self._greet(link)
        return link

    def refuse_below(self, version: int) -> None:
        """Take no links of lower versions from now on, and end those that there are: their fronts open new
        ones, and are told why not."""
        self._least = version
        for link in [link for link in self.links.values() if link.version < version]:
            self._tell("dropping a front that is older than the cluster's data", link, session=link.session)
            self.drop(link.identity)

    def drop(self, identity: bytes) -> None:
        link = self.links.pop(identity, None)
        if link is not None:
            link.alive = False
            self.dirty.discard(link)
            self._gone(link)

    def sweep(self, now: float) -> None:
        """Each second: find which requests their fronts have given up."""
        came = self._came
        came.append((now, [(link, link.newest) for link in self.links.values()]))
        while came[0][0] <= now - self._limit_s:
            for link, rid in came.popleft()[1]:
                link.overdue = rid

    def flush(self) -> None:
        if not self.dirty:
            return
        dirty = list(self.dirty)
        self.dirty.clear()  # other parts hold this set
        for link in dirty:
            if link.pending and link.own and link.watermark < self._revision:
                self._tell_watermark(link)
            if link.alive and link.pending and not link.flush():
                log.info("a front's link has ended", session=link.session)
                self.drop(link.identity)

    def watermark(self, revision: int, now: float) -> None:
        """Every event up to ``revision`` has been emitted. A link is told at once if it watches or waits
        (CATCH_UP), and node 0 tells its host's fronts, which take the newest revision from it. Others are
        told with the next frame."""
        self._revision = revision
        for link in self.links.values():
            if link.watermark < revision and (
                link.subscriptions or now < link.hurried_until or link.watermark < link.wanted
                or (self._prompt and link.own)
            ):
                self._tell_watermark(link)
                self.dirty.add(link)

    def watermark_again(self, now: float) -> None:
        """Tell links that :meth:`watermark` has passed over."""
        self.watermark(self._revision, now)

    def _tell_watermark(self, link: FrontLink) -> None:
        if link.lost:  # I16: this would say that nothing happened to watches that it does not know to be lost
            return
        link.watermark = self._revision
        link.answer(0, Status.WATERMARK, SEQUENCE.pack(self._revision))

    def hurry(self, link: FrontLink, revision: int, until: float) -> None:
        """CATCH_UP: a request waits for this revision, and others may follow."""
        link.wanted, link.hurried_until = revision, until
        if link.watermark < self._revision:
            self._tell_watermark(link)
            self.dirty.add(link)

    def leave(self) -> None:
        """Tell every front that this node is about to end. Other shards' nodes ask elsewhere freely."""
        for link in self.links.values():
            if link.watches:
                link.answer(0, Status.LEAVING, b"")
                self.dirty.add(link)

    @property
    def left(self) -> bool:
        """Whether no front waits for anything here."""
        return all(link.farewell or not link.watches for link in self.links.values())

    def broadcast(self, status: int, body: bytes, *, own: bool = False) -> None:
        """``own``: tell only fronts of this host."""
        for link in self.links.values():
            if link.own or not own:
                link.answer(0, status, body)
                self.dirty.add(link)


class Leadership(Protocol):
    @property
    def term(self) -> int: ...
    @property
    def leader_id(self) -> int: ...
    @property
    def is_leader(self) -> bool: ...


def say_not_leader(raft: Leadership, link: FrontLink, rid: int) -> None:
    """Tell that nothing was logged, and which other member leads, if one does (I23)."""
    link.answer(rid, Status.NOT_LEADER, LEADER.pack(0 if raft.is_leader else raft.leader_id, raft.term))
