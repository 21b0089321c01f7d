"""A node's sending side to one peer: its hellos, and why the peer refuses it (codes of REFUSED)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from cluster.machine import FrameSocket, Receive
from cluster.settings import Peer
from cluster.wire.frames import HIGHEST, LOWEST, PeerKind
from cluster.wire.messages import SPOKEN

REFUSED_CLUSTER, REFUSED_VERSION, REFUSED_INCARNATION, REFUSED_UNKNOWN, REFUSED_SHARD = range(1, 6)
REFUSED_REMOVED, REFUSED_ORIGIN, REFUSED_PROMISE, REFUSED_MEANT = 6, 7, 8, 9
HINTS = {
    REFUSED_CLUSTER: "compare --initial-cluster-token and --initial-cluster of both hosts",
    REFUSED_VERSION: "both hosts need the same version of muster",
    REFUSED_UNKNOWN: "compare --initial-cluster of both hosts",
    REFUSED_SHARD: "hosts of older versions take a port for each shard, from the peer port on: compare the "
                   "peer URLs in --initial-cluster",
    REFUSED_ORIGIN: "restore all hosts of a cluster from the same backup file, with the same --shards: "
                    "remove the data directory of the one that differs, and restore it once more",
    REFUSED_MEANT: "another member is at that address: compare the members' peer URLs, and what their "
                   "names resolve to",
}
REMOVED = "the member has been permanently removed from the cluster"
_WHO, _REFUSED, _VERSIONS, _JOIN = (
    kind.byte for kind in (PeerKind.WHO, PeerKind.REFUSED, PeerKind.VERSIONS, PeerKind.JOIN))
RETRY_S = 5.0  # a host that is refused says hello again after so long; what is wrong is mended by people
ELSEWHERE_S = 1.0  # so long after another member has answered the address is dialled again
_SETTLED_S = 1.0  # so long after a hello a refusal would have come
_TELL_AGAIN_S = 10.0  # the versions: a peer that let the hello wait has dropped them (``Unheard``)
_LONGEST_REASON = 300


class Kept(Protocol):
    """Of ``node.links.promises``."""

    def keeps(self, promised: bytes) -> bool: ...


class PeerLink:
    """This node's sending side to one peer."""

    def __init__(
        self, connect: Callable[[Receive, Callable[[], None]], FrameSocket], peer: Peer,
        hello: Callable[[int], list[bytes]], refused: Callable[[Peer, int, str], None],
        described: Callable[[], bytes], now: Callable[[], float], promises: Kept,
    ) -> None:
        self.peer = peer
        self._promises = promises
        self._described = described
        self._hello = hello
        self._on_refused = refused
        self._now = now
        self._least = self._version = LOWEST  # that the next hello names, at first
        self._greeted = False
        self._greeted_at = float("-inf")
        self._tell_at = 0.0  # which versions this side speaks
        self._refused: tuple[int, str] | None = None
        self._refused_at = 0.0
        self._opened_at: float | None = None
        self.sent_bytes = 0
        self.failures = 0
        self.losses = 0  # of connections that were well
        self._well = False  # when it was looked at last
        self._socket = connect(self._receive, self._opened)

    def send(self, kind: bytes, data: bytes) -> bool:
        """Send one frame; False if the peer is not there, or refuses this node (the frame is dropped)."""
        if not self._greeted and (self._refused is None or self._now() >= self._refused_at + RETRY_S):
            self._greet()
        if self._greeted and self._socket.send([kind + data]):
            self.sent_bytes += len(data)
            return True
        self.failures += 1
        return False

    def trouble(self) -> tuple[str, str]:
        """Why nothing arrives at this peer, as far as this side knows, and a hint; empty while all is
        well."""
        # a socket may stand already, and the handshake not be over
        if reason := self._socket.trouble or ("" if self._socket.stands() else "no connection"):
            return reason, self._socket.hint()
        if self._refused is None:
            return "", ""
        if self._greeted and self._now() - self._greeted_at > _SETTLED_S:
            self._refused = None
            return "", ""
        code, reason = self._refused
        return f"it refuses this host: {reason}", HINTS.get(code, "")

    def active(self) -> bool:
        """Whether all is well, as far as this side knows. Counts losses that it notices."""
        well = not self.trouble()[0]
        if self._well and not well:
            self.losses += 1
        self._well = well
        return well

    def since(self, otherwise: float) -> float:
        """When this connection was made, or the peer last refused this host; ``otherwise`` if the socket
        does not tell. Means nothing while there is trouble."""
        return max(otherwise if self._opened_at is None else self._opened_at, self._refused_at)

    def begin_with(self, version: int) -> None:
        """The peer takes no hellos of lower versions, or will soon."""
        self._least = version
        self._version = max(self._version, version)

    def look(self) -> None:
        """Each second: say hello again where that was refused a while ago; where another member has refused
        it, on another connection, for its own one may be there by then."""
        self.active()
        refused_s = self._now() - self._refused_at
        if self._refused is not None and not self._greeted and self._refused[0] == REFUSED_MEANT:
            if refused_s >= ELSEWHERE_S:
                self._socket.drop(b"", self.trouble()[0])
        elif self._refused is not None and not self._greeted and refused_s >= RETRY_S:
            self._greet()
        elif self._greeted and self._now() >= self._tell_at and self._socket.send(
                [_VERSIONS + SPOKEN.pack(self._least, HIGHEST)]):
            self._tell_at = self._now() + _TELL_AGAIN_S

    def _greet(self) -> None:
        self._greeted = self._socket.send(self._hello(self._version))
        self._greeted_at = self._now()
        self._tell_at = self._greeted_at + _SETTLED_S

    def _opened(self) -> None:
        """There is a new connection, whose other end has heard no hello and may be another process."""
        if self._well:  # it broke and was made again between two looks
            self.losses += 1
        self._well = self._refused is None
        self._opened_at = self._now()
        self._greet()

    def _receive(self, parts: list[bytes]) -> None:
        frame = parts[-1]
        if frame[:1] == _WHO:
            if self._refused is None:
                self._greet()
        elif frame[:1] == _REFUSED and frame[1:2] == bytes((REFUSED_PROMISE,)):
            if self._promises.keeps(frame[2:]):
                self._greet()  # the hello was read late: this node has acknowledged more since
        elif frame[:1] == _REFUSED and len(frame) > 1:
            reason = "".join(
                c if c.isprintable() else "?" for c in frame[2:].decode(errors="replace")[:_LONGEST_REASON]
            )
            self._refused, self._refused_at = (frame[1], reason), self._now()
            if self._well and self._opened_at is not None and self._now() - self._opened_at > _SETTLED_S:
                self.losses += 1
            self._well = False
            self._greeted = False
            if frame[1] == REFUSED_VERSION:  # it may speak the next one
                self._version = self._version + 1 if self._version < HIGHEST else self._least
                if self._version > self._least:  # else all were refused: after a while
                    self._greet()
            self._on_refused(self.peer, frame[1], reason)
        elif frame == _JOIN:  # this node was added, or has moved, while the peer was down
            self._socket.send([_JOIN + self._described()])

    def close(self) -> None:
        self._socket.close()
