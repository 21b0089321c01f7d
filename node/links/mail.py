"""Raft's messages: frames that came in, and those that leave, one frame per peer; some only after a sync
(I2)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from cluster.raft import Kind, Message, decode_messages, encode_messages
from cluster.wire.frames import PeerKind
from node.any_node import AnyNode
from node.links.flow import Flow

if TYPE_CHECKING:
    from node.links.peers import Peers

_RAFT = PeerKind.RAFT.byte
_APPEND = int(Kind.APPEND)


class MailNode(AnyNode, Protocol):
    peers: Peers


class Mail:
    __slots__ = ("_after_sync", "_node", "_outbox", "received", "sent")

    def __init__(self, node: MailNode) -> None:
        self._node = node
        self.received, self.sent = Flow(), Flow()  # of appends
        self._outbox: dict[int, list[Message]] = {}
        self._after_sync: list[tuple[int, list[Message]]] = []  # the sequence that must be on disk before

    def came(self, member_id: int, data: bytes) -> bool:
        """A peer's frame. Returns whether it gives a tick anything to do. IntegrityError."""
        raft, now, due, appends = self._node.raft, self._node.now_ms(), False, 0
        for message in decode_messages(data):
            if message.kind == _APPEND:
                appends += 1
            if message.sender == member_id and raft.step(message, now):
                due = True
        if appends:
            self.received.add(now, appends, len(data))
        # an answer to a question about leadership waits for no tick
        if not due and (answers := raft.take_answers()):
            self.queue(answers)
            self.send()
        return due

    def queue(self, messages: list[Message]) -> None:
        """These leave with the next :meth:`send`."""
        outbox = self._outbox
        for message in messages:
            outbox.setdefault(message.to, []).append(message)

    def send(self) -> None:
        if not self._outbox:
            return
        outbox, self._outbox = self._outbox, {}
        for peer, messages in outbox.items():
            data = encode_messages(messages)
            if appends := [message.kind for message in messages].count(_APPEND):
                self.sent.add(self._node.now_ms(), appends, len(data))
            if not self._node.peers.send(peer, _RAFT, data):
                self._node.raft.report_unreachable(peer)

    def hold(self, sequence: int, messages: list[Message]) -> None:
        """These wait until everything up to ``sequence`` is on disk."""
        self._after_sync.append((sequence, messages))

    def holds_before(self, sequence: int) -> bool:
        return bool(self._after_sync) and any(s < sequence for s, _ in self._after_sync)

    def synced(self, sequence: int) -> None:
        """Everything up to ``sequence`` is on disk: votes and acks may leave (I2)."""
        waiting = self._after_sync
        while waiting and waiting[0][0] <= sequence:
            self.queue(waiting.pop(0)[1])
