"""What a user of version 3 may do, so that nothing else is offered. The store decides in any case."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass

from muster_client import Client, KeyRange, MusterError
from muster_client.ranges import Keys
from muster_client.ranges import of as of_keys

from tools.console.store.access import version3
from tools.console.store.access.model import ALL, ROOT, Role

_ASKED_S = 1.5  # a page waits for it


@dataclass(frozen=True, slots=True)
class Rights:
    """``everything``: the user has the role ``root``, or the store has no users."""

    everything: bool
    writes: tuple[KeyRange, ...] = ()

    def may_write(self, keys: Keys) -> bool:
        """Whether the user may put and delete a key, or all keys of a range."""
        wanted = of_keys(keys)
        return self.everything or any(_holds(one, wanted) for one in self.writes)


UNLIMITED = Rights(True)


def _holds(keys: KeyRange, wanted: KeyRange) -> bool:
    if keys in ALL:
        return True
    if not keys.end or wanted in ALL:
        return keys == wanted
    if not wanted.end:
        return keys.start <= wanted.start and (keys.end == b"\0" or wanted.start < keys.end)
    if keys.start > wanted.start:
        return False
    return keys.end == b"\0" or (wanted.end != b"\0" and wanted.end <= keys.end)


async def of(client: Client, name: str) -> Rights:
    """The rights of a user. Where the store does not tell, everything is offered, and the store refuses."""
    if not name:
        return UNLIMITED
    try:
        async with asyncio.timeout(_ASKED_S):
            user = await version3.user(client, name)
            if ROOT in user.roles:
                return UNLIMITED
            roles = await asyncio.gather(*(version3.role(client, one) for one in user.roles))
    except (MusterError, TimeoutError):
        return UNLIMITED
    return Rights(False, tuple(_writes(roles)))


def _writes(roles: Iterable[Role]) -> Iterable[KeyRange]:
    return (one.keys for role in roles for one in role.permissions if one.kind != "read")
