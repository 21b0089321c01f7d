"""State snapshots: streamed to a replica that fell behind the log.

A snapshot is a checkpoint of ``state`` alone: never a vote, a term or a log (H8, I18). It travels beside the
Raft messages in frames ``kind u8 | transfer u64 | offset u64 | data``, a window of unacknowledged bytes at
most. A transfer that breaks is started again.

The receiver builds aside, verifies, and switches in at once. A helper thread checks and syncs, which may take
minutes; the sender gets an ack every second meanwhile. A transfer that begins by then supersedes the one that
is being synced, which is installed all the same if it is news. State and log are two databases, so the log
says first that an install to a position is on its way: after a crash in between, opening the log completes
it, and no other gap between log and state is believed (H10).

A receiver checks the tables too, and says so where it refuses them. Then the sender checks its own, before
it sends again: what is damaged there ends it. It does the same where it cannot read what it sends. Where a
few checks in a row cannot be made, it sends one unchecked. Other refusals tell nothing of the sender's
tables.
"""

from __future__ import annotations

import asyncio
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import structlog

from cluster.grain import GRAIN
from cluster.histogram import CHECKPOINT_S, DISK_S, SNAPSHOT_S, Histogram
from cluster.raft import Configuration, Raft, Role, SnapshotPosition
from cluster.repeats import Repeats
from cluster.settings import NodeSettings
from cluster.wire.frames import PeerKind
from node.storage import Position, SnapshotRefused, StorageCorruption
from node.storage.errors import DiskFull, Scarce, outlived
from node.storage.snapshot import DAMAGED, SnapshotSink, SnapshotSource
from node.upkeep.log.catching_up import CatchingUp
from node.upkeep.log.transfers import Transfers

if TYPE_CHECKING:
    from node.links.peers import Peers
    from node.machine import NodeMachine
    from node.storage import RaftLog, StateStore

log = structlog.get_logger("snapshots")

_SNAPSHOT = PeerKind.SNAPSHOT.byte

_FRAME = struct.Struct("<BQQ")  # kind, transfer, offset
_BEGIN, _CHUNK, _END, _ACK, _DONE, _FAILED = range(1, 7)
_STALLED_S = 10.0  # a transfer whose peer acknowledges nothing for so long is given up
_LONGEST_REASON = 300  # of a peer's, in the log
_PAUSE_S, _LONGEST_PAUSE_S = 1.0, 30.0  # behind one in vain: twice as long each time
_VAIN_CHECKS = 3  # in a row, then one is sent without: the receiver checks, and its disk may be what failed
_SILENT_S = 30.0  # so is one whose sender sends nothing: longer, for the sender is to notice first


@dataclass(slots=True)
class Sending:
    peer: int
    transfer: int
    source: SnapshotSource
    configuration: bytes
    began_at: float
    sent: int = 0
    acked: int = 0
    ended: bool = False
    moved_at: float = 0.0


@dataclass(slots=True)
class Receiving:
    peer: int
    transfer: int
    sink: SnapshotSink
    configuration: Configuration
    began_at: float
    received: int = 0
    ended: bool = False  # all of it is here
    moved_at: float = 0.0


class _Damaged(StorageCorruption):
    """Tables of the own state are. ``path``: of that state."""

    def __init__(self, path: str, text: str) -> None:
        super().__init__(f"{path} is damaged, as sending it has shown: {text}")
        self.path = path


class _Unchecked(Exception):
    """Whether tables of the own state are damaged could not be told."""


class SnapshotsNode(Protocol):
    settings: NodeSettings
    machine: NodeMachine
    loop: asyncio.AbstractEventLoop
    log: RaftLog
    store: StateStore
    raft: Raft
    peers: Peers
    stopping: bool

    def state_replaced(self) -> None: ...

    def wake(self) -> None: ...


