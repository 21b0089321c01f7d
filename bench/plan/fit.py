"""Prices by least squares: what each kind of work costs, out of the CPU that mixes of it took. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations


def prices(rows: Sequence[tuple[Sequence[float], float]]) -> list[float]:
    """The prices, none below 0, with the least sum of squares of relative errors.

    ``rows``: amounts of each kind of work, and what they took together (more than 0). A kind without a price
    of its own, as it always comes with another, gets 0. ValueError without rows."""
    if not rows:
        raise ValueError("there is nothing to learn prices from")
    scaled = [([amount / took for amount in amounts], 1.0) for amounts, took in rows if took > 0]
    kinds = len(rows[0][0])
    best, least = [0.0] * kinds, float(len(scaled))
    for count in range(1, kinds + 1):  # few kinds: all choices of those that cost something
        for chosen in combinations(range(kinds), count):
            found = _solved(chosen, scaled)
            if found is None or min(found) < 0:
                continue
            error = sum((sum(p * amounts[k] for p, k in zip(found, chosen, strict=True)) - took) ** 2
                        for amounts, took in scaled)
            if error < least - 1e-12:
                least = error
                best = [0.0] * kinds
                for price, kind in zip(found, chosen, strict=True):
                    best[kind] = price
    return best


def _solved(chosen: Sequence[int], rows: Sequence[tuple[Sequence[float], float]]) -> list[float] | None:
    """The prices of some kinds by the normal equations; None if the rows do not tell them apart."""
    size = len(chosen)
    matrix = [[sum(a[i] * a[j] for a, _ in rows) for j in chosen] + [sum(a[i] * took for a, took in rows)]
              for i in chosen]
    scale = [matrix[at][at] for at in range(size)]
    if min(scale) <= 0:
        return None
    for at in range(size):
        pivot = max(range(at, size), key=lambda row: abs(matrix[row][at]))
        matrix[at], matrix[pivot] = matrix[pivot], matrix[at]
        if abs(matrix[at][at]) <= 1e-9 * scale[at]:
            return None
        for row in range(size):
            if row != at:
                factor = matrix[row][at] / matrix[at][at]
                matrix[row] = [a - factor * b for a, b in zip(matrix[row], matrix[at], strict=True)]
    return [matrix[at][size] / matrix[at][at] for at in range(size)]
