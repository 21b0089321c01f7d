"""How long a copy rests between its questions: a part of a CPU, and less of it the longer others wait.

A question waits for the same processes and CPUs as a client's put does, so the time until its answer tells
how busy they are. A rest is so many times that, within bounds. Thus a million keys of 256 bytes take 20 s
where all is quiet, and less than a minute where answers take 3 ms. Where the CPUs are full, a rest is as long
as the question waited, first for its turn and then for the answer, and a second at most: a process that stood
still was late for another reason. Times are the caller's, in seconds.
"""

from __future__ import annotations

SHARE = 5  # work is one part in so many of the time
LEAST_S, MOST_S = 0.004, 0.011  # of a rest, while neither the work nor the wait takes longer
_TIMES = 6  # of an answer's time
_FULL_S = 1.0  # of any rest


def rest_s(worked_s: float, waited_s: float, late_s: float = 0.0) -> float:
    """``worked_s``: the last answer's work here. ``waited_s``: from its question to its coming. ``late_s``:
    the question left so much later than it was due."""
    usual_s = min(max(LEAST_S, _TIMES * waited_s), MOST_S)
    return min(max((SHARE - 1) * worked_s, usual_s, waited_s + late_s), _FULL_S)
