"""What the leader of shard 0 knows when the policy looks; and how nodes tell it, as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from typing import Any, NamedTuple

from cluster.features.moves import UNBOUNDED
from cluster.growth.sample import MOST, MOST_KEY_BYTES, Weighed
from cluster.placement import Table

MOST_MARKS = 64
_MOST_BYTES = 4 << 20  # of what a node tells
_SAMPLE_BYTES = 256 << 10  # about, of a sample that is told: the sequencer reads it in a millisecond
_LEAST_TOLD = 100  # of its requests, 1 MB at most: fewer do not show what a twentieth of them is
_STEPS = 20  # that it is told in
_TOO_LARGE = 1 << 64  # for an integer: a member's ID has 64 bits


class Host(NamedTuple):
    """One host, as its node 0 tells."""

    cpus: float = 0.0  # that muster may use
    free_cpus: float = 0.0
    free_disk: float = 0.0  # of the file system, a share

    def encode(self) -> bytes:
        return json.dumps(self._asdict()).encode()

    @classmethod
    def decode(cls, data: bytes) -> Host:
        """ValueError: it is none."""
        told = _read(data)
        return cls(*(_number(told, name) for name in cls._fields))


@dataclass(frozen=True, slots=True)
class Shard:
    """One shard, as its leader tells."""

    leader: int = 0  # member
    term: int = 0
    cpu: float = 0.0  # share of one CPU that the leader's process takes
    rate: float = 0.0  # load, in plain puts a second (``sample``)
    behind: int = 0  # log entries that a voter lacks, at most; -1: one is not heard
    live_bytes: int = 0
    keys: int = 0
    sample: tuple[Weighed, ...] = ()  # only of a leader that may be hot
    marks: tuple[bytes, ...] = ()  # cut its live keys into equal parts
    front: float = 0.0  # of the load: by a front in its process. Only shard 0's, which is not told it

    def encode(self) -> bytes:
        return b"".join(self.pieces())

    def pieces(self) -> Iterator[bytes]:
        """What :meth:`encode` makes, in steps of a fraction of a millisecond. Of a large sample each so many
        requests are told: of all ages, the newest among them."""
        size = 0
        for some in _parts(self.sample):
            size += sum(map(_encoded_bytes, some))
            yield b""
        every = max(min(-(-size // _SAMPLE_BYTES), len(self.sample) // _LEAST_TOLD), 1)
        told = {name: getattr(self, name) for name in _OF_SHARD}
        told["marks"] = [mark[:MOST_KEY_BYTES].hex() for mark in self.marks]
        yield json.dumps(told).encode()[:-1] + b', "sample": ['
        comma = b""
        for some in _parts(self.sample[::-1][::every][::-1]):
            yield comma + json.dumps([
                [key.hex(), round(weight, 3), round(age_s, 1), [[a.hex(), b.hex()] for a, b in spans]]
                for key, weight, age_s, spans in some]).encode()[1:-1]
            comma = b", "
        yield b"]}"

    @classmethod
    def decode(cls, data: bytes) -> Shard:
        """ValueError: it is none."""
        told = _read(data)
        try:
            sample = tuple(
                Weighed(bytes.fromhex(key), float(weight), float(age_s),
                        tuple((bytes.fromhex(a), bytes.fromhex(b)) for a, b in spans))
                for key, weight, age_s, spans in told["sample"][:MOST])
            marks = tuple(bytes.fromhex(mark) for mark in told["marks"][:MOST_MARKS])
        except (KeyError, TypeError, AttributeError, OverflowError) as error:
            raise ValueError("what a shard's leader tells has another form") from error
        if not all(isfinite(one.weight) and isfinite(one.age_s) for one in sample):
            raise ValueError("a sample's weights must be numbers")
        cpu, rate = _number(told, "cpu"), _number(told, "rate")
        leader, term, behind, live_bytes, keys = (
            _whole(told, name, least) for name, least in _WHOLE.items())
        return cls(leader, term, cpu, rate, behind, live_bytes, keys, sample, marks)


def _parts(sample: Sequence[Weighed]) -> Iterator[Sequence[Weighed]]:
    step = max(-(-len(sample) // _STEPS), 1)
    return (sample[at : at + step] for at in range(0, len(sample), step))


def _encoded_bytes(one: Weighed) -> int:
    """About."""
    return 40 + 2 * len(one.key) + sum([12 + 2 * (len(a) + len(b)) for a, b in one.spans])


_WHOLE = {"leader": 0, "term": 0, "behind": -1, "live_bytes": 0, "keys": 0}  # and the least of each
_OF_SHARD = ("leader", "term", "cpu", "rate", "behind", "live_bytes", "keys")


def _read(data: bytes) -> dict[str, Any]:
    if len(data) > _MOST_BYTES:
        raise ValueError("a node's report of its load is too large")
    try:
        told = json.loads(data)
    except RecursionError as error:
        raise ValueError("a node's report of its load is nested too deep") from error
    if not isinstance(told, dict):
        raise ValueError("a node's report of its load has another form")
    return told


def _number(told: Mapping[str, Any], name: str) -> float:
    value = told.get(name)
    try:
        if isinstance(value, int | float) and isfinite(value):
            return value
    except OverflowError:
        pass  # an integer that no float can hold
    raise ValueError(f"{name} must be a number")


def _whole(told: Mapping[str, Any], name: str, least: int) -> int:
    value = int(_number(told, name))
    if not least <= value < _TOO_LARGE:
        raise ValueError(f"{name} is out of bounds")
    return value


@dataclass(frozen=True, slots=True)
class Facts:
    """At one time. What is missing of hosts and shards is not known."""

    now_ms: int
    table: Table
    hosts: Mapping[int, Host] = field(default_factory=dict)  # by member: those that tell
    members: Mapping[int, str] = field(default_factory=dict)  # names of all that belong to the cluster
    shards: Mapping[int, Shard] = field(default_factory=dict)
    compact_revision: int = 0
    settled: bool = True  # hosts do not change
    births: bool = True  # the data has grown so far that shards may be born
    moves: bool = True  # and keys may move
    alarms: bool = False  # any is raised
    room: int = UNBOUNDED  # bytes that a copy may take at the leader's host: of the quota, and of the disk
    older: tuple[str, ...] = ()  # hosts whose programs do not tell