class Snapshots:
    def __init__(self, node: SnapshotsNode, catching_up: CatchingUp) -> None:
        self._node = node
        self._sending: dict[int, Sending] = {}
        self._preparing: set[int] = set()
        self._receiving: Receiving | None = None  # the newest one
        # the one that a helper thread checks and syncs, the newest or an older one
        self._finishing: Receiving | None = None
        self._catching_up = catching_up
        self._complaints = Repeats()
        self._pauses: dict[int, tuple[float, float]] = {}  # by peer: behind a refusal until then
        self._resting: set[int] = set()  # peers that are sent none now
        self._serial = 0
        self._doubted = False  # a state of this node was refused as damaged, or could not be read
        self._vain_checks = 0  # in a row
        self.sent = self.installed = self.failed = 0
        self._sends, self._receives = Transfers(), Transfers()
        self.lives = Histogram(CHECKPOINT_S)  # of the checkpoints that were sent
        # of states of peers: their syncs, and all until then
        self.syncs, self.saves = Histogram(DISK_S), Histogram(SNAPSHOT_S)
        self._outgoing = Path(node.settings.data_dir, "outgoing")

    @property
    def installing(self) -> bool:
        """Whether one that has come is being checked, synced and switched in."""
        return self._finishing is not None

    def figures(self) -> dict[str, Any]:
        """How transfers went, and how many go on: by direction and peer, as JSON."""
        coming = [r.peer for r in (self._receiving, self._finishing) if r is not None]
        if self._receiving is self._finishing:
            del coming[1:]
        return {"send": self._sends.figures(self._sending), "receive": self._receives.figures(coming)}

    # -- sending

    def send_to(self, peer: int, min_index: int) -> None:
        """Raft says that this peer needs a snapshot of ``min_index`` or later; or the peer does, with 0."""
        if peer in self._preparing or peer in self._sending or peer in self._resting:
            return
        node = self._node
        self._preparing.add(peer)
        self._catching_up.begins(peer, node.store.position.shard_index, node.loop.time())
        doubted, self._doubted = self._doubted, False
        future = node.loop.run_in_executor(None, self._made, doubted)
        future.add_done_callback(lambda done: self._prepared(peer, min_index, done, doubted))

    def _made(self, doubted: bool) -> SnapshotSource:
        """In a thread."""
        node = self._node
        path = node.store.path  # an install may replace it meanwhile
        source = node.machine.snapshot_of(node.store, self._outgoing)
        try:
            if doubted:
                source.check()
        except StorageCorruption as e:
            source.close()
            raise _Damaged(path, str(e).replace(str(source.directory), path)) from e
        except Exception as e:
            source.close()
            raise _Unchecked(str(e)) from e
        return source

    def _prepared(
        self, peer: int, min_index: int, done: asyncio.Future[SnapshotSource], doubted: bool
    ) -> None:
        self._preparing.discard(peer)
        node = self._node
        error = done.exception() if not done.cancelled() else None
        if done.cancelled() or node.stopping or error is not None:
            if isinstance(error, _Damaged) and not node.stopping and not outlived(error):
                raise error
            if error is not None:
                self._doubt_on(error, doubted)
                if self._complaints.news(str(error), node.loop.time()):
                    log.error("a snapshot could not be made", error=str(error))
                self._not_sent(peer, pauses=True)
                return
            if not done.cancelled():
                done.result().close()
            self._not_sent(peer)
            return
        source = done.result()
        if doubted:
            self._vain_checks = 0
        if source.position.shard_index < min_index:
            source.close()
            self._not_sent(peer)
            return
        try:
            configuration = node.raft.position_at(source.position.shard_index).configuration.encode()
        except ValueError:  # truncated meanwhile: make another one
            source.close()
            self._not_sent(peer)
            return
        self._serial += 1
        now = node.loop.time()
        sending = Sending(peer, self._serial, source, configuration, now, moved_at=now)
        self._sending[peer] = sending
        self._sends.begun(peer)
        log.info("sending a snapshot", peer=f"{peer:x}", index=source.position.shard_index,
                 revision=source.position.revision, size_bytes=source.size_bytes)
        if node.peers.send(peer, _SNAPSHOT, _FRAME.pack(_BEGIN, sending.transfer, 0) + configuration):
            self._pump(sending)
        else:
            self._give_up(sending, "the peer is not reachable")

    def _doubt_on(self, error: BaseException, doubted: bool) -> None:
        """A check that could not be made is made before the next one is sent, but not for ever: no peer would
        get a state."""
        self._vain_checks += isinstance(error, _Unchecked)
        if self._vain_checks >= _VAIN_CHECKS:
            self._vain_checks = 0
            if self._complaints.news("unchecked", self._node.loop.time()):
                log.warning("the next snapshot is sent unchecked", checks_failed=_VAIN_CHECKS)
        else:
            self._doubted |= doubted and not isinstance(error, _Damaged)

    def _pump(self, sending: Sending) -> None:
        while not sending.ended and sending.sent - sending.acked < GRAIN.snapshot_window_bytes:
            try:
                chunk = sending.source.next_chunk(GRAIN.snapshot_chunk_bytes)
            except OSError as e:
                self._doubted = True
                self._give_up(sending, f"it cannot be read: {e}", refused=True)
                return
            kind = _CHUNK if chunk else _END
            if not self._node.peers.send(
                sending.peer, _SNAPSHOT, _FRAME.pack(kind, sending.transfer, sending.sent) + chunk):
                self._give_up(sending, "the connection was lost")
                return
            sending.sent += len(chunk)
            sending.ended = not chunk

    def _give_up(self, sending: Sending, reason: str, refused: bool = False) -> None:
        if self._complaints.news((sending.peer, reason, refused), self._node.loop.time()):
            log.warning("a snapshot was not delivered", peer=f"{sending.peer:x}", reason=reason)
        self._finish(sending, False, refused)

    def _finish(self, sending: Sending, ok: bool, refused: bool = False) -> None:
        if self._sending.get(sending.peer) is sending:
            del self._sending[sending.peer]
        sending.source.close()
        self.lives.observe(self._node.loop.time() - sending.began_at)
        if ok:
            self.sent += 1
            self._pauses.pop(sending.peer, None)
            self._sends.done(sending.peer, self._node.loop.time() - sending.began_at)
            self._catching_up.sent(sending.peer, sending.source.position.shard_index)
            self._node.raft.snapshot_sent(sending.peer, True)
        else:
            self.failed += 1
            self._sends.failed(sending.peer)
            self._not_sent(sending.peer, pauses=refused)

    def _not_sent(self, peer: int, pauses: bool = False) -> None:
        """``pauses``: the next one is not sent at once. Each costs a flush, and its cause may last."""
        self._catching_up.sent(peer, None)
        if not pauses:
            self._node.raft.snapshot_sent(peer, False)
            return
        now = self._node.loop.time()
        pause_s, until = self._pauses.get(peer, (_PAUSE_S, now))
        if now > until:  # that cause is gone
            pause_s = _PAUSE_S
        longer_s = min(2 * pause_s, _LONGEST_PAUSE_S)
        self._pauses[peer] = longer_s, now + pause_s + 2 * longer_s
        self._resting.add(peer)
        self._node.loop.call_later(pause_s, self._paused, peer)

    def _paused(self, peer: int) -> None:
        self._resting.discard(peer)
        if not self._node.stopping and peer not in self._preparing and peer not in self._sending:
            self._node.raft.snapshot_sent(peer, False)
            self._node.wake()

    def sweep(self) -> None:
        """Every second: give up transfers that do not move, and acknowledge the one that is being synced."""
        now = self._node.loop.time()
        for sending in list(self._sending.values()):
            if now - sending.moved_at > _STALLED_S:
                self._give_up(sending, "the peer does not answer")
        receiving = self._receiving
        if receiving is None:
            return
        if receiving.ended:
            self._reply(receiving, _ACK)
        elif now - receiving.moved_at > _SILENT_S:
            log.warning(
                "received only a part of a snapshot",
                peer=f"{receiving.peer:x}", received_bytes=receiving.received)
            self._abandon()

    # -- frames

    def frame(self, peer: int, data: bytes) -> None:
        if len(data) < _FRAME.size:
            raise ValueError("snapshot frame cut short")
        kind, transfer, offset = _FRAME.unpack_from(data)
        if kind in (_ACK, _DONE, _FAILED):
            self._answered(peer, kind, transfer, offset, data[_FRAME.size :])
        elif kind == _BEGIN:
            self._begin(peer, transfer, data[_FRAME.size :])
        else:
            self._chunk(peer, kind, transfer, offset, data[_FRAME.size :])

    def _answered(self, peer: int, kind: int, transfer: int, offset: int, text: bytes) -> None:
        sending = self._sending.get(peer)
        if sending is None or sending.transfer != transfer:
            return
        sending.moved_at = self._node.loop.time()
        if kind == _ACK:
            # one from before this process's start may be of more: transfers are counted anew
            sending.acked = max(sending.acked, min(offset, sending.sent))
            self._pump(sending)
        elif kind == _DONE:
            log.info("a peer installed a snapshot", peer=f"{peer:x}")
            self._finish(sending, True)
        else:
            self._doubted |= text.startswith(DAMAGED.encode())
            self._give_up(sending, text[:_LONGEST_REASON].decode(errors="replace"), refused=True)

    # -- receiving

    def _begin(self, peer: int, transfer: int, configuration: bytes) -> None:
        self._abandon()
        members, now = Configuration.decode(configuration), self._node.loop.time()
        settings = self._node.settings
        try:
            sink = self._node.machine.snapshot_into(
                Path(settings.data_dir, "state"), settings.min_free_disk_bytes)
        except OSError as e:  # no room: the replica goes on with what it has
            self._refuse(peer, transfer, 0, e)
            return
        self._receiving = Receiving(peer, transfer, sink, members, now, moved_at=now)
        self._receives.begun(peer)

    def _abandon(self) -> None:
        """Drop what is being received. One that is being synced is in use until that is done."""
        receiving, self._receiving = self._receiving, None
        if receiving is not None and receiving is not self._finishing:
            self._remove(receiving)

    def _remove(self, receiving: Receiving) -> None:
        self._receives.failed(receiving.peer)
        self._node.loop.run_in_executor(None, receiving.sink.abandon)  # gigabytes, perhaps: not on the loop

    def _reply(self, receiving: Receiving, kind: int) -> None:
        self._node.peers.send(
            receiving.peer, _SNAPSHOT, _FRAME.pack(kind, receiving.transfer, receiving.received))

    def _chunk(self, peer: int, kind: int, transfer: int, offset: int, data: bytes) -> None:
        receiving = self._receiving
        if receiving is None or (receiving.peer, receiving.transfer) != (peer, transfer):
            return
        try:
            if offset != receiving.received:
                raise SnapshotRefused(f"a part is missing: got offset {offset}, want {receiving.received}")
            if kind == _END:
                receiving.ended = True
                self._finish_next()
                return
            receiving.sink.write(data)
            if receiving.sink.position.order_index:  # the header is here
                self._check_news(receiving.sink.position)
        except (SnapshotRefused, OSError) as e:
            self._abandon()
            self._refuse(peer, transfer, receiving.received, e)
            return
        receiving.received += len(data)
        receiving.moved_at = self._node.loop.time()
        self._reply(receiving, _ACK)

    def _refuse(self, peer: int, transfer: int, received: int, error: Exception) -> None:
        """Its sender may have missed the answer to an install, and would send states for ever: Raft answers
        again, whatever the reason is. The disk may have no room for the same state once more."""
        if self._complaints.news((peer, str(error)), self._node.loop.time()):
            log.warning("a snapshot was refused", peer=f"{peer:x}", reason=str(error))
        self._node.raft.say_committed()
        self._node.wake()
        self._node.peers.send(
            peer, _SNAPSHOT, _FRAME.pack(_FAILED, transfer, received) + str(error).encode())

    def _finish_next(self) -> None:
        """Check and sync what is all here, one at a time: it syncs every file, which is not for the loop."""
        receiving = self._receiving
        if receiving is not None and receiving.ended and self._finishing is None:
            self._finishing = receiving
            done = self._node.loop.run_in_executor(None, receiving.sink.finish)
            done.add_done_callback(lambda future: self._finished(receiving, future))

    def _finished(self, receiving: Receiving, future: asyncio.Future[Position]) -> None:
        """A verified and synced one is switched in. Another one may have begun to come meanwhile."""
        self._finishing = None
        superseded = self._receiving is not receiving
        if not superseded:
            self._receiving = None
        if self._node.stopping:
            receiving.sink.abandon()  # at once: the loop ends
            return
        try:
            error = future.exception()
            # an install's own would leave the state in doubt: it ends the node
            if isinstance(error, OSError | DiskFull | Scarce):
                raise SnapshotRefused(str(error))
            position = future.result()
            self.syncs.observe(receiving.sink.synced_s)
            self.saves.observe(self._node.loop.time() - receiving.began_at)
            self._install(receiving, position)
        except SnapshotRefused as e:
            self._remove(receiving)
            if not superseded:
                self._refuse(receiving.peer, receiving.transfer, receiving.received, e)
        else:
            self._receives.done(receiving.peer, self._node.loop.time() - receiving.began_at)
            if not superseded:
                self._reply(receiving, _DONE)
            self._node.wake()
        self._finish_next()

    def _install(self, receiving: Receiving, position: Position) -> None:
        node = self._node
        if node.raft.role is Role.LEADER:  # elected meanwhile: what it evaluates stands on the state it has
            raise SnapshotRefused("this node leads now")
        self._check_news(position)  # before the log hears of it
        snapshot = SnapshotPosition(position.shard_index, position.term, receiving.configuration)
        node.log.begin_install(snapshot)
        node.store.install(receiving.sink)  # forward only, or SnapshotRefused
        begins = node.raft.snapshot_installed(snapshot)  # it looks into the stored log as that was
        node.log.finish_install(snapshot)  # H8: a matching suffix, which may be acknowledged, stays
        if not begins:
            node.raft.compacted(snapshot.index)
        node.state_replaced()
        self.installed += 1
        log.info("installed a snapshot", peer=f"{receiving.peer:x}", index=snapshot.index,
                 revision=position.revision)

    def _check_news(self, position: Position) -> None:
        """SnapshotRefused if it is no news."""
        here = self._node.store.position.order_index
        if position.order_index <= here:
            raise SnapshotRefused(f"it is at {position.order_index}, this node at {here}")

    def close(self) -> None:
        """Drop what is under way. What is being synced is dropped when that is done, or at the next start."""
        receiving, self._receiving = self._receiving, None
        if receiving is not None and receiving is not self._finishing:
            receiving.sink.abandon()
        for sending in list(self._sending.values()):
            sending.source.close()
        self._sending.clear()
