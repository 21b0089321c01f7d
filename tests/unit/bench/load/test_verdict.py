"""Whether a run says that the client side was its limit, and what to do then."""

from __future__ import annotations

import pytest

from bench.load.run import _verdict


@pytest.mark.parametrize(
    ("client", "machine", "rate", "said"),
    [
        (50.0, 60.0, 0.0, ("no",)),
        (50.0, 99.9, 0.0, ("shared: ", "all CPUs")),
        (99.9, 60.0, 0.0, ("yes: ", "use more --processes")),
        (99.9, 99.9, 0.0, ("yes: ", "from another machine")),
        (99.9, 99.9, 1000.0, ("no",)),  # it did what it was asked for
    ],
)
def test_the_verdict(client: float, machine: float, rate: float, said: tuple[str, ...]) -> None:
    verdict = _verdict({
        "settings": {"rate_per_s": rate}, "throughput_per_s": 1000.0,
        "client": {"busiest_percent": client}, "machine_busy_percent": machine, "extra": {},
    })  # fmt: skip
    assert all(part in verdict for part in said)
    assert verdict.startswith(said[0])


@pytest.mark.parametrize("sent", ["put", "round"])
@pytest.mark.parametrize(("count", "errors", "said"), [
    (9_900, {}, "no"), (3_000, {}, "yes"), (9_900, {"events not delivered": 1}, "yes")])
def test_a_watch_did_what_it_was_asked_for_if_its_puts_had_their_rate(
    sent: str, count: int, errors: dict[str, int], said: str
) -> None:
    assert _verdict({
        "settings": {"rate_per_s": 1000.0}, "throughput_per_s": 30_000.0, "duration_s": 10.0,
        "client": {"busiest_percent": 99.9}, "machine_busy_percent": 60.0, "errors": errors,
        "extra": {sent: {"count": count}},
    }).startswith(said)  # fmt: skip
