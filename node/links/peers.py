"""Raft traffic between the replicas of one shard, one frame per peer and tick.

Each node has one ROUTER, which its host's peer port hands connections to, and one DEALER to each peer. It
sends on its own DEALERs only, so a link carries one direction (and refusals). Remote fronts share the ROUTER.
The first byte of a frame is its kind (``cluster.wire.frames``).

A hello carries protocol version, cluster ID, member ID, incarnation and shard. A part of the message before
it has the origin of the sender's data (``cluster.members.origin``), which hosts of version 8 ignore. A
replica of another origin is refused by name: the two must never exchange a vote or an entry. The refusal
leaves no trace, so its host can be restored again. Another part names the member that is meant: any other
one refuses the hello (``cluster.members.meant``). A replica with another incarnation has lost its disk: it is
refused, because its old votes are gone (``node.links.incarnations``). A refused node says hello again
after ``peer_link.RETRY_S``, or on a new connection. Lost frames need no repair here: Raft resends, snapshots
resume from an offset, hellos are asked for again. The last small frame before such a hello is kept for it: a
link between followers is silent until a vote is wanted, and a lost vote costs an election timeout.

Without keys a connection is a stranger's until its hello is accepted, a peer's or a front's
(``tools.muster.machine.zmtp.router.Router``). An empty frame ends the connection, and so does a stranger's
frame of an unknown kind. A member's is ignored, for a newer version may have more kinds.

A hello names the lowest version that its sender speaks, or, where that was refused, the next one. A second
later the sender tells which versions it speaks (VERSIONS): hosts of version 7 ignore that, and a stranger
may not send it.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Protocol

import structlog

from cluster.endpoints import handed_endpoint, peer_endpoint
from cluster.machine import FrameSocket, Receive
from cluster.members import meant
from cluster.members.origin import Origin
from cluster.repeats import Repeats
from cluster.settings import NodeSettings, Peer
from cluster.wire.frames import HIGHEST, LOWEST, PEER_FRAMES, PeerKind, agreed
from cluster.wire.messages import SEQUENCE, SPOKEN, Status, answer
from node.links.fronts import cluster_of
from node.links.incarnations import REFUSED, Incarnations
from node.links.peer_link import (
    HINTS,
    REFUSED_CLUSTER,
    REFUSED_INCARNATION,
    REFUSED_MEANT,
    REFUSED_ORIGIN,
    REFUSED_PROMISE,
    REFUSED_REMOVED,
    REFUSED_SHARD,
    REFUSED_UNKNOWN,
    REFUSED_VERSION,
    REMOVED,
    PeerLink,
)
from node.links.round_trips import RoundTrips
from node.links.unheard import Unheard
from node.machine import Machine

if TYPE_CHECKING:
    from node.links.promises import Promises

log = structlog.get_logger("peers")

HELLO = struct.Struct("<HQQQI")  # protocol version, cluster ID, member ID, incarnation, shard
_HELLO, _WHO, _REFUSED, _FRONT, _VERSIONS, _JOIN = (
    kind.byte for kind in (PeerKind.HELLO, PeerKind.WHO, PeerKind.REFUSED, PeerKind.FRONT, PeerKind.VERSIONS,
                           PeerKind.JOIN))
_PEER_HWM = 10_000
_MOST_EARLY, _MOST_EARLY_BYTES = 64, 4096  # frames kept for a hello that is asked for, and the size of each
_EARLY_S = 5.0  # a hello follows within a round trip


class Roster(Protocol):
    """The members that this node has to do with: ``node.members.roster``."""

    def reachable(self) -> dict[int, Peer]: ...
    def is_removed(self, member_id: int) -> bool: ...
    def described(self, *, alone: bool = False) -> bytes: ...
    def told(self, member_id: int, description: bytes) -> None: ...


class Peers:
    def __init__(
        self, machine: Machine, settings: NodeSettings, *, roster: Roster, incarnations: Incarnations,
        on_frame: Callable[[int, int, bytes], None],
        on_front: Callable[[bytes, bytes, Callable[[list[bytes]], bool]], bool],
        on_refused: Callable[[Peer, int, str], None], promises: Promises,
    ) -> None:
        common = settings.common
        self._settings = settings
        self._least = LOWEST  # version of links
        self._cluster_id = common.cluster_id
        self._origin = Origin.parse(common.origin, common.shard_count, common.placement_depth)
        self._name = common.name
        self._promises = promises
        self._shard = settings.shard
        self._incarnations = incarnations
        self._on_frame = on_frame
        self._on_front = on_front
        self._roster = roster
        self._known = roster.reachable()
        self._accepted: dict[bytes, int] = {}
        # by identity, the oldest first: when a frame came before the hello, and the frame
        self._early: dict[bytes, tuple[float, bytes]] = {}
        self._unheard = Unheard()
        self._refusals = Repeats()
        self._loop = machine.loop
        self.versions: dict[int, int] = dict.fromkeys(self._known, LOWEST)  # spoken with each member
        self.received_bytes: dict[int, int] = dict.fromkeys(self._known, 0)
        # by member: frames that could not be read, and hellos that were refused
        self.received_failures: Counter[int] = Counter()
        self.round_trips = RoundTrips(machine, self._known, self.send)

        listen = (
            peer_endpoint(settings.listen_host, settings.listen_port) if settings.listen_host
            else handed_endpoint(common.run_dir, self._shard))
        self._router = machine.listen(
            listen, self._receive, keyed=True, hwm=_PEER_HWM, silence_s=common.silence_s, strangers=True,
            gone=self._gone)
        self._machine, self._on_refused = machine, on_refused
        self.links = {p.member_id: self._link(p) for p in self._known.values()}
        # what links have counted that ended, by member: bytes sent, failures, losses
        self._counted: dict[int, tuple[int, int, int]] = {}

    @property
    def sent_bytes(self) -> int:
        """To all members that there were."""
        ended = sum(sent for sent, *_ in self._counted.values())
        return ended + sum(link.sent_bytes for link in self.links.values())

    def _hello(self, member_id: int, version: int) -> list[bytes]:
        common = self._settings.common
        said = _HELLO + HELLO.pack(
            version, common.cluster_id, common.member_id, self._settings.incarnation, self._shard)
        before = [self._origin.encode()] if self._origin is not None else []
        return [*before, *self._promises.standing(), meant.encode(member_id), said]

    def _link(self, peer: Peer) -> PeerLink:
        endpoint = peer_endpoint(peer.host, peer.port)
        silence_s = self._settings.common.silence_s

        def connect(receive: Receive, opened: Callable[[], None]) -> FrameSocket:
            return self._machine.dial(endpoint, b"p" + self._machine.random_bytes(12), receive,
                                      shard=self._shard, hwm=_PEER_HWM, silence_s=silence_s, opened=opened)

        described = partial(self._roster.described, alone=True)
        link = PeerLink(
            connect, peer, partial(self._hello, peer.member_id), self._on_refused, described,
            self._loop.time, self._promises)
        link.begin_with(self._least)
        return link

    def follow(self) -> None:
        """The members may have changed: links to those that left end, others begin."""
        known = self._known = self._roster.reachable()
        for member_id, link in list(self.links.items()):
            peer = known.get(member_id)
            if peer is not None and (peer.host, peer.port) == (link.peer.host, link.peer.port):
                link.peer = peer  # it has a name now, or votes
            elif peer is None or link.trouble()[0]:
                # a member that the table has elsewhere stays where it is until it is restarted
                del self.links[member_id]
                link.close()
                self._counted[member_id] = link.sent_bytes, link.failures, link.losses
        for member_id, peer in known.items():
            if member_id not in self.links:
                self.received_bytes.setdefault(member_id, 0)
                self.versions.setdefault(member_id, LOWEST)
                self.round_trips.follow(member_id)
                link = self.links[member_id] = self._link(peer)
                # it counts on: a counter that falls looks to a scraper as if all of it were new
                link.sent_bytes, link.failures, link.losses = self._counted.pop(member_id, (0, 0, 0))
        for identity, member_id in list(self._accepted.items()):
            if member_id not in known:
                self._refuse_unknown(identity, member_id)
        for identity, hello, parts in self._unheard.heard(known):
            self._on_hello(identity, hello, parts)

    def linked(self) -> dict[int, int]:
        """The version spoken with each member whose link to here stands."""
        return {member_id: self.versions[member_id] for member_id in self._accepted.values()}

    def refuse_below(self, version: int) -> None:
        """Take no hellos of lower versions from now on, and name that version in the next own ones. Links
        stay: every member has said that it knows a higher one."""
        self._least = version
        for link in self.links.values():
            link.begin_with(version)

    def _on_unheard(self, identity: bytes, member_id: int, hello: bytes, parts: list[bytes]) -> None:
        now = self._loop.time()
        if (self._roster.is_removed(member_id)
                or not self._unheard.hold(identity, member_id, hello, parts, now)):
            self._refuse_unknown(identity, member_id)
        else:
            self._router.send([identity, _JOIN])

    def _ask_where(self) -> None:
        """Ask members whose hellos wait, and members that reach this node but are not where it dials."""
        astray = {i for i, link in self.links.items() if link.trouble()[0]}
        one_way = [identity for identity, member_id in self._accepted.items() if member_id in astray]
        for identity in self._unheard.waiting() + one_way:
            self._router.send([identity, _JOIN])

    def _on_join(self, identity: bytes, description: bytes) -> None:
        if not description:
            self._router.send([identity, _JOIN + self._roster.described()])
            return
        member_id = self._unheard.member(identity)
        if member_id is None:
            member_id = self._accepted.get(identity)
        if member_id is not None:
            self._roster.told(member_id, description)

    def _refuse_unknown(self, identity: bytes, member_id: int) -> None:
        if self._roster.is_removed(member_id):
            self._refuse(identity, member_id, REFUSED_REMOVED, REMOVED)
        else:
            self._refuse(identity, member_id, REFUSED_UNKNOWN, f"member {member_id:x} is not in this cluster")

    def send(self, member_id: int, kind: bytes, data: bytes) -> bool:
        link = self.links.get(member_id)
        return link is not None and link.send(kind, data)

    def _receive(self, parts: list[bytes]) -> None:
        identity, frame = parts[0], parts[-1]
        kind = frame[:1]
        if kind == _FRONT:
            if len(parts) > 2 and (refusal := self._unfit(parts[1:])) is not None:
                self._refuse_node(identity, *refusal)
            elif self._on_front(identity, frame[1:], self._router.send):
                self._router.trust(identity)
            return
        if kind == _JOIN:
            self._on_join(identity, frame[1:])
            return
        if kind == _HELLO:
            self._on_hello(identity, frame, parts[1:-1])
            return
        member_id = self._accepted.get(identity)
        if member_id is None:
            if not frame or frame[0] not in PEER_FRAMES:
                self._router.drop(identity, "it sent a frame of no kind")
                return
            if len(frame) <= _MOST_EARLY_BYTES:
                self._keep_early(identity, frame)
            if self._unheard.member(identity) is None:
                self._router.send([identity, _WHO])
            return
        self._take(identity, member_id, frame)

    def _keep_early(self, identity: bytes, frame: bytes) -> None:
        early, now = self._early, self._loop.time()
        early.pop(identity, None)
        while early and next(iter(early.values()))[0] <= now - _EARLY_S:
            del early[next(iter(early))]
        if len(early) < _MOST_EARLY:
            early[identity] = now, frame

    def _take(self, identity: bytes, member_id: int, frame: bytes) -> None:
        self.received_bytes[member_id] += len(frame)
        if not frame:
            if self._refusals.news((member_id, "empty"), self._loop.time()):
                log.warning("ended the connection of a peer that sent an empty frame",
                            **self._who(identity, member_id))
            self.received_failures[member_id] += 1
            self._gone(identity)
            self._router.drop(identity, "it sent an empty frame")
            return
        if frame[:1] == _VERSIONS:
            if len(frame) == 1 + SPOKEN.size:
                self.versions[member_id] = agreed(*SPOKEN.unpack_from(frame, 1)) or self.versions[member_id]
        elif not self.round_trips.take(member_id, frame):
            self._on_frame(member_id, frame[0], frame[1:])

    def _other_origin(self, parts: list[bytes]) -> Origin | None:
        """The origin that stands before a hello, if it is not this host's."""
        for part in parts:
            other = Origin.decode(part)
            if other is not None and self._origin is not None and self._origin.differs(other):
                return other
        return None

    def _origins(self, name: str, other: Origin) -> str:
        return f"the hosts began with different data: {name} was {other}, {self._name} was {self._origin}"

    def _unfit(self, parts: list[bytes]) -> tuple[int, str] | None:
        """Why a front, or a node of another shard, is refused for what stands before its hello, the last of
        these parts. A node of another origin would take a feed that does not fit its data. One of another
        cluster hears of that instead (``Fronts.frame``)."""
        *before, frame = parts
        if (other := self._other_origin(before)) is not None:
            return REFUSED_ORIGIN, self._origins("a host", other)
        mismatch = meant.mismatch(before, self._settings.common.member_id)
        if not mismatch or cluster_of(frame[1:]) not in (None, self._cluster_id):
            return None
        return REFUSED_MEANT, mismatch

    def _refuse_node(self, identity: bytes, code: int, reason: str) -> None:
        if self._refusals.news((0, code), self._loop.time()):
            log.warning("refused a link of another host", **self._who(identity, 0), reason=reason,
                        hint=HINTS[code])
        said = SEQUENCE.pack(1) + answer(0, Status.REFUSED, reason.encode())
        self._router.send([identity, _FRONT + said])

    def _on_hello(self, identity: bytes, frame: bytes, parts: list[bytes]) -> None:
        """``parts``: of the message, before the hello."""
        if len(frame) != 1 + HELLO.size:
            self._refuse(identity, 0, REFUSED_VERSION, "not a hello of this protocol")
            return
        version, cluster_id, member_id, incarnation, shard = HELLO.unpack_from(frame, 1)
        if cluster_id != self._cluster_id:
            self._refuse(
                identity, member_id, REFUSED_CLUSTER,
                f"cluster ID mismatch (got {cluster_id:x} want {self._cluster_id:x})", "cluster ID mismatch")
        elif not self._least <= version <= HIGHEST:
            grown = ", for the cluster's data has grown" if self._least > LOWEST else ""
            self._refuse(identity, member_id, REFUSED_VERSION,
                         f"incompatible version (got {version} want {self._least} to {HIGHEST}{grown})")
        elif (other := self._other_origin(parts)) is not None and not self._roster.is_removed(member_id):
            peer = self._known.get(member_id)
            name = (peer.name if peer is not None else "") or f"{member_id:x}"
            self._refuse(identity, member_id, REFUSED_ORIGIN, self._origins(name, other))
        elif member_id not in self._known:
            self._on_unheard(identity, member_id, frame, parts)
        elif shard != self._shard:
            self._refuse(
                identity, member_id, REFUSED_SHARD, f"shard mismatch (got {shard} want {self._shard})"
            )
        elif mismatch := meant.mismatch(parts, self._settings.common.member_id):
            self._refuse(identity, member_id, REFUSED_MEANT, mismatch)
        elif (self._incarnations.heard(member_id) in (None, incarnation)
                and (promised := self._promises.broken(member_id, parts))):
            self._gone(identity)
            self._router.send([identity, _REFUSED + bytes((REFUSED_PROMISE,)) + promised])
        elif not self._incarnations.accept(member_id, incarnation):
            self._refuse(identity, member_id, REFUSED_INCARNATION, REFUSED.format(member_id))
        else:
            if self._accepted.get(identity) != member_id:  # else it may have said a higher one
                self.versions[member_id] = version
            self._accepted[identity] = member_id
            self._router.trust(identity)
            if (early := self._early.pop(identity, None)) is not None:
                self._take(identity, member_id, early[1])

    def refuse(self, member_id: int) -> None:
        """The log says that this member was another one when its hello was accepted (H10)."""
        for identity in [i for i, m in self._accepted.items() if m == member_id]:
            self._refuse(identity, member_id, REFUSED_INCARNATION, REFUSED.format(member_id))

    def _refuse(self, identity: bytes, member_id: int, code: int, reason: str, told: str = "") -> None:
        """``told``: what a stranger hears instead of the reason, which may name what only members know."""
        if self._refusals.news((member_id, code), self._loop.time()):
            hint = HINTS.get(code, "")
            if code == REFUSED_CLUSTER and member_id in self._known:
                hint = "its member ID is right, so its --initial-cluster names other members"
            log.warning("refused a peer", **self._who(identity, member_id), reason=reason,
                        **({"hint": hint} if hint else {}))
        if member_id in self._known:
            self.received_failures[member_id] += 1
        self._gone(identity)
        self._router.send([identity, _REFUSED + bytes((code,)) + (told or reason).encode()])

    def _gone(self, identity: bytes) -> None:
        """The next connection under this identity has to say hello."""
        self._accepted.pop(identity, None)
        self._early.pop(identity, None)
        self._unheard.forget(identity)

    def _who(self, identity: bytes, member_id: int) -> dict[str, str]:
        """Log fields of the other end, as far as it is known: the name of its member ID, or of the only
        member at its address."""
        address = self._router.address(identity)
        host = address.rpartition(":")[0].strip("[]")
        there = [p.name for p in self._known.values() if p.host == host]
        name = (
            self._known[member_id].name if member_id in self._known else there[0] if len(there) == 1 else ""
        )
        known = {"peer": name, "member": f"{member_id:x}" if member_id else "", "address": address}
        return {field: value for field, value in known.items() if value}

    def look(self) -> None:
        for identity, member_id in self._unheard.overdue(self._loop.time()):
            self._refuse_unknown(identity, member_id)
        self._ask_where()
        for link in self.links.values():
            link.look()

    def close(self) -> None:
        self.round_trips.stop()
        self._router.close()
        for link in self.links.values():
            link.close()
