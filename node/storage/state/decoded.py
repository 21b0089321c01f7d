"""Which keys changed when, decoded once for all watches that read the past.

Each watch that resumes looks at all changes since its own last one, few of which are its own. Decoding the
``r`` rows is most of that: 4 us a change, and 0.1 when they were decoded before. Parts are by revision, and
whole: rows are written once, above the position, and go with compactions only (H16).
"""

from __future__ import annotations

from collections.abc import Generator
from typing import NamedTuple

from rocksdict import Rdict

from node.storage.state.reads import all_changes

PART = 128  # revisions
_MOST = 65_536  # changes in memory, some 10 MB
_STEP = 1000  # changes of a large revision that are decoded without a pause


class Part(NamedTuple):
    """The changes of some revisions, in order."""

    keys: list[bytes]
    places: list[tuple[int, int, int]]  # of each: revision, sub, type


class Decoded:
    """Of one state."""

    __slots__ = ("_held", "_parts", "_source")

    def __init__(self) -> None:
        self._source: Rdict | None = None
        self._parts: dict[int, Part] = {}  # by number, least recently used first
        self._held = 0  # changes

    def known(self, source: Rdict, number: int) -> Part | None:
        """The part of revisions ``number * PART`` and on, if it is in memory."""
        if self._source is not source:
            return None
        part = self._parts.pop(number, None)
        if part is not None:
            self._parts[number] = part
        return part

    def read(self, source: Rdict, number: int, last_revision: int) -> Generator[None, None, Part]:
        """The part, up to ``last_revision``. Pauses within a large one."""
        first = number * PART
        part = Part([], [])
        for revision, sub, kind, key in all_changes(source, first, min(first + PART - 1, last_revision)):
            part.keys.append(key)
            part.places.append((revision, sub, kind))
            if not len(part.keys) % _STEP:
                yield
        if first + PART - 1 <= last_revision and len(part.keys) <= _MOST >> 3:
            self._hold(source, number, part)
        return part

    def _hold(self, source: Rdict, number: int, part: Part) -> None:
        if self._source is not source:
            self._source, self._parts, self._held = source, {}, 0
        self._parts[number] = part
        self._held += len(part.keys)
        while self._held > _MOST:
            self._held -= len(self._parts.pop(next(iter(self._parts))).keys)
