"""Leases that hold keys which a user may not read: their times are told, and no view fails for them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any, cast

import grpc
import muster_client as m
from muster_client import LeaseInfo, LeaseNotFound, PermissionDenied
from muster_client.pb import rpc_pb2 as pb

from tools.console.store import leases, services

READABLE, HIDDEN, ENDED = 5, 7, 9


class Client:
    """A cluster with three leases. Of the hidden one it tells no keys; one has ended."""

    def __init__(self) -> None:
        self.raw = SimpleNamespace(call=self.call)

    async def lease_info(self, lease: int) -> LeaseInfo:
        if lease == HIDDEN:
            raise PermissionDenied(grpc.StatusCode.PERMISSION_DENIED, "etcdserver: permission denied")
        if lease == ENDED:
            raise LeaseNotFound(grpc.StatusCode.NOT_FOUND, "etcdserver: requested lease not found")
        return LeaseInfo(50, 60, (b"/a/readable",))

    async def call(self, method: object, request: Any, **_: object) -> Any:
        if isinstance(request, pb.LeaseLeasesRequest):
            return pb.LeaseLeasesResponse(
                leases=[pb.LeaseStatus(ID=lease) for lease in (READABLE, HIDDEN, ENDED)]
            )
        assert isinstance(request, pb.LeaseTimeToLiveRequest)
        if request.keys and request.ID == HIDDEN:
            raise PermissionDenied(grpc.StatusCode.PERMISSION_DENIED, "etcdserver: permission denied")
        return pb.LeaseTimeToLiveResponse(TTL=-1 if request.ID == ENDED else 50, grantedTTL=60)


def test_a_lease_of_hidden_keys_is_listed_without_them() -> None:
    found = asyncio.run(leases.every(cast(m.Client, Client())))
    assert found == leases.Leases(
        (leases.LeaseRow(READABLE, 50, 60, (b"/a/readable",)), leases.LeaseRow(HIDDEN, 50, 60, ())), 3
    )


def test_services_tell_the_times_of_all_leases_that_live() -> None:
    asked = services._times(cast(m.Client, Client()), {READABLE, HIDDEN, ENDED})
    assert asyncio.run(asked) == {READABLE: (50, 60), HIDDEN: (50, 60), ENDED: None}


def test_an_instance_lives_whose_lease_was_not_asked_for() -> None:
    count = services._MOST_LEASES + 1
    kvs = [m.KeyValue(b"/services/web/%d" % at, b"", 1, 1, 1, lease) for at, lease in
           enumerate([0, ENDED, *range(100, 100 + count)])]  # fmt: skip
    (found,) = asyncio.run(services._services(cast(m.Client, Client()), b"/services/", kvs))
    assert [one.is_alive for one in found.instances] == [False, False] + [True] * count
    assert [one.left_s for one in found.instances[-2:]] == [None, None], "two were not asked for"
    assert found.alive == count


def test_a_lock_of_which_the_user_may_read_one_key_fails_no_view() -> None:
    async def denied() -> AsyncIterator[m.KeyValue]:
        raise PermissionDenied(grpc.StatusCode.PERMISSION_DENIED, "etcdserver: permission denied")
        yield

    client = cast(m.Client, SimpleNamespace(range=lambda _: denied()))
    row = leases.LeaseRow(READABLE, 50, 60, (b"/lock/%x" % READABLE,))
    assert asyncio.run(leases.contests(client, [row])) == []
