"""Registers the paths of version 2."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from proxy.shared.context import Context
from proxy.shared.unreached import OWN
from proxy.v2.directories import Directories, by_token
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

if TYPE_CHECKING:
    from proxy.listener.filter import FilteredRegistry


def register_v2(registry: FilteredRegistry, context: Context,
                random_bytes: Callable[[int], bytes]) -> Traffic:
    """Serve ``/v2/...``; returns the counts of its requests."""
    keys = Keys(context)
    heads = Heads(context.common.cluster_id, registry.added)
    if context.common.member_id:  # a proxy counts each request, and may reach no member
        registry.at_once = PlainReads(context, keys.feed, keys.traffic, heads).at_once
        plain = PlainRequests(context, keys, heads, registry.filtered)
        registry.find_plain = plain.find
        registry.take_whole = PlainSets(plain).take
    auth = Auth(context, keys.credentials, keys.feed)
    members = Members(context, auth)
    stats = Stats(context)
    registry.http(f"{AUTH}/enable", auth.enable)
    for path, handler in (
        (PREFIX, keys.serve), (PATH, members.serve), (f"{AUTH}/users", auth.users),
        (f"{AUTH}/roles", auth.roles),
    ):
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
        registry.find_other = by_token(keys.serve)
    context.on_stop.append(keys.waits.end)
    return keys.traffic
