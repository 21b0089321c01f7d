"""What is pending over the applied state: ranges cost as much as they hold, however much is pending."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.evaluate import requests
from cluster.evaluate.overlay import Overlay
from cluster.evaluate.spans import holds, inverted
from cluster.evaluate.view import Outcome, Version
from cluster.order.leading.pending import PendingOverlay
from cluster.pb import rpc_pb2 as pb
from tests.unit.order.stores import EmptyStore
from tests.unit.semantics.test_footprint import UNIVERSE

ENDS = (b"", b"\0", *UNIVERSE)
SPANS = [span for span in ((key, end) for key in UNIVERSE for end in ENDS) if not inverted(span)]


def put(view: Overlay, key: bytes) -> None:
    view.take_put(key, Version(8, view.revision + 1, 1, 0, key))


@given(st.integers(0, 1 << 32))
@settings(max_examples=300, deadline=None)
def test_writes_that_come_and_go_are_told_in_order(seed: int) -> None:
    r = Random(seed)
    view = Overlay(EmptyStore())
    written: dict[bytes, tuple[int, bool]] = {}  # with its batch, and whether it is a put
    ranges: list[tuple[int, tuple[bytes, bytes]]] = []
    applied = 0
    for _ in range(60):
        key, what = r.choice(UNIVERSE), r.random()
        if what < 0.5:
            put(view, key)
            written[key] = view.batch, True
        elif what < 0.6:
            view.take(Outcome(b"", True, b"", [(key, None)], 9))
            written[key] = view.batch, False
        elif what < 0.7:
            span = r.choice(SPANS)
            view.take(Outcome(b"", True, b"", [], 9, [span]))
            written = {key: one for key, one in written.items() if not holds(span, key)}
            ranges.append((view.batch, span))
        elif what < 0.8:
            view.batch += 1
        elif what < 0.85 and applied < view.batch - 1:
            applied += 1
            view.forget(applied, [key for key, (batch, _) in written.items() if batch == applied] + [key], [])
            written = {key: one for key, one in written.items() if one[0] > applied}
            ranges = [one for one in ranges if one[0] > applied]
        if r.random() < 0.5:
            span = r.choice(SPANS)
            there = sorted(key for key in written if holds(span, key))
            assert list(view.written_in(span)) == there
            assert view.count(*span) == sum(written[key][1] for key in there)
            assert [key for key, _ in view.scan(*span)] == [key for key in there if written[key][1]]
            meets = any(holds(one, key) for _, one in ranges for key in UNIVERSE if holds(span, key))
            assert not meets or view.changing(span) is None
        gone = any(holds(span, key) for _, span in ranges)
        assert view._deleted(key) == gone


def test_a_scan_shows_what_was_pending_when_it_began() -> None:
    """A step of a large transaction looks at its rows; what is pending is applied before the next step."""
    view = Overlay(EmptyStore())
    for key in (b"a", b"b", b"c"):
        put(view, key)
    view.take(Outcome(b"", True, b"", [(b"c", None)], 9))
    rows = view.scan(b"a", b"z")
    assert next(rows) == (b"a", b"a")
    view.batch += 1
    put(view, b"b")
    view.forget(1, [b"a", b"b", b"c"], [])
    assert list(rows) == [(b"b", b"b")]


class Compared(bytes):
    times = 0

    def __lt__(self, other: bytes) -> bool:
        Compared.times += 1
        return bytes(self) < bytes(other)


@pytest.mark.parametrize("of_shards", [False, True])
def test_a_range_sorts_only_what_was_written_since_the_last(of_shards: bool) -> None:
    """Each sorted all that was pending: 300 deletes of ranges among 20,000 puts deposed their leader."""
    view: Overlay = PendingOverlay(EmptyStore()) if of_shards else Overlay(EmptyStore())
    keys = [Compared(b"p%06d" % at) for at in range(4000)]
    Random(1).shuffle(keys)
    delete = pb.DeleteRangeRequest(key=b"q", range_end=b"r").SerializeToString()
    for key in keys[:3900]:
        put(view, key)
    for number, key in enumerate(keys[3900:]):
        put(view, key)
        assert requests.delete_range(view, delete).items == b""
        if not number:
            Compared.times = 0
    assert Compared.times < 100 * 40
    view.batch += 1
    view.forget(1, keys[:2000], [])
    assert list(view.written_in((b"p", b"q"))) == sorted(keys[2000:])


def test_a_key_is_looked_up_among_pending_deletes_of_ranges() -> None:
    """Each put walked all of them; and each such delete all keys that were written."""
    view = Overlay(EmptyStore())
    for at in range(2000):
        put(view, Compared(b"p%06d" % at))
    view.written_in((b"p", b"q"))
    Compared.times = 0
    for at in range(1000):
        low = Compared(b"p%06d" % at)
        view.take(Outcome(b"", True, b"", [], 9, [(low, low + b"\0")]))
    for at in range(1000):
        assert view.current(Compared(b"p%06d" % at)) is None
    assert Compared.times < 2000 * 60
    assert len(view.written_in((b"p", b"q"))) == 1000
