"""The cluster's key file (``muster peer-keys``): a pair in use, maybe the ``next`` one, public parts of
``old``.

The file is read again when it changes, so that keys can be changed at one host after the other:

- Each key of the file is let in.
- This side shows the pair in use.
- A dialled host may serve with another key of the file: after a failed handshake the next one is tried.

A listening socket keeps the pair of its process's start.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

from zmq.utils import z85

Place = tuple[str, int | None]  # an endpoint, and the shard that is asked for: each node has its own start


class CurveKeys:
    """One file's keys; ``public`` and ``secret`` are the pair in use, z85."""

    def __init__(self, public: bytes, secret: bytes, others: Sequence[bytes] = (), path: str = "") -> None:
        """``others``: public parts of keys that are not in use."""
        self._path = path
        self._stamp = _stamp(path)
        self._dialled: dict[Place, int] = {}  # which key to try
        self._take(public, secret, others)
        self.served = self.shown

    @classmethod
    def load(cls, path: str) -> CurveKeys | None:
        """None for no path. ValueError if it is no key file."""
        if not path:
            return None
        stamp = _stamp(path)  # from before the file is read: a change meanwhile shows
        keys = cls(*_read(path), path)
        keys._stamp = stamp
        return keys

    def _take(self, public: bytes, secret: bytes, others: Sequence[bytes]) -> None:
        self.public, self.secret = public, secret
        self.shown = z85.decode(public), z85.decode(secret)  # by diallers, in bytes; ``served``: by listeners
        self._others = tuple(others)
        self._allowed = frozenset(z85.decode(key) for key in (public, *others))

    def look(self) -> None:
        """Read a changed file again. One that cannot be read counts as it was."""
        stamp = _stamp(self._path)
        if stamp == self._stamp:
            return
        try:
            self._take(*_read(self._path))
        except (OSError, ValueError):
            return
        self._stamp = stamp

    def allows(self, public: bytes) -> bool:
        """``public``: in bytes, not z85."""
        self.look()
        return public in self._allowed

    def served_by(self, place: Place) -> bytes:
        """The public key to expect there now, in bytes."""
        self.look()
        keys = self.all
        return keys[self._dialled.get(place, 0) % len(keys)]

    @property
    def all(self) -> tuple[bytes, ...]:
        """Public parts in bytes, the one in use first."""
        return tuple(z85.decode(key) for key in (self.public, *self._others))

    def failed(self, place: Place, tried: bytes) -> int:
        """A handshake with this key has failed there: the next one is to be tried, unless another dealer has
        found so before. Returns how many other keys there are to try."""
        if self.served_by(place) == tried:
            self._dialled[place] = self._dialled.get(place, 0) + 1
        return len(self._others)


def _read(path: str) -> tuple[bytes, bytes, list[bytes]]:
    try:
        raw = json.loads(Path(path).read_text())
        others = [*([raw["next"]["public"]] if raw.get("next") else []), *raw.get("old", [])]
        for key in (raw["public"], *others):
            z85.decode(key.encode())
        return raw["public"].encode(), raw["secret"].encode(), [key.encode() for key in others]
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"{path} is not a peer key file") from error


def _stamp(path: str) -> tuple[int, int, int, int] | None:
    try:
        found = os.stat(path) if path else None
    except OSError:
        return None
    return (found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns) if found is not None else None
