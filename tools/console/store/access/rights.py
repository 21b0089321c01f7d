"""What a user of version 3 may do, so that nothing else is offered. The store decides in any case."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass

from muster_client import Client, KeyRange, MusterError

from tools.console.store.access import version3
from tools.console.store.access.model import ALL, ROOT, Role


@dataclass(frozen=True, slots=True)
class Rights:
    """``everything``: the user has the role ``root``, or the store has no users."""

    everything: bool
    writes: tuple[KeyRange, ...] = ()

    def may_write(self, key: bytes) -> bool:
        """Whether the user may put and delete a key."""
        return self.everything or any(_holds(keys, key) for keys in self.writes)

    @property
    def may_write_some(self) -> bool:
        """Whether there are keys that the user may write."""
        return self.everything or bool(self.writes)


UNLIMITED = Rights(True)


def _holds(keys: KeyRange, key: bytes) -> bool:
    if keys in ALL:
        return True
    if not keys.end:
        return key == keys.start
    return keys.start <= key and (keys.end == b"\0" or key < keys.end)


async def of(client: Client, name: str) -> Rights:
    """The rights of a user. Where the store does not tell, everything is offered, and the store refuses."""
    if not name:
        return UNLIMITED
    try:
        user = await version3.user(client, name)
        if ROOT in user.roles:
            return UNLIMITED
        roles = await asyncio.gather(*(version3.role(client, one) for one in user.roles))
    except MusterError:
        return UNLIMITED
    return Rights(False, tuple(_writes(roles)))


def _writes(roles: Iterable[Role]) -> Iterable[KeyRange]:
    return (one.keys for role in roles for one in role.permissions if one.kind != "read")
