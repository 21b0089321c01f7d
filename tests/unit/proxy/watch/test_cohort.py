"""A large event to very many watches of one stream: no more of it is made than the client takes."""

from __future__ import annotations

import tracemalloc
from typing import Any

import pytest

from cluster.wire.protobuf import key_value
from proxy.watch.cohort import ClientWatch, Cohort
from proxy.watch.encode import Batch, batch_of_record
from tests.events import record

MIB = 1 << 20


class Stream:
    """Its client takes 1 MiB and then reads no more."""

    doubted = 0
    fragment_bytes = 2 * MIB

    def __init__(self) -> None:
        self.hub = self
        self.sent_bytes = self.responses = 0

    @property
    def blocked(self) -> bool:
        return self.sent_bytes > MIB

    wary = blocked

    def header(self, revision: int) -> bytes:
        return b""

    def send(self, *parts: bytes | memoryview) -> None:
        self.send_framed(b"", 1)
        self.sent_bytes += sum(map(len, parts))

    def send_framed(self, data: bytes, responses: int) -> None:
        self.sent_bytes += len(data)
        self.responses += responses


class Subscription:
    def __init__(self) -> None:
        self.left: list[Cohort] = []

    def position(self, cohort: Cohort) -> int:
        return cohort.cursor

    def lag(self, cohort: Cohort) -> None:
        self.left.append(cohort)


@pytest.mark.parametrize("live", [True, False])
@pytest.mark.parametrize(("watches", "size"), [(1000, MIB), (10_000, 16_000)])
def test_no_more_is_made_than_the_client_takes(live: bool, watches: int, size: int) -> None:
    """1,000 watches of a value of 1 MB made 1 GB in one turn, before anything of it was sent."""
    stream, subscription = Stream(), Subscription()
    given: Any = stream, subscription
    cohort = Cohort(*given, 1, 0, False, 3)
    for number in range(watches):
        cohort.admit(ClientWatch(20_000 + number, 1, 0, False))
    batch: Batch = batch_of_record(record([(2, 0, key_value(b"k", 2, 2, 1, b"v" * size, 0), 0)]))
    batch.framed = {} if live else None
    cohort._names()
    tracemalloc.start()
    try:
        cohort.deliver(batch)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4 * MIB
    assert 0 < stream.sent_bytes <= MIB + size + 100
    (rest,) = subscription.left
    assert (rest.cursor, cohort.cursor) == (1, 2)
    assert (len(cohort.members), len(rest.members)) == (stream.responses, watches - stream.responses)
