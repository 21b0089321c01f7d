"""``/v2/stats/self`` and ``/v2/stats/leader``: this host in the group of shard 0; at a proxy, which asks
any, the member that it asks."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import orjson

from cluster.features.v2.text import moment
from cluster.gotext import duration
from cluster.histogram import Histogram
from cluster.wire.messages import HEAD, Method
from proxy.http.requests import JSON, HttpRequest
from proxy.routing.router import MethodStats, Waiting
from proxy.shared.context import Context
from proxy.v2.call import HttpCall, said

_STATES = {"leader": "StateLeader", "candidate": "StateCandidate", "pre_candidate": "StateCandidate"}


class Stats:
    def __init__(self, context: Context, now_ns: Callable[[], int] = time.time_ns) -> None:
        self._context = context
        self._router = context.router
        self._now_ns = now_ns
        self._started_ns = context.common.started_ns or now_ns()
        self._led: tuple[tuple[str, int], int] | None = None  # leader and term; since when, by the calendar
        self._stats = MethodStats()

    def itself(self, request: HttpRequest) -> None:
        if request.allowed("GET"):
            self._ask(request, Method.FACTS, lambda facts: self._itself(request, facts))

    def _itself(self, request: HttpRequest, facts: dict[str, Any]) -> None:
        own, led = self._of(facts), (facts["leader"], facts["term"])
        name = self._context.common.name if self._context.common.member_id else self._name(own, facts)
        led_ns = facts.get("leader_for_ms", 0) * 1_000_000  # a node of an older version does not tell
        if self._led is None or self._led[0] != led:
            self._led = led, self._now_ns() - led_ns
        told_ns = 0 if self._context.common.member_id else facts.get("host_started_ns", 0)
        came, came_bytes, left, left_bytes = facts.get("append_rates", (0.0,) * 4)
        shown: dict[str, Any] = {
            "name": name,
            "id": own,
            "state": _STATES.get(facts["role"], "StateFollower"),
            "startTime": moment(told_ns or self._started_ns),
            "leaderInfo": {
                "leader": facts["leader"] or "0",
                "uptime": duration(led_ns),
                "startTime": moment(self._led[1]),
            },
            "recvAppendRequestCnt": facts.get("appends_received", 0),
            "recvPkgRate": came,
            "recvBandwidthRate": came_bytes,
            "sendAppendRequestCnt": facts.get("appends_sent", 0),
            "sendPkgRate": left,
            "sendBandwidthRate": left_bytes,
        }
        shown = {key: value for key, value in shown.items() if value or not key.endswith("Rate")}
        request.respond(200, orjson.dumps(shown), (), JSON)

    def _of(self, facts: dict[str, Any]) -> str:
        """The member that the statistics are of: at a proxy, the one that is asked."""
        own = self._context.common.member_id
        return f"{own:x}" if own else str(facts["member_id"])

    def _name(self, member: str, facts: dict[str, Any]) -> str:
        """A proxy's: what the asked member says. The table's is that of its first start, if any."""
        members = self._router.members.members
        known = next((host.name for host in members if f"{host.member_id:x}" == member), "")
        return str(facts.get("host_name", known))  # a node of an older version does not tell

    def leader(self, request: HttpRequest) -> None:
        if not request.allowed("GET"):
            return

        def with_facts(facts: dict[str, Any]) -> None:
            if facts["role"] != "leader" or not facts["leader"]:
                said(request, 403, "not current leader")
            else:
                self._ask(request, Method.COUNTERS, partial(with_figures, self._of(facts)))

        def with_figures(own: str, figures: dict[str, Any]) -> None:
            members = self._router.members
            peers = {m: found for m, found in figures["peers"].items() if not members.removed(int(m, 16))}
            request.respond(200, orjson.dumps({"leader": own, "followers": followers(peers)}), (), JSON)

        self._ask(request, Method.FACTS, with_facts)

    def _ask(self, request: HttpRequest, method: int, then: Callable[[dict[str, Any]], None]) -> None:
        def answer(waiting: Waiting, status: int, body: bytes) -> None:
            if request.closed:
                return
            if status != 0:
                said(request, 503, "During election")
            else:
                then(orjson.loads(body[HEAD.size :]))

        self._router.own(HttpCall(request), method, b"", 0, self._stats, answer)


def followers(peers: dict[str, Any]) -> dict[str, Any]:
    found = {}
    for member, figures in peers.items():
        trips = Histogram(figures["round_trips"]["bounds"])
        trips.add(figures["round_trips"])
        mean = trips.sum / trips.count * 1000 if trips.count else 0.0
        found[member] = {
            "latency": spread(figures["round_trips"], mean),
            "counts": {"fail": figures["send_failures"], "success": trips.count},
        }
    return found


def spread(observed: dict[str, Any], mean_ms: float) -> dict[str, float]:
    bounds_ms = [bound * 1000 for bound in observed["bounds"]]
    lower, upper = [0.0, *bounds_ms], [*bounds_ms, bounds_ms[-1]]
    hit = [i for i, count in enumerate(observed["counts"]) if count]
    total = sum(observed["counts"])
    least, most = (lower[hit[0]], upper[hit[-1]]) if hit else (0.0, 0.0)
    squares = sum(observed["counts"][i] * ((lower[i] + upper[i]) / 2 - mean_ms) ** 2 for i in hit)
    variance = squares / total if hit else 0.0
    return {
        "current": mean_ms,
        "average": mean_ms,
        "standardDeviation": variance**0.5,
        "minimum": min(least, mean_ms),
        "maximum": max(most, mean_ms),
    }
