"""What each shard of this host has in use, for their common quota."""

from __future__ import annotations

import os
from contextlib import suppress

SIZES = "sizes"  # file in the run directory
_MOST_SIZES = 8192  # ids of shards are never used again: a cluster may have had that many


class Sizes:
    """What each shard of this host has in use, for their common quota: 8 bytes a shard in a file of the run
    directory."""

    def __init__(self, run_dir: str, shard: int, shard_count: int) -> None:
        self._run_dir = run_dir
        self._shard = shard
        self._fd = -1
        #: How many shards have told so far, this one among them; at least as many as at the beginning.
        self.shards = self._least = shard_count
        if shard_count > 1 or shard:
            self.share()

    def share(self) -> None:
        """There are, or may be, other shards."""
        if self._run_dir and self._fd < 0:
            # drops values of an earlier life; running nodes tell again
            anew = 0 if self._shard else os.O_TRUNC
            with suppress(OSError):
                self._fd = os.open(os.path.join(self._run_dir, SIZES), os.O_RDWR | os.O_CREAT | anew, 0o600)

    def tell(self, size: int) -> None:
        if self._fd >= 0:
            with suppress(OSError):
                os.pwrite(self._fd, size.to_bytes(8, "little"), 8 * self._shard)

    def others(self) -> int:
        """What the other shards have in use, as they told last: each second, and while they grow."""
        found = self.each()
        self.shards = max(self._least, 1 + len(found))
        return sum(found.values())

    def each(self) -> dict[int, int]:
        """The same of each of them that has anything."""
        if self._fd < 0:
            return {}
        try:
            told = os.pread(self._fd, 8 * _MOST_SIZES, 0)
        except OSError:
            return {}
        sizes = (int.from_bytes(told[at : at + 8], "little") for at in range(0, len(told), 8))
        return {shard: size for shard, size in enumerate(sizes) if size and shard != self._shard}

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def forget(run_dir: str, shard: int) -> None:
    """This shard was dropped, and its process has ended: nothing of it is in use. OSError."""
    with suppress(FileNotFoundError), open(os.path.join(run_dir, SIZES), "r+b") as sizes:
        if sizes.seek(0, os.SEEK_END) > 8 * shard:
            sizes.seek(8 * shard)
            sizes.write(bytes(8))
