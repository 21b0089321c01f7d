"""Registers every service of a front."""

from __future__ import annotations

from proxy.services import auth, cluster, health, kv, shards, watch
from proxy.services.concurrency import election, lock
from proxy.services.leases import lease
from proxy.services.upkeep import maintenance
from proxy.shared.context import Context, Registry


def register_all(registry: Registry, context: Context) -> None:
    """Methods that this version lacks answer UNIMPLEMENTED."""
    for module in (watch, kv, lease, auth, cluster, maintenance, health, lock, election, shards):
        module.register(registry, context)
