"""/muster/shards and /muster/placement, muster's own, as JSON. Answered by every front.

``GET /muster/placement``: ``{"cluster_id", "member_id", "shards", "depth", "version", "generation",
"table"}``: where keys live (hexadecimal IDs; the rule of the beginning is ``cluster.placement.base``; the
table, in hexadecimal, ``Table.encode``). While there are users, a table with keys in it is left out: Moves
tells it to those with the role root. ``GET /muster/shards``: ``{"member_id", "name",
"shards": [...]}``, an object per shard as this host's node of it tells (``node.upkeep.facts``), or
``{"shard": n, "up": false}`` where that does not answer; each with ``"state"``: forming, serving or retiring.
"""

from __future__ import annotations

from collections import deque

import orjson

from proxy.http.requests import JSON, HttpRequest
from proxy.metrics.scrapes import REST_S, in_turns
from proxy.metrics.shard_facts import ShardFacts, gather
from proxy.shared.context import Context, Registry

LAYOUT_VERSION = 1


def register(registry: Registry, context: Context) -> None:
    common = context.common

    def placement(request: HttpRequest) -> None:
        if request.allowed("GET"):
            table = context.placement.table
            shown = table.settled or not context.principals.enabled
            request.respond(200, orjson.dumps({
                "cluster_id": f"{common.cluster_id:x}", "member_id": f"{common.member_id:x}",
                "shards": common.shard_count, "depth": common.placement_depth, "version": LAYOUT_VERSION,
                "generation": table.generation, **({"table": table.encode().hex()} if shown else {}),
            }), (), JSON)

    registry.http("/muster/placement", placement)
    registry.http("/muster/shards", _Shards(context).serve)


class _Shards:
    """GET /muster/shards of all clients: requests that come soon after others share the next answer. Each
    takes 1 ms of this host's nodes, and any client may ask."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._waiting: list[HttpRequest] = []
        self._rests = False

    def serve(self, request: HttpRequest) -> None:
        if request.allowed("GET"):
            self._waiting.append(request)
            if not self._rests:
                self._begin()

    def _begin(self) -> None:
        requests, self._waiting = deque(self._waiting), []
        self._rests = bool(requests)
        if requests:
            self._context.router.loop.call_later(REST_S, self._begin)
            gather(self._context, lambda found: self._answer(requests, found))

    def _answer(self, requests: deque[HttpRequest], found: list[ShardFacts]) -> None:
        common = self._context.common
        if self._context.principals.enabled:
            found = [_without_keys(facts) for facts in found]
        body = orjson.dumps({"member_id": f"{common.member_id:x}", "name": common.name, "shards": found})

        def respond(request: HttpRequest) -> None:
            if not request.closed:
                request.respond(200, body, (), JSON)

        in_turns(requests, respond, self._context.router.loop.call_soon, lambda: None)


def _without_keys(facts: ShardFacts) -> ShardFacts:
    """Of a shard, without the bounds of what moves."""
    move = facts.get("move")
    if not move:
        return facts
    return {**facts, "move": {name: value for name, value in move.items() if name not in ("start", "end")}}
