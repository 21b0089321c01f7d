"""The clock by which a cluster's leases live."""

from __future__ import annotations

import os
from pathlib import Path


class Clock:
    """``cluster.clock``: time of leases alone, of all hosts. Elections, certificates, tokens and the TTL of
    version 2 go by the machine's clock; so do clients, which keep their leases alive as ever."""

    def __init__(self, file: Path) -> None:
        self._file, self._ahead_ms = file, 0

    @property
    def ahead_s(self) -> float:
        """By how much it was moved, in all."""
        return self._ahead_ms / 1000

    def advance(self, seconds: float) -> None:
        """Move it forward. What is over then ends within some seconds, as it does by itself: wait for what is
        to be gone. A lease that is kept alive has its whole time again from the next renewal on. ValueError:
        backward."""
        if seconds < 0:
            raise ValueError("a clock moves forward")
        self._ahead_ms += round(seconds * 1000)
        part = self._file.with_name(f"{self._file.name}.part")
        part.write_text(str(self._ahead_ms), encoding="ascii")
        os.replace(part, self._file)
