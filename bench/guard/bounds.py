"""What one operation may cost over all three hosts, by load.

A change that worsens a figure on purpose says why, and sets it again.
"""

from __future__ import annotations

from dataclasses import dataclass

GROWTH = 1.03  # what repeats may grow by so much
LINES_OF = (3, 11)  # the version of Python whose lines these are: others count loops and calls otherwise


@dataclass(slots=True, frozen=True)
class Bound:
    """The most that one operation may cost; ``seen`` was measured when it was set.

    ``why`` such a bound is wider than :data:`GROWTH`."""

    what: str
    seen: float
    most: float
    why: str = ""


def _same(**seen: float) -> tuple[Bound, ...]:
    """Counts that repeat."""
    return tuple(Bound(what, value, value * GROWTH) for what, value in seen.items())


def _own(why: str, **seen: tuple[float, float]) -> tuple[Bound, ...]:
    """Counts that do not, each with its bound."""
    return tuple(Bound(what, value, most, why) for what, (value, most) in seen.items())


_TIME = "CPU time depends on caches and on what else runs"
_SHARED = "how many requests share a batch depends on what else runs"
_ACKS = "followers' answers come one by one or together"
_WAKES = "a thread that sleeps is woken by a call, one that is awake is not"
_NONE = "no request is logged; an election may be"
_PREPARED = "a prepare may meet the lock of the put before it, and be sent again"

#: 1 client shares no work, 1000 share most. Events: their puts and the creation of watchers are included.
#: Frames of nodes include those of a front in the same process (decision 18). A lone put on a shard other
#: than 0 goes by the sequencer. ``lines``, of Python, come nearest to instructions where none can be counted.
BOUNDS: dict[str, tuple[Bound, ...]] = {
    "put, 1 client": (
        *_same(log_entries=3.0, syncs=3.0, log_bytes=1144, client_received=390.1, client_sent=88.0,
               front_frames=1.0),
        *_own(_ACKS, lines=(3580, 3790), peer_bytes=(943, 1180), node_frames=(3.98, 7.0)),
        *_own(_WAKES, syscalls=(19.0, 21.5)),
        *_own(_TIME, cpu_loops=(9.9, 19)),
    ),
    "range, 1 client": (
        *_same(peer_bytes=295.2, client_received=133.1, client_sent=370.9, node_frames=3.99,
               front_frames=1.0, lines=1664),
        *_own(_NONE, log_entries=(0, 0.01), syncs=(0, 0.01)),
        *_own(_WAKES, syscalls=(9.7, 10.7)), *_own(_TIME, cpu_loops=(2.3, 4.6)),
    ),
    "txn, 1 client": (
        *_same(log_entries=3.0, syncs=3.0, log_bytes=1144, client_received=440.1, client_sent=394.9,
               front_frames=1.0),
        *_own(_ACKS, lines=(4070, 4320), peer_bytes=(942, 1180), node_frames=(3.98, 7.0)),
        *_own(_WAKES, syscalls=(19.2, 21.8)),
        *_own(_TIME, cpu_loops=(10, 20)),
    ),
    "keep-alive, 1 client": (
        *_same(peer_bytes=296, client_received=24.5, client_sent=56.2, node_frames=4.0, front_frames=1.0,
               lines=1650),
        *_own(_WAKES, syscalls=(9.8, 10.8)), *_own(_TIME, cpu_loops=(2.4, 4.8)),
    ),
    "watched event, 1 watcher": (
        *_same(log_entries=3.0, syncs=3.01, log_bytes=1145, client_received=390.5, client_sent=415.2,
               front_frames=1.0),
        *_own(_ACKS, lines=(3930, 4170), peer_bytes=(943, 1180), node_frames=(3.97, 7.0)),
        *_own(_WAKES, syscalls=(19.5, 21.7)),
        *_own(_TIME, cpu_loops=(10, 20)),
    ),
    "put, 1000 clients": (
        *_same(log_bytes=848, peer_bytes=566, client_received=391.3, client_sent=88.5),
        *_own(_SHARED, log_entries=(0.009, 0.03), syncs=(0.01, 0.03), node_frames=(0.02, 0.07),
              front_frames=(0.009, 0.03), syscalls=(0.77, 0.93), lines=(370, 415)),
        *_own(_TIME, cpu_loops=(0.34, 0.68)),
    ),
    "range, 1000 clients": (
        *_same(client_received=133.7, client_sent=371.0, lines=224),
        *_own(_NONE, log_entries=(0, 0.001), syncs=(0, 0.001)),
        *_own(_SHARED, peer_bytes=(4.8, 10), node_frames=(0.08, 0.16), front_frames=(0.022, 0.04),
              syscalls=(0.4, 0.48)),
        *_own(_TIME, cpu_loops=(0.115, 0.23)),
    ),
    "txn, 1000 clients": (
        *_same(log_bytes=848, peer_bytes=566, client_received=441.3, client_sent=395.5),
        *_own(_SHARED, log_entries=(0.009, 0.03), syncs=(0.01, 0.03), node_frames=(0.02, 0.07),
              front_frames=(0.009, 0.03), syscalls=(0.79, 0.94), lines=(847, 900)),
        *_own(_TIME, cpu_loops=(0.45, 0.9)),
    ),
    "keep-alive, 1000 clients": (
        *_same(client_received=44.8, client_sent=66.6),
        *_own(_SHARED, lines=(338, 380), peer_bytes=(12.4, 20), node_frames=(0.17, 0.3),
              front_frames=(0.045, 0.09), syscalls=(0.7, 0.84)),
        *_own(_TIME, cpu_loops=(0.19, 0.38)),
    ),
    "watched event, 2000 watchers": (
        *_same(log_entries=0.0015, log_bytes=0.572, client_received=0.373, client_sent=320.7, lines=12.97),
        *_own(_SHARED, syncs=(0.0015, 0.003), peer_bytes=(0.53, 0.6), node_frames=(0.0028, 0.006),
              front_frames=(0.0005, 0.0015), syscalls=(0.066, 0.075)),
        *_own(_TIME, cpu_loops=(0.0136, 0.028)),
    ),
    "put, 1 client, 4 shards": (
        *_same(log_bytes=1239, peer_bytes=1014, client_received=390.1, client_sent=88.0),
        *_own(_PREPARED, log_entries=(3.01, 3.3), syncs=(3.03, 3.9), node_frames=(6.4, 9.6)),
        *_own(_WAKES, syscalls=(25.9, 31)), *_own(_TIME, cpu_loops=(19, 38)),
    ),
    "put, 1000 clients, 4 shards": (
        *_same(log_bytes=846, peer_bytes=565, client_received=391.3, client_sent=88.9),
        *_own(_SHARED, log_entries=(0.023, 0.06), syncs=(0.023, 0.06), node_frames=(0.1, 0.2),
              syscalls=(1.2, 1.7)),
        *_own(_TIME, cpu_loops=(0.48, 1.0)),
    ),
}
