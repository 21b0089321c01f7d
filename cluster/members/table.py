"""The members of the cluster: a table folded from the order, with the wanted state of each host.

Every row is absolute: a host as it is from one item of the order log on (``records.Item.HOST``). The table
begins with the hosts that this host was made with (its seed), and rows replace them. Rows are never deleted,
so replicas with different seeds of one cluster come to the same table. A host that is removed keeps its row:
its ID never comes back, and its address stays known until every group has dropped it.

Names and client URLs of running hosts are published apart (``records.Item.PUBLISH``): a host without a
published name has not started yet.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from google.protobuf.message import DecodeError

from cluster.endpoints import peer_address
from cluster.pb import rpc_pb2
from cluster.settings import Peer

_REMOVED = 0x01  # flag of a row


@dataclass(slots=True, frozen=True)
class Host:
    """One host, as the order says."""

    member_id: int
    name: str  # at bootstrap, or as the cluster was told; empty for a host that was added
    peer_urls: tuple[str, ...]
    learner: bool = False
    removed: bool = False

    def encode(self) -> bytes:
        """The body of its item and its row: ``flags u8 | etcdserverpb.Member``."""
        member = rpc_pb2.Member(
            ID=self.member_id, name=self.name, peerURLs=self.peer_urls, isLearner=self.learner
        )
        return bytes((_REMOVED if self.removed else 0,)) + member.SerializeToString(deterministic=True)

    @classmethod
    def decode(cls, data: bytes) -> Host:
        """ValueError: it is damaged."""
        try:
            member = rpc_pb2.Member.FromString(data[1:])
        except DecodeError as e:
            raise ValueError("a host's row is damaged") from e
        if not data or not member.ID:
            raise ValueError("a host's row names nobody")
        return cls(member.ID, member.name, tuple(member.peerURLs), member.isLearner, bool(data[0] & _REMOVED))

    @property
    def peer(self) -> Peer:
        """How it is reached. Port 0 where its URL does not say."""
        address, port = "", 0
        with contextlib.suppress(ValueError, IndexError):
            address, port = peer_address(self.peer_urls[0])
        return Peer(self.member_id, self.name, address, port, self.peer_urls)

    @classmethod
    def of(cls, peer: Peer) -> Host:
        """The host that a seed names."""
        urls = tuple(sorted(peer.peer_urls)) or (f"http://{peer.host}:{peer.port}",)
        return cls(peer.member_id, peer.name, urls, peer.learner)


class Table:
    """Of one process. ``seed``: the hosts it was made with; ``rows``: later changes of its state."""

    def __init__(self, seed: Iterable[Peer], rows: Iterable[bytes] = ()) -> None:
        self._seed = {peer.member_id: (Host.of(peer), peer) for peer in seed}
        self.hosts: dict[int, Host] = {}
        self.changes = 0  # so often it has changed
        self._told: list[Callable[[], None]] = []
        self._load(rows)

    def subscribe(self, changed: Callable[[], None]) -> None:
        """Call ``changed`` after each change of the table."""
        self._told.append(changed)

    def _load(self, rows: Iterable[bytes]) -> None:
        self.hosts = {member_id: host for member_id, (host, _) in self._seed.items()}
        for row in rows:
            host = Host.decode(row)
            self.hosts[host.member_id] = self._named(host)

    def _named(self, host: Host) -> Host:
        known = self.hosts.get(host.member_id)
        return replace(host, name=known.name) if known is not None and known.name and not host.name else host

    def take(self, rows: Iterable[bytes]) -> None:
        """Rows were applied, in this order."""
        before = dict(self.hosts)
        for row in rows:
            host = Host.decode(row)
            self.hosts[host.member_id] = self._named(host)
        self._changed(before)

    def replace(self, rows: Iterable[bytes]) -> None:
        """The state was replaced, and holds these rows."""
        before = self.hosts
        self._load(rows)
        self._changed(before)

    def follow(self, hosts: Iterable[Host]) -> None:
        """Another process has sent the whole table (:func:`encode_all`)."""
        before = self.hosts
        self.hosts = {host.member_id: host for host in hosts}
        self._changed(before)

    def _changed(self, before: dict[int, Host]) -> None:
        if self.hosts != before:
            self.changes += 1
            for told in self._told:
                told()

    @property
    def moved(self) -> bool:
        """Whether it is another one than its seed says."""
        return len(self.hosts) != len(self._seed) or any(
            i not in self._seed or host != self._seed[i][0] for i, host in self.hosts.items()
        )

    @property
    def members(self) -> list[Host]:
        """The hosts that belong to the cluster, by ID."""
        return [host for _, host in sorted(self.hosts.items()) if not host.removed]

    @property
    def peers(self) -> tuple[Peer, ...]:
        """How each of them is reached, by ID."""
        return tuple(self.peer(host.member_id) for host in self.members)

    def peer(self, member_id: int) -> Peer:
        """How a host is reached, a removed one too. KeyError: it is unknown."""
        host = self.hosts[member_id]
        seed = self._seed.get(member_id)
        # a seed may name the address otherwise than its URL does
        return seed[1] if seed is not None and seed[0].peer_urls == host.peer_urls else host.peer

    @property
    def former(self) -> list[int]:
        """IDs of removed hosts."""
        return sorted(i for i, host in self.hosts.items() if host.removed)

    def listed(self, published: Mapping[int, bytes], alone: int | None = None) -> list[rpc_pb2.Member]:
        """Every member with what it has published, an ``etcdserverpb.Member`` in wire form, by ID. ``alone``:
        only this one, removed or not."""
        hosts = self.members if alone is None else [h for i, h in self.hosts.items() if i == alone]
        own = {i: rpc_pb2.Member.FromString(data) for i, data in published.items()}
        return [
            rpc_pb2.Member(
                ID=host.member_id,
                name=own[host.member_id].name if host.member_id in own else "",
                peerURLs=host.peer_urls,
                clientURLs=list(own[host.member_id].clientURLs) if host.member_id in own else [],
                isLearner=host.learner,
            )
            for host in hosts
        ]

    def removed(self, member_id: int) -> bool:
        """Whether it was a member once and is none any more."""
        host = self.hosts.get(member_id)
        return host is not None and host.removed

    def learner(self, member_id: int) -> bool:
        """Whether it is to stay a learner until it is promoted."""
        host = self.hosts.get(member_id)
        return host is not None and host.learner

    def encode_all(self, elsewhere: Mapping[int, Host] = MappingProxyType({})) -> bytes:
        """The whole table, for another process: ``length u32 | row`` each. ``elsewhere``: hosts as they are
        reached now."""
        rows = [host.encode() for _, host in sorted({**self.hosts, **elsewhere}.items())]
        return b"".join(len(row).to_bytes(4, "little") + row for row in rows)


def decode_all(data: bytes) -> list[Host]:
    """What :meth:`Table.encode_all` made. ValueError otherwise."""
    found, pos = [], 0
    while pos < len(data):
        length = int.from_bytes(data[pos : pos + 4], "little")
        pos += 4
        if pos + length > len(data):
            raise ValueError("a table of members cut short")
        found.append(Host.decode(data[pos : pos + length]))
        pos += length
    return found
