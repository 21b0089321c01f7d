"""How coarsely long work is cut: a turn of the loop stays at some milliseconds. The figures change no result,
but for ``lease_end_bytes``.
The simulator and tests take finer ones, so that a handful of keys is long work."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(slots=True)
class Grain:
    many_keys: int = 256  # a delete of more keys than this is logged as a range (D8)
    delete_bytes: int = 1 << 20  # and one whose rows take more
    # of deletes in the revision that ends a lease; more, as its keys have long names, go in several. A link
    # of 1 Gbit/s takes a quarter of a second for so many, and an election a second
    lease_end_bytes: int = 32 << 20
    late_rows: int = 256  # an answer that shows more than this is made late
    late_bytes: int = 1 << 20  # and one whose rows take more
    turn_rows: int = 256  # looked at in a turn to decide range compares of a write; more: ahead of its turn
    turn_deletes: int = 8  # of ranges, by a transaction in a turn, 1 ms each; more: ahead of its turn
    piece_rows: int = 256  # that another shard shows, sent at once
    lease_keys: int = 256  # no more keys of a lease are listed at once
    lease_step: int = 32  # keys of a lease read between two pauses, 11 us each
    lease_changes: int = 512  # to a list of keys, for one turn: 1 us each, else 13 from the disk
    apply_slice_s: float = 0.002  # of a run of records
    apply_slice_bytes: int = 8 << 20  # of one batch
    delete_slice_rows: int = 256  # looked at between two pauses
    run_entries: int = 512  # changes of one order record in one row
    compaction_check: int = 16  # changes between two looks at the clock: about 100 us
    compaction_take_check: int = 128  # changes taken between two looks at the clock: about 50 us
    compaction_chunk: int = 1024  # changes that are sorted together, at least; more only to take a run whole
    snapshot_chunk_bytes: int = 256 << 10
    snapshot_window_bytes: int = 2 << 20
    unused_link_s: float = 10.0  # how long an idle link is kept

    @contextmanager
    def finer(self, **values: float) -> Iterator[Grain]:
        before = {name: getattr(self, name) for name in values}
        for name, value in values.items():
            setattr(self, name, value)
        try:
            yield self
        finally:
            for name, value in before.items():
                setattr(self, name, value)


GRAIN = Grain()
