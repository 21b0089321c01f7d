"""Work that one program of many does: the leader."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

from muster_client.errors import MusterError
from muster_client.lease import to_its_end
from muster_client.queueing import Leadership, is_lost, until_lost
from muster_client.ranges import Text
from muster_client.wire.retries import is_final

if TYPE_CHECKING:
    from muster_client.client import Client

log = logging.getLogger("muster_client")
Result = TypeVar("Result")
_AGAIN_S = 1.0


async def while_leading(
    client: Client, name: Text, work: Callable[[Leadership], Awaitable[Result]], value: Text, ttl_s: int
) -> Result:
    """Do work while this program leads: campaign, run it, and campaign again where the leadership was lost,
    for which the work is cancelled. What it gives, or raises, ends it, and so does a campaign that this user
    may not begin; a call that failed because the leadership was lost meanwhile does not."""
    told = value or socket.gethostname()
    while True:
        try:
            leadership = await client.election(name).campaign(told, ttl=ttl_s).campaign()
        except MusterError as error:
            if client.closed or is_final(error):
                raise
            log.warning("%r: no campaign: %s", name, error)
            await asyncio.sleep(_AGAIN_S)
            continue
        try:
            working = asyncio.ensure_future(_awaited(work(leadership)))
            lost = asyncio.ensure_future(until_lost(leadership, leadership.lease))
            try:
                await asyncio.wait((working, lost), return_when=asyncio.FIRST_COMPLETED)
                if working.done() and not (
                        isinstance(working.exception(), MusterError) and await is_lost(leadership)):
                    return working.result()
                log.warning("%r: the leadership was lost, its work is cancelled", name)
            finally:
                working.cancel()
                lost.cancel()
                await asyncio.gather(working, lost, return_exceptions=True)
        finally:
            await to_its_end(leadership.__aexit__(None, None, None))


async def _awaited(work: Awaitable[Result]) -> Result:
    return await work
