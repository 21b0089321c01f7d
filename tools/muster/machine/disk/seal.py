"""The seal of a node's directory: whose data it holds, and whether there is any yet (H10).

A replica that lost its log has lost its votes and acknowledgements: it may not come back under its old
identity. An empty directory does not tell that loss from a first start, so there is a seal. The host writes
``<incarnation> new`` before any process runs. The node writes ``<incarnation> begun`` once its log, the log's
mark and its state are on the disk, before it sends anything. From then on a directory without one of them is
refused.

Seals of older versions have the incarnation only. Beside a log they count as begun; without one they are
refused.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from node.durable import write_whole

FILE = "incarnation"
NEW, BEGUN, OLD = "new", "begun", ""
# what a begun node's directory holds, by a file that each part always has
PARTS = {
    "the log (log/db)": "log/db/CURRENT", "the log's mark (log/synced)": "log/synced",
    "the state (state)": "state/current",
}
_ADVICE = (
    "This replica must not vote under its old identity: put back what is missing, or remove the member, then "
    "add it anew with an empty data directory")

_ELSEWHERE = "If its log is in another directory (--backup-wal-dir), name that one with --wal-dir. "


class SealBroken(Exception):
    """The text says what is missing and what to do."""


def read(folder: str | Path) -> tuple[int, str]:
    """``(incarnation, NEW or BEGUN or OLD)``; ``(0, OLD)`` without a readable seal."""
    with contextlib.suppress(OSError, ValueError):
        words = Path(folder, FILE).read_text(encoding="utf-8").split(" ")
        if len(words) <= 2 and (state := "".join(words[1:]).strip()) in (NEW, BEGUN, OLD):
            return int(words[0], 16), state
    return 0, OLD


def seal(folder: str | Path, incarnation: int) -> None:
    """Make a node's directory this incarnation's, before any node runs; a second call changes nothing."""
    if read(folder)[0] != incarnation:
        Path(folder).mkdir(mode=0o700, exist_ok=True)
        write_whole(Path(folder, FILE), f"{incarnation:016x} {NEW}\n".encode())


def check(folder: str | Path, member_id: int, incarnation: int) -> None:
    """SealBroken unless a directory is this incarnation's and holds all that it ever held."""
    sealed, state = read(folder)
    if sealed != incarnation:
        raise SealBroken(
            f"{folder} is not what member {member_id:x} wrote there (its seal, {FILE}, is missing, damaged "
            f"or another host's). {_ADVICE}")
    missing = [part for part, file in PARTS.items() if not Path(folder, file).is_file()]
    if state == BEGUN and missing:
        elsewhere = "" if os.path.lexists(Path(folder, "log")) else _ELSEWHERE
        raise SealBroken(
            f"{folder} has lost {' and '.join(missing)}, which its seal says were there. "
            f"{elsewhere}{_ADVICE}")
    if state == OLD and not Path(folder, PARTS["the log (log/db)"]).is_file():
        raise SealBroken(
            f"{folder} has no log, and its seal is an older version's, which does not say "
            f"whether there was one. {_ADVICE}")


def begin(folder: str | Path, incarnation: int) -> None:
    """From now on log, mark and state must be there. Call it once they are durable, before the node sends
    anything."""
    if read(folder) != (incarnation, BEGUN):
        write_whole(Path(folder, FILE), f"{incarnation:016x} {BEGUN}\n".encode())
