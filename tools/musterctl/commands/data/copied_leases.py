"""Leases that ``import`` copies, and keeps."""

from __future__ import annotations

import asyncio
from asyncio import wrap_future
from collections import deque
from contextlib import suppress

from grpc import StatusCode
from muster_client.errors import MusterError, ServerError
from muster_client.pb import rpc_pb2

from tools.musterctl.client import Client, RequestError
from tools.musterctl.commands.data.telling import say

_FORGET_EVERY_S = 10.0
_LIMIT_S = 5.0
_UNLISTED = (StatusCode.PERMISSION_DENIED, StatusCode.UNIMPLEMENTED)  # an etcd before 3.3 has no list
_REST_S = 0.02  # between questions for each lease
_SHORT_S = 60
_ASKED, _TOLD = "Lease/LeaseTimeToLive", rpc_pb2.LeaseTimeToLiveResponse


def is_same(source: Client, target: Client) -> bool:
    """Whether both are one cluster: each copy there would be one more change to copy. IDs do not tell, as
    clusters of the same names and URLs share theirs. A lease does. RequestError."""
    grant = rpc_pb2.LeaseGrantRequest(TTL=_SHORT_S)
    lease = target.unary("Lease/LeaseGrant", grant, rpc_pb2.LeaseGrantResponse, None, True).ID
    target.unanswered.clear()  # a lease more is no change of keys
    try:
        found = source.unary(_ASKED, rpc_pb2.LeaseTimeToLiveRequest(ID=lease), _TOLD, None, True)
    except RequestError as error:  # of an etcd before 3.2
        if error.code not in (StatusCode.NOT_FOUND, StatusCode.UNIMPLEMENTED):
            raise
        return False
    finally:
        revoke, response = rpc_pb2.LeaseRevokeRequest(ID=lease), rpc_pb2.LeaseRevokeResponse
        target.start("Lease/LeaseRevoke", revoke, response, _LIMIT_S)  # without it, it ends by itself
    return found.TTL >= 0


class Leases:
    """Leases of the source, granted at the target with the same IDs, and kept alive there."""

    def __init__(self, source: Client, target: Client) -> None:
        self._source, self._target = source, target
        self._there: set[int] = set()  # granted and renewed
        self.ended: deque[int] = deque()  # at the target, with their keys
        # as long as this program runs and both have it: also behind a lease's time to live, after which the
        # source still has it, and perhaps the target
        self._renewing = target.renewing(self._gone)
        target.begin(self._renewing.run())
        target.begin(self._forget())

    @property
    def granted(self) -> int:
        """How many there are at the target."""
        return len(self._there)

    def there(self, lease: int, *, lost: bool = False) -> int:
        """The lease at the target; 0: it is gone at the source, which deletes its keys. ``lost``: a grant
        means that it had ended."""
        if lease not in self._there:
            found = self._source.unary(_ASKED, rpc_pb2.LeaseTimeToLiveRequest(ID=lease), _TOLD, None, True)
            if found.TTL < 0:
                return 0
            try:
                grant = rpc_pb2.LeaseGrantRequest(ID=lease, TTL=found.grantedTTL)
                self._target.unary("Lease/LeaseGrant", grant, rpc_pb2.LeaseGrantResponse, None, True)
            except RequestError as error:
                if "already exists" not in str(error):
                    raise
                lost = lost and bool(self._target.unanswered)  # repeated, it may be this one
            if lost:
                self.ended.append(lease)
            self._there.add(lease)
            self._target.begin(self._renewing.add(lease))
        return lease

    def keys(self, lease: int) -> list[bytes]:
        """Those that it has at the source, if it is there."""
        asked = rpc_pb2.LeaseTimeToLiveRequest(ID=lease, keys=True)
        return list(self._source.unary(_ASKED, asked, _TOLD, None, True).keys)

    def again(self, lease: int) -> int:
        """As :meth:`there`, where the target may have it no more."""
        self._there.discard(lease)
        return self.there(lease, lost=True)

    def _gone(self, lease: int) -> None:
        """The target has it no more; the next key that has it grants it again."""
        say(f"lease {lease:016x} has ended here: keys that it has at the source are copied again")
        self._there.discard(lease)
        self.ended.append(lease)

    async def _forget(self) -> None:
        """Renew no lease that is gone at the source: leases come and go there."""
        while True:
            await asyncio.sleep(_FORGET_EVERY_S)
            with suppress(MusterError):  # it is tried again
                await self._forget_gone()

    async def _forget_gone(self) -> None:
        unlisted, rest_s = self._there.copy(), 0.0
        request, response = rpc_pb2.LeaseLeasesRequest(), rpc_pb2.LeaseLeasesResponse
        try:
            listed = await wrap_future(self._source.start("Lease/LeaseLeases", request, response, _LIMIT_S))
            unlisted -= {one.ID for one in listed.leases}
        except ServerError as error:  # one may have keys that this user may not read: then each is asked for
            if error.code not in _UNLISTED:
                raise
            rest_s = _REST_S
        for lease in unlisted:  # the endpoint that listed may be behind
            asked = rpc_pb2.LeaseTimeToLiveRequest(ID=lease)
            await asyncio.sleep(rest_s)
            if (await wrap_future(self._source.start(_ASKED, asked, _TOLD, _LIMIT_S))).TTL < 0:
                self._there.discard(lease)
                self._renewing.remove(lease)
