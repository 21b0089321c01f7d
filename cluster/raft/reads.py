"""Confirmation rounds for reads (thesis section 6.4; review H2, I13): a leader may answer with its commit
index only if a quorum, itself included, confirms by heartbeats of that *round* that it still leads.

- A question belongs to the first round begun after it came (H2). So rounds begin when messages are built.
- The index is the commit index when the round begins, at least that when the question came.
- An answer to round n confirms all rounds up to n: its heartbeat left after those began.
- Before an entry of its own term is committed the leader does not know what is (section 8): questions wait.
"""

from __future__ import annotations

from collections import deque


class ReadRounds:
    def __init__(self) -> None:
        self.latest = 0  # number of the latest round begun
        self.waiting: list[int] = []
        self._rounds: deque[tuple[int, int, list[int]]] = deque()  # (round, index, contexts)

    def __len__(self) -> int:
        return len(self._rounds)

    def begin(self, commit: int) -> None:
        """Begin a round with all waiting questions; messages built from now on carry its number."""
        self.latest += 1
        self._rounds.append((self.latest, commit, self.waiting))
        self.waiting = []

    def confirm(self, round_: int) -> list[tuple[int, int]]:
        """A quorum confirmed ``round_``: the questions answered by that, as (context, index)."""
        answered: list[tuple[int, int]] = []
        rounds = self._rounds
        while rounds and rounds[0][0] <= round_:
            _, index, contexts = rounds.popleft()
            answered += [(context, index) for context in contexts]
        return answered

    def drain(self) -> list[int]:
        lost = [context for _, _, contexts in self._rounds for context in contexts] + self.waiting
        self._rounds.clear()
        self.waiting = []
        return lost

    def count(self) -> int:
        return len(self.waiting) + sum(len(contexts) for _, _, contexts in self._rounds)
