"""How long a copy rests between its questions: a part of a CPU, and less of it the longer others wait.

A question's answer waits for the same processes and CPUs as a client's put does. So the time that it took
tells how busy they are. A rest is so many times that, within bounds: where all is quiet a million keys of 256
bytes take 25 s, and less than a minute where it is not. Times are the caller's, in seconds.
"""

from __future__ import annotations

SHARE = 5  # work is one part in so many of the time
LEAST_S, MOST_S = 0.004, 0.011  # of a rest, unless the work takes more than its share
_TIMES = 6  # of an answer's time


def rest_s(worked_s: float, waited_s: float) -> float:
    """``worked_s``: the last answer's work here. ``waited_s``: from its question to its coming."""
    return max((SHARE - 1) * worked_s, min(max(LEAST_S, _TIMES * waited_s), MOST_S))
