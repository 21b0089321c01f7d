"""/v2/stats/self and /v2/stats/leader (proxy.v2.stats)."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import orjson
import pytest

from cluster.histogram import ROUND_TRIP_S, Histogram
from cluster.wire.messages import HEAD
from node.links.flow import Flow
from proxy.http.requests import HttpRequest
from proxy.v2.stats import Stats, followers


def test_a_follower_is_shown_by_its_round_trips() -> None:
    trips = Histogram(ROUND_TRIP_S)
    for seconds in (0.001, 0.002, 0.003):
        trips.observe(seconds)
    shown = followers({"abc": {"round_trips": trips.observed(), "send_failures": 2}})["abc"]
    assert shown["counts"] == {"fail": 2, "success": 3}
    latency = shown["latency"]
    assert latency["average"] == pytest.approx(2.0)
    assert latency["minimum"] <= 1.0
    assert latency["maximum"] >= 3.0
    assert 0 < latency["standardDeviation"] < 3.0


def test_a_follower_that_never_answered_has_no_latency() -> None:
    trips = Histogram(ROUND_TRIP_S)
    shown = followers({"abc": {"round_trips": trips.observed(), "send_failures": 0}})["abc"]
    assert shown["latency"] == dict.fromkeys(
        ("current", "average", "standardDeviation", "minimum", "maximum"), 0.0
    )


class Router:
    """Its members, and the facts of a node."""

    def __init__(self, **facts: Any) -> None:
        hosts = [SimpleNamespace(member_id=n, name=f"h{n}") for n in (10, 11)]
        self.members = SimpleNamespace(members=hosts)
        self.facts = {"role": "follower", "leader": "a", "term": 5, "leader_for_ms": 2_500, **facts}

    def own(self, call: object, method: int, body: bytes, deadline: int, stats: object, then: Any) -> None:
        then(None, 0, bytes(HEAD.size) + orjson.dumps(self.facts))


class Request(HttpRequest):
    """Keeps what it is answered."""

    said = b""

    def __init__(self) -> None:
        super().__init__("GET", "/v2/stats/self", "", {}, b"", "p")

    def respond(self, status: int, body: bytes = b"", *more: Any, **named: Any) -> None:
        self.said = body


@pytest.mark.parametrize(("member", "told", "shown"), [
    (0, {"host_name": "new"}, ("b", "new", "2033-05-18T03:33:20Z")),
    (0, {}, ("b", "h11", "2033-05-18T03:33:20Z")),  # a node of an older version
    (10, {"host_name": "new"}, ("a", "renamed", "2001-09-09T01:46:40Z")),
])
def test_statistics_are_of_a_host_itself_and_at_a_proxy_of_the_asked_member(
    member: int, told: dict[str, str], shown: tuple[str, str, str]
) -> None:
    """The table has names of the first start, and none of an added host."""
    common = SimpleNamespace(member_id=member, started_ns=10**18 if member else 0, name="renamed")
    router = Router(member_id="b", host_started_ns=2 * 10**18, **told)
    request = Request()
    Stats(cast(Any, SimpleNamespace(common=common, router=router))).itself(request)
    found = orjson.loads(request.said)
    assert (found["id"], found["name"], found["startTime"]) == shown
    assert found["leaderInfo"]["uptime"] == "2.5s", "as the node that is asked has seen it"


@pytest.mark.parametrize(("role", "state"), [
    ("leader", "StateLeader"), ("candidate", "StateCandidate"), ("pre_candidate", "StateCandidate"),
    ("follower", "StateFollower"), ("learner", "StateFollower"),
])
def test_the_state_is_one_of_the_three_that_clients_know(role: str, state: str) -> None:
    common = SimpleNamespace(member_id=10, started_ns=10**18, name="a")
    request = Request()
    Stats(cast(Any, SimpleNamespace(common=common, router=Router(member_id="b", role=role)))).itself(request)
    assert orjson.loads(request.said)["state"] == state


def test_the_moment_since_which_a_leader_leads_stays() -> None:
    """Raft's clock and the calendar drift apart."""
    router = Router(member_id="b")
    context = SimpleNamespace(common=SimpleNamespace(member_id=0, started_ns=0), router=router)
    wall_ns = iter(range(10**18, 10**18 + 10**9, 1_000_007))
    stats = Stats(cast(Any, context), lambda: next(wall_ns))

    def since() -> str:
        request = Request()
        stats.itself(request)
        return str(orjson.loads(request.said)["leaderInfo"]["startTime"])

    first = since()
    router.facts["leader_for_ms"] += 1_500
    assert since() == first
    router.facts |= {"term": 6, "leader_for_ms": 100}
    second = since()
    assert second != first
    assert since() == second


def test_a_rate_is_that_of_the_last_frames() -> None:
    flow = Flow()
    assert flow.rates(0) == (0.0, 0.0)
    flow.add(1000, 1, 100)
    assert flow.rates(1000) == (0.0, 0.0)  # of one frame there is none
    for now_ms in (1500, 2000):
        flow.add(now_ms, 2, 100)
    assert flow.rates(2900) == (5.0, 300.0)
    assert flow.messages == 5


def test_who_has_heard_nothing_for_a_second_has_no_rate() -> None:
    flow = Flow()
    flow.add(1000, 1, 100)
    flow.add(1500, 1, 100)
    assert flow.rates(2501) == (0.0, 0.0)
    assert flow.messages == 2
