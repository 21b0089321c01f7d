"""How often to look for work that is rare: seldom once there was none for a while."""

from __future__ import annotations

_CALM_LOOKS = 20  # in a row, before the first longer pause


class Lull:
    """Of one repeated look. The first thing that happens (:meth:`stir`) ends it."""

    __slots__ = ("_calm", "_lull_s", "_usual_s", "lulled")

    def __init__(self, usual_s: float, lull_s: float) -> None:
        self._usual_s = usual_s
        self._lull_s = max(lull_s, usual_s)
        self._calm = 0  # looks in a row
        self.lulled = False

    def looked(self, calm: bool) -> float:
        """The pause until the next look; ``calm``: this one found nothing to wait for."""
        self._calm = self._calm + 1 if calm else 0
        self.lulled = self._calm >= _CALM_LOOKS
        return self._lull_s if self.lulled else self._usual_s

    def stir(self) -> float | None:
        """Something has happened. The pause from now on, if it is another one."""
        self._calm = 0
        if not self.lulled:
            return None
        self.lulled = False
        return self._usual_s
