"""The paths of version 2, registered."""

from __future__ import annotations

from proxy.shared.context import Context, Registry
from proxy.v2.members import PATH, Members
from proxy.v2.stats import Stats


def register_v2(registry: Registry, context: Context) -> None:
    """Serve ``/v2/...``."""
    members = Members(context)
    stats = Stats(context)
    registry.http(PATH, members.serve)
    registry.http(f"{PATH}/", members.serve)
    registry.http("/v2/machines", members.machines)
    registry.http("/v2/stats/self", stats.itself)
    registry.http("/v2/stats/leader", stats.leader)
