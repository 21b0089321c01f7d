"""What the cluster's data may hold from here on, and which hosts say that they know it (G16).

A release that adds to the log what older releases do not know raises ``LEVEL``. Each member says in the order
what its program speaks: a row of the feature ``VERSIONS``, which hosts that do not know it keep. Once all
members have said a level, those that are down too, an operator may have the cluster *grow* to it: an item
GROWTH. Data of that level may follow the item, and never stands before it.

|level|what it adds|
|---|---|
|0|nothing: the releases before rows of this feature|
|1|the items of growth: SHARD, MOVE, MOVED (``cluster.placement``)|
|2|shards are born and retired: a host runs a node of each shard in the table|
|3|keys move between shards: a host's nodes copy them to each other|
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from cluster import errors
from cluster.effects.newer import NewerRecord
from cluster.effects.records import GROWTH_LEVEL, ITEM, Item
from cluster.features.rows import Row
from cluster.members.table import Host
from cluster.version import MUSTER_VERSION
from cluster.wire.frames import GROWTH_SINCE, HIGHEST, LOWEST

LEVEL = 3  # that this program knows
BIRTHS = 2  # from this level on shards are born, and node 0 of a store of one shard orders, too
MOVES = 3  # from this level on keys move
_HEAD = struct.Struct("<HHH")
_MEMBER = struct.Struct("<Q")
_MOST_BYTES = 64  # of a program's version, encoded


class Spoken(NamedTuple):
    """What a member's program speaks."""

    level: int = 0
    lowest: int = 0  # versions of links
    highest: int = 0
    version: str = ""  # of the program, for people

    def encode(self) -> bytes:
        """The value of its row; a later release may add to its end."""
        text = self.version.encode()[:_MOST_BYTES]
        return _HEAD.pack(*self[:3]) + bytes((len(text),)) + text

    @classmethod
    def decode(cls, data: bytes) -> Spoken:
        """ValueError: it is none."""
        size = data[_HEAD.size] if len(data) > _HEAD.size else _MOST_BYTES + 1
        text = data[_HEAD.size + 1 : _HEAD.size + 1 + size]
        if size > _MOST_BYTES or len(text) != size:
            raise ValueError("what a host speaks is cut short")
        level, lowest, highest = _HEAD.unpack_from(data)
        # what is left encodes to what decodes to it again: the leader compares
        return cls(level, lowest, highest, text.decode(errors="ignore"))


OWN = Spoken(LEVEL, LOWEST, HIGHEST, MUSTER_VERSION)


def row(member_id: int, spoken: bytes) -> Row:
    return member_id.to_bytes(8, "big"), spoken


def item(level: int, members: Iterable[int]) -> bytes:
    """What follows may need this level, which all ``members`` of the cluster have said that they know."""
    body = GROWTH_LEVEL.pack(level) + b"".join([_MEMBER.pack(member_id) for member_id in sorted(members)])
    return ITEM.pack(Item.GROWTH, len(body)) + body


def read_item(data: bytes, pos: int, end: int) -> tuple[int, list[int]]:
    """Level and members of such an item's body, if it is sound."""
    members = range(pos + GROWTH_LEVEL.size, end, _MEMBER.size)
    return GROWTH_LEVEL.unpack_from(data, pos)[0], [_MEMBER.unpack_from(data, at)[0] for at in members]


def sound(data: bytes, pos: int, end: int) -> bool:
    """Whether such a body can be applied."""
    size = end - pos - GROWTH_LEVEL.size
    return size >= 0 and size % _MEMBER.size == 0 and 0 < GROWTH_LEVEL.unpack_from(data, pos)[0] <= LEVEL


def newer(data: bytes, pos: int, end: int) -> NewerRecord | None:
    """Why only a newer program can apply such a body."""
    level = GROWTH_LEVEL.unpack_from(data, pos)[0] if end - pos >= GROWTH_LEVEL.size else 0
    return NewerRecord.level(level, LEVEL) if level > LEVEL else None


class Growth:
    """The level of the data, and what members have said; a fold of the order."""

    def __init__(self, level: int = 0, rows: Iterable[tuple[bytes, bytes]] = ()) -> None:
        self.level = level
        self.spoken: dict[int, Spoken] = {}
        self.take(rows)

    def copy(self) -> Growth:
        new = Growth(self.level)
        new.spoken = dict(self.spoken)
        return new

    def take(self, rows: Iterable[Row]) -> None:
        """Rows of the feature were written. One that cannot be read says nothing."""
        for name, value in rows:
            try:
                said = Spoken() if value is None else Spoken.decode(value)
            except ValueError:
                said = Spoken()
            self.spoken[int.from_bytes(name, "big")] = said

    def lacking(self, level: int, members: Iterable[int]) -> list[int]:
        """Those of the members that have not said that they know a level."""
        return [i for i in sorted(members) if self.spoken.get(i, _NOTHING).level < level]

    def grow(self, level: int, members: Iterable[int]) -> None:
        """An item says that data of this level may follow."""
        lacking = self.lacking(level, members)
        assert not lacking, f"G16: growth to level {level}, which {[f'{i:x}' for i in lacking]} never said"
        assert level > self.level, f"G16: growth to level {level} after {self.level}"
        self.level = level


_NOTHING = Spoken()


def check(grown: Growth, level: int, hosts: Mapping[int, Host], linked: Mapping[int, int]) -> None:
    """Whether the cluster may grow to a level. EtcdError: a member has not said that it knows it, or may run
    another program by now.

    ``linked``: the version of its link, for each member that is connected, the leader's own too.
    """
    if level > LEVEL:
        raise errors.GROWTH_UNKNOWN.error(level=level, known=LEVEL)
    if level <= grown.level:
        return
    members = members_of(hosts)
    if lacking := grown.lacking(level, members):
        names = ", ".join(_name(hosts[i]) for i in lacking)
        raise errors.GROWTH_TOO_SOON.error(hosts=names, level=level)
    # a row stays when a host goes back to an older program
    if unsure := [i for i in members if linked.get(i, 0) < GROWTH_SINCE]:
        names = ", ".join(
            f"{_name(hosts[i])} ({f'speaks version {linked[i]}' if i in linked else 'not connected'})"
            for i in unsure)
        raise errors.GROWTH_UNSURE.error(hosts=names, level=level)


def _name(host: Host) -> str:
    return host.name or f"{host.member_id:x}"


def members_of(hosts: Mapping[int, Host]) -> list[int]:
    """Those that belong to the cluster."""
    return [member_id for member_id, host in sorted(hosts.items()) if not host.removed]
