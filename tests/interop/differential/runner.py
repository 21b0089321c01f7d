"""Runs one sequence on two endpoints side by side and stops at the first difference."""

from __future__ import annotations

import re
from collections import Counter
from random import Random
from typing import Any

from .compare import essence
from .endpoints import Endpoint, MemoryEndpoint, Refusal, Watched
from .steps import DELETE_ALL, KEYS, Context, Generator, Step, changed_twice, from_compacted


class Difference(AssertionError):
    """Two servers answered one request differently."""


class Pair:
    """Two endpoints with equal histories, and the model, which says how many events a watch has to wait
    for."""

    def __init__(self, reference: Endpoint, subject: Endpoint) -> None:
        self.reference = reference
        self.subject = subject
        self.model = subject if isinstance(subject, MemoryEndpoint) else MemoryEndpoint()
        self.context = Context()
        self.outcomes: Counter[str] = Counter()
        self._trail: list[str] = []

    def run(self, seed: int, count: int) -> None:
        """Send ``count`` steps of ``seed`` to both, from an empty key space on, and then a compaction at a
        revision in which a key has changed twice."""
        self._trail = [f"seed {seed}"]
        self.step(DELETE_ALL)
        for step in Generator(Random(seed), self.context).steps(count):
            self.step(step)
        key = KEYS[seed % len(KEYS)]
        for step in from_compacted(key, self.step(changed_twice(key)).header.revision):
            self.step(step)

    def step(self, step: Step) -> Any:
        """Send one step to both; Difference if the answers differ. Returns the reference's answer."""
        expected = 0
        if self.model is not self.subject:
            predicted = self.model.call(step)
        else:
            predicted = self.model.call(step) if step.rpc == "Watch" else None
        if isinstance(predicted, Watched):
            expected = len(predicted.events)
            if predicted.canceled:
                expected = 1 << 30  # the server ends it
        want = self.reference.call(step, expected)
        got = self.subject.call(step, expected)
        self._trail.append(str(step))
        self.outcomes[f"{step.rpc}: {want.text if isinstance(want, Refusal) else 'ok'}"] += 1
        if essence(step, want) != essence(step, got):
            trail = "\n".join(self._trail[-12:])
            raise Difference(f"{trail}\nreference: {_short(step, want)}\nsubject:   {_short(step, got)}")
        header = getattr(want, "header", None)
        if header is not None and header.revision:
            self.context.revision = max(self.context.revision, header.revision)
        if step.rpc == "Compact" and not isinstance(want, Refusal):
            self.context.compact_revision = step.request.revision
        return want


def _short(step: Step, result: object) -> str:
    return re.sub(r"(eHh4){9,}(eA==)?", "x...", str(essence(step, result)))
