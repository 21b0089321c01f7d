"""Which keys changed when, decoded once for all watches that read the past.

Each watch that resumes looks at all changes since its own last one, few of which are its own. Decoding the
``r`` rows is most of that: 4 us a change, and 0.1 when they were decoded before. Parts are of whole revisions
up to the applied one: their rows are written once, and go with compactions only, below which nobody asks
(H16). Parts of few changes, or of very many, are not kept.
"""

from __future__ import annotations

from typing import NamedTuple

PART = 128  # revisions
_FEW, _MANY = 16, 1024  # changes
_MOST_BYTES = 12 << 20
_LARGE_BYTES = _MOST_BYTES >> 5  # of a part
_CHANGE_BYTES = 150  # besides its key
_MOST_BEGUN = 8


class Part(NamedTuple):
    """The changes of some revisions, in order."""

    keys: list[bytes]
    places: list[tuple[int, int, int]]  # of each: revision, sub, type


class Growing:
    """A part that is being read: complete from its first revision on."""

    __slots__ = ("fits", "part", "size_bytes")

    def __init__(self) -> None:
        self.part = Part([], [])
        self.size_bytes = 0
        self.fits = True  # it may be kept

    def add(self, changes: list[tuple[int, int, int, bytes]]) -> None:
        if self.fits:
            self.part.keys.extend([change[3] for change in changes])
            self.part.places.extend([change[:3] for change in changes])
            self.size_bytes += _CHANGE_BYTES * len(changes) + sum([len(change[3]) for change in changes])
            if self.size_bytes > _LARGE_BYTES or len(self.part.keys) > _MANY:
                self.part, self.fits = Part([], []), False


class Decoded:
    """Of one state."""

    __slots__ = ("_begun", "_parts", "held_bytes")

    def __init__(self) -> None:
        self._parts: dict[int, tuple[Part, int]] = {}  # by number, with bytes; least recently used first
        self._begun: dict[int, Growing] = {}  # by the revision at which they go on
        self.held_bytes = 0

    def known(self, number: int) -> Part | None:
        """The part of revisions ``number * PART`` and on, if it is in memory."""
        found = self._parts.pop(number, None)
        if found is None:
            return None
        self._parts[number] = found
        return found[0]

    def begun(self, revision: int) -> Growing | None:
        """The part that goes on at a revision; None: its beginning is not known. It is the caller's then."""
        return self._begun.pop(revision, None) or (Growing() if not revision % PART else None)

    def later(self, revision: int, growing: Growing) -> None:
        """Somebody may go on with it at that revision."""
        self._begun[revision] = growing
        if len(self._begun) > _MOST_BEGUN:
            del self._begun[next(iter(self._begun))]

    def hold(self, number: int, growing: Growing) -> None:
        """A part that is complete."""
        if not growing.fits or len(growing.part.keys) < _FEW or number in self._parts:
            return
        self._parts[number] = growing.part, growing.size_bytes
        self.held_bytes += growing.size_bytes
        while self.held_bytes > _MOST_BYTES:
            _, size_bytes = self._parts.pop(next(iter(self._parts)))
            self.held_bytes -= size_bytes
