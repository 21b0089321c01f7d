"""GET /metrics of many clients: one collection at a time."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterable
from typing import Any

import pytest
from prometheus_client.core import GaugeMetricFamily, Metric

from cluster.faults import faults
from proxy.metrics import scrapes
from proxy.metrics.scrapes import Scrapes
from tests.unit.proxy.listener.test_http import Request


class Steps:
    """What is under way: the test ends each."""

    def __init__(self) -> None:
        self.collections: list[Callable[[Iterable[Metric]], None]] = []
        self.works: list[tuple[Callable[[], None], Callable[[], None]]] = []
        self.rests: list[Callable[[], None]] = []
        self.scrapes = Scrapes(self.collections.append)
        self.scrapes.in_thread = lambda work, then: self.works.append((work, then))
        self.soon: list[Callable[[], None]] = []
        self.scrapes.soon = self.soon.append
        self.scrapes.rest = self.rests.append
        self.limits: list[Callable[[], None]] = []
        self.scrapes.limit = self.limits.append

    def ask(self, accept: str = "", encoding: str = "") -> Request:
        request: Any = Request("/metrics")
        request.headers |= {"accept": accept, "accept-encoding": encoding}
        self.scrapes.serve(request)
        return request

    def end(self, value: int) -> None:
        """The collection under way, and what is done with it."""
        self.collections.pop()([GaugeMetricFamily("found", "A figure.", value)])
        work, then = self.works.pop()
        work()
        then()


def body(request: Request) -> bytes:
    assert request.answer is not None
    text = request.answer[1]
    return gzip.decompress(text) if request.fields.get("content-encoding") == "gzip" else text


def test_requests_that_come_meanwhile_share_the_next_collection() -> None:
    steps = Steps()
    first = steps.ask()
    later = [steps.ask(), steps.ask(encoding="gzip"), steps.ask("application/openmetrics-text"), steps.ask()]
    assert len(steps.collections) == 1
    steps.end(1)
    assert b"\nfound 1\n" in body(first)
    assert [one.answer for one in later] == [None] * 4
    assert not steps.collections, "a rest first: any client may ask, and each costs 30 ms"
    later[3].closed = True
    steps.rests.pop()()
    assert len(steps.collections) == 1
    steps.end(2)
    assert [b"\nfound 2" in body(one) for one in later[:3]] == [True] * 3
    assert body(later[2]).endswith(b"# EOF\n")
    assert later[3].answer is None
    steps.rests.pop()()
    assert not steps.collections
    last = steps.ask()
    steps.end(3)
    assert b"\nfound 3\n" in body(last)


@pytest.mark.parametrize("kind", ["application/openmetrics-text", "text/plain"])
def test_a_form_has_no_end_of_versions(kind: str) -> None:
    """A thousand in one request each: all other scrapers were told that no metrics can be collected."""
    steps = Steps()
    steps.ask()
    asked = [steps.ask(f"{kind};version={at}.0.{at};escaping=dots") for at in range(1, 51)]
    steps.end(1)
    steps.rests.pop()()
    steps.end(2)
    while steps.soon:
        steps.soon.pop()()
    assert len({one.fields["content-type"] for one in asked}) == 1
    assert len({id(one.answer[1]) for one in asked if one.answer is not None}) == 1


def test_who_asks_for_no_known_form_gets_that_of_etcd() -> None:
    steps = Steps()
    steps.ask()
    asked = [steps.ask(accept) for accept in ("", "*/*", "application/openmetrics-text;version=x")]
    steps.end(1)
    steps.rests.pop()()
    steps.end(2)
    assert {one.fields["content-type"] for one in asked} == {"text/plain; version=0.0.4; charset=utf-8"}


def test_very_many_are_answered_in_turns_and_in_order() -> None:
    """2,000 took 0.14 s of one turn of the loop."""
    steps = Steps()
    steps.ask()
    asked = [steps.ask(f"text/plain; q=0.{at}") for at in range(50)]
    steps.end(1)
    steps.rests.pop()()
    asked[3].closed = True
    asked.append(steps.ask())  # the next one's
    steps.end(2)
    asked.pop(3)
    answered = []
    while True:
        answered.append([one.answer is not None for one in asked].index(False))
        assert sum(one.answer is not None for one in asked) == answered[-1]
        if not steps.soon:
            break
        assert steps.rests == []
        steps.soon.pop()()
    assert (answered, len(steps.rests)) == ([19, 39, 49], 1)


def test_nothing_more_is_encoded_for_a_collection_that_was_given_up() -> None:
    steps = Steps()
    first = steps.ask()
    steps.collections.pop()([GaugeMetricFamily("found", "A figure.", 1)])
    steps.limits.pop()()
    assert first.answer is not None
    encoded: list[int] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scrapes, "go_numbers", lambda text: encoded.append(1))
        steps.works.pop()[0]()
    assert not encoded


def test_what_cannot_be_collected_is_told_and_the_next_one_is() -> None:
    steps = Steps()

    def broken() -> Iterable[Metric]:
        raise KeyError("no such figure")
        yield

    first = steps.ask()
    steps.collections.pop()(broken())
    assert first.answer is not None
    assert first.answer[0] == 500
    assert [where for where, _ in faults.take()] == ["collecting metrics"]
    second = steps.ask()
    steps.rests.pop()()
    steps.end(4)
    assert b"\nfound 4\n" in body(second)


def test_a_collection_that_does_not_end_holds_up_no_other() -> None:
    steps = Steps()
    first = steps.ask()
    late = steps.collections.pop()
    second = steps.ask()
    steps.limits.pop()()
    assert first.answer is not None
    assert (first.answer[0], second.answer) == (500, None)
    steps.rests.pop()()
    late([GaugeMetricFamily("found", "A figure.", 5)])  # nobody waits for it
    work, then = steps.works.pop()
    work()
    then()
    assert (second.answer, steps.rests) == (None, [])
    steps.end(6)
    assert b"\nfound 6\n" in body(second)


def test_a_collection_that_cannot_begin_is_told() -> None:
    steps = Steps()

    def broken(done: object) -> None:
        raise KeyError("no such shard")

    steps.scrapes._collect = broken
    first = steps.ask()
    assert first.answer is not None
    assert first.answer[0] == 500
    assert len(faults.take()) == len(steps.rests) == 1
