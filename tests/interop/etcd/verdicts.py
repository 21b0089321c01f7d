"""What a run of etcd's tests says, and what of it was known: the list is docs/design/etcd-tests.tsv."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum

_LINE = re.compile(r"--- (PASS|FAIL|SKIP): (Test\S*) \(\d")


class Verdict(Enum):
    PASSED = "ok"
    SKIPPED = "skipped"
    FAILED = "FAILED"


@dataclass(frozen=True, slots=True)
class Outcome:
    """A test's verdict, and which of its parts failed: the innermost, or itself if it did not come to an
    end."""

    verdict: Verdict
    failed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Known:
    """A row of the list: these do not hold, at so many shards or more, and why."""

    names: tuple[str, ...]
    shards: int
    why: str
    elsewhere: bool = False  # of another release's list: here these may hold


@dataclass(slots=True)
class Judgement:
    """What a run has that the list has not, and the other way round."""

    unexpected: list[str] = field(default_factory=list)
    outdated: list[str] = field(default_factory=list)


def outcome(name: str, output: str) -> Outcome:
    """What the output of ``-test.v`` says of a test. What it says of goroutines that are left when it is all
    over is not of the server."""
    said = {part: verdict for verdict, part in _LINE.findall(output)}
    failed = [part for part, verdict in said.items() if verdict == "FAIL"]
    inner = tuple(part for part in failed if not any(other.startswith(part + "/") for other in failed))
    if name not in said:
        return Outcome(Verdict.FAILED, inner or (name,))
    if inner:
        return Outcome(Verdict.FAILED, inner)
    return Outcome(Verdict.SKIPPED if said[name] == "SKIP" else Verdict.PASSED)


def known(table: str, release: str = "3.6") -> list[Known]:
    """The rows of the list: release, tests, from how many shards on, why. Those of 3.6 count for 3.5, too,
    which has more of its own."""
    rows = []
    for line in table.splitlines():
        if line and not line.startswith("#"):
            of, names, shards, why = line.split("\t")
            if of in ("3.6", release):
                rows.append(Known(tuple(names.split()), int(shards), why, elsewhere=of != release))
    return rows


def covers(entry: str, part: str) -> bool:
    """Whether an entry of the list speaks of this test or of a test that it is a part of."""
    return part == entry or part.startswith(entry + "/")


def judge(outcomes: Mapping[str, Outcome], listed: Iterable[Known], shards: int) -> Judgement:
    """Compare a run with the list. Entries whose test did not run, or was skipped, are not judged."""
    rows = [row for row in listed if row.shards <= shards]
    entries: Collection[str] = [name for row in rows for name in row.names]
    failed = [part for result in outcomes.values() for part in result.failed]
    judgement = Judgement()
    judgement.unexpected = [part for part in failed if not any(covers(entry, part) for entry in entries)]
    for entry in (name for row in rows if not row.elsewhere for name in row.names):
        ran = outcomes.get(entry.partition("/")[0])
        if ran is None or ran.verdict is Verdict.SKIPPED:
            continue
        if not any(covers(entry, part) or covers(part, entry) for part in failed):
            judgement.outdated.append(entry)
    return judgement
