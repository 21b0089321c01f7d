"""The paths of version 2, registered."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from proxy.http.http1_plain import FindPlain, TakeWhole
from proxy.http.requests import AtOnce, HttpRequest
from proxy.shared.context import Context, Registry
from proxy.shared.unreached import OWN
from proxy.v2.directories import Directories
from proxy.v2.keys import Keys
from proxy.v2.members import PATH, Members
from proxy.v2.plain.heads import Heads
from proxy.v2.plain.reads import PlainReads
from proxy.v2.plain.requests import PlainRequests
from proxy.v2.plain.sets import PlainSets
from proxy.v2.request import PREFIX
from proxy.v2.stats import Stats
from proxy.v2.traffic import Traffic
from proxy.v2.users.auth import PREFIX as AUTH
from proxy.v2.users.auth import Auth


class Filtered(Registry, Protocol):
    """A registry whose handlers are behind a filter: ``proxy.listener.filter.FilteredRegistry``."""

    at_once: AtOnce | None
    find_plain: FindPlain | None
    take_whole: TakeWhole | None

    def added(self, headers: dict[str, str]) -> list[tuple[str, str]] | None: ...
    def filtered(self, request: HttpRequest) -> HttpRequest: ...


def register_v2(registry: Filtered, context: Context, random_bytes: Callable[[int], bytes]) -> Traffic:
    """Serve ``/v2/...``; what its requests come to."""
    keys = Keys(context)
    heads = Heads(context.common.cluster_id, registry.added)
    if context.common.member_id:  # a proxy counts each request, and may have nobody to ask
        registry.at_once = PlainReads(context, keys.feed, keys.traffic, heads).at_once
        plain = PlainRequests(context, keys, heads, registry.filtered)
        registry.find_plain = plain.find
        registry.take_whole = PlainSets(plain).take
    auth = Auth(context, keys.credentials, keys.feed)
    members = Members(context, auth)
    stats = Stats(context)
    registry.http(PREFIX, keys.serve)
    registry.http(f"{PREFIX}/", keys.serve)
    registry.http(PATH, members.serve)
    registry.http(f"{PATH}/", members.serve)
    registry.http(f"{AUTH}/enable", auth.enable)
    for path, handler in ((f"{AUTH}/users", auth.users), (f"{AUTH}/roles", auth.roles)):
        registry.http(path, handler)
        registry.http(f"{path}/", handler)
    registry.http("/v2/machines", members.machines)
    if context.common.member_id == 0:
        registry.http(OWN, members.endpoints)
    registry.http("/v2/stats/self", stats.itself)
    registry.http("/v2/stats/leader", stats.leader)
    registry.http("/v2/stats/store", keys.counts)
    if context.settings.discovery_service and not context.settings.read_only:
        registry.http("/new", Directories(context, keys.credentials, keys.feed, random_bytes).new)
    context.on_stop.append(keys.waits.end)
    return keys.traffic
