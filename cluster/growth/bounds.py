"""Every limit that the policy goes by. Shares of CPU are of one CPU; ``_s`` are seconds."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from math import isfinite

from cluster.placement.table import MOST_SPANS

LOOK_S = 5.0  # between two looks at the facts


@dataclass(frozen=True)
class Bounds:
    """``--growth-bounds`` changes them by name."""

    hot: float = 0.7  # a leader above it has too much to do
    cool: float = 0.4  # one below it has room
    least_span: float = 0.3  # of a leader's load: what one move takes along
    most_span: float = 0.5
    crossing: float = 0.02  # of the load: transactions that a cut may spread over two shards
    one_key: float = 0.5  # of a leader's load: no cut helps
    order_work: float = 0.5  # of the sequencer's CPU: another shard would bring it more
    gain: float = 0.1  # of a CPU: what an action must foresee
    free_cpus: float = 1.0  # that each host needs for another shard
    free_disk: float = 0.3  # of each host's file system
    behind: float = 10_000  # log entries that a replica may lack
    for_s: float = 60  # how long the facts must ask for the same
    after_election_s: float = 120
    span_rest_s: float = 600  # a span stays where it came to
    moves: float = 6  # an hour
    moved: float = 0.1  # of the live bytes, an hour: on average, where one move takes more
    kept: float = 0.25  # of the live bytes: what may have moved and not be compacted where it was
    spans: float = MOST_SPANS // 2  # in the table: the rest is for operators
    small_bytes: float = 64 << 20  # so much may always have moved, an hour or uncompacted
    retire_for_s: float = 1800
    retire_age_s: float = 3600  # of the shard
    settle_s: float = 120  # after an action, until its figures tell
    refused_s: float = 300  # until what was refused is tried again
    wrong: float = 2  # actions that did not bring what was foreseen: then it stops

    @classmethod
    def parse(cls, text: str) -> Bounds:
        """``name=value,...``; ValueError: it names none, or no number above 0."""
        names = {field.name for field in fields(cls)}
        changed: dict[str, float] = {}
        for part in filter(None, map(str.strip, text.split(","))):
            name, _, value = part.partition("=")
            if name not in names:
                raise ValueError(f"{name!r} is none of {', '.join(sorted(names))}")
            try:
                changed[name] = float(value)
            except ValueError:
                raise ValueError(f"{part!r} needs a number") from None
            if not isfinite(changed[name]) or changed[name] < 0:
                raise ValueError(f"{part!r} needs a number that is not negative")
        return replace(cls(), **changed)
