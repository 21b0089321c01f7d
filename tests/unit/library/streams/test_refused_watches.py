"""What is told of a watch, or a renewal, that no endpoint serves."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import grpc
import muster_client as m
import pytest
from muster_client.pb import rpc_pb2 as pb

from tests.unit.library.scripted import Code, refusing, say_nothing, scripted

Requests = Iterator[pb.WatchRequest]
Told = Iterator[pb.WatchResponse]


def test_a_refusal_in_the_words_of_a_grpc_proxy_is_taken_by_its_words() -> None:
    """Etcd's names no code: a stale token is renewed, and what is not permitted is told."""
    tokens: list[str] = []

    def watch(requests: Requests, context: grpc.ServicerContext) -> Told:
        key = next(requests).create_request.key
        tokens.append(dict(context.invocation_metadata())["token"])
        if key == b"a" and tokens[-1] == "t2":
            yield pb.WatchResponse(created=True)
        else:
            reason = "etcdserver: invalid auth token" if key == b"a" else "etcdserver: permission denied"
            yield pb.WatchResponse(created=True, canceled=True, watch_id=-1, cancel_reason=reason)
        say_nothing(context)

    def login(request: pb.AuthenticateRequest, context: grpc.ServicerContext) -> pb.AuthenticateResponse:
        logins.append(request.name)
        return pb.AuthenticateResponse(token=f"t{len(logins)}")

    async def main() -> None:
        async with m.Client(address, user="u", password="p", timeout=3) as client:
            async with client.watch("a", revision=1):
                assert tokens == ["t1", "t2"]
            with pytest.raises(m.PermissionDenied):
                await client.watch("b", revision=1).__aenter__()
            assert tokens == ["t1", "t2", "t2", "t3"], "it may have been the token's fault, once"

    logins: list[str] = []
    with scripted({"Watch/Watch": watch, "Auth/Authenticate": login}) as address:
        asyncio.run(main())


@pytest.mark.parametrize("text", ["etcdserver: no leader", "etcdserver: too many requests"])
def test_what_endpoints_say_until_the_end_of_the_time_is_told(text: str) -> None:
    """As of other calls; not that the endpoint gives no answer."""
    async def main() -> None:
        async with m.Client(address, timeout=0.5) as client:
            with pytest.raises(m.Unavailable, match=text) as watched:
                await client.watch("a", revision=1).__aenter__()
            with pytest.raises(m.Unavailable, match=text) as renewed:
                await client.renew(7)
        assert watched.value.endpoint == renewed.value.endpoint == address

    refuse = refusing(Code.UNAVAILABLE, text)
    with scripted({"Watch/Watch": refuse, "Lease/LeaseKeepAlive": refuse}) as address:
        asyncio.run(main())
