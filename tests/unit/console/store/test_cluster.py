"""Members as a console sees them, which runs for months."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from muster_client import Client
from muster_client.pb import rpc_pb2 as pb

from tools.console.store import cluster, raw
from tools.console.store.cluster import Hosts


def test_a_member_that_was_replaced_is_dialled_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client dials for ever, with look-ups and TLS."""
    members = ["http://127.0.0.1:1", "http://127.0.0.1:2", ""]
    answers: dict[Any, Any] = {raw.STATUS: pb.StatusResponse(), raw.ALARM: pb.AlarmResponse()}

    async def call(client: Client, method: Any, request: Any, **how: Any) -> Any:
        if method is raw.MEMBERS:
            return pb.MemberListResponse(members=[
                pb.Member(ID=number, clientURLs=[url] if url else []) for number, url in enumerate(members)])
        return answers[method]

    monkeypatch.setattr(raw, "call", call)

    async def steps() -> None:
        hosts = Hosts()
        async with Client("127.0.0.1:1") as client:
            await cluster.picture(client, hosts)
            first, second = (hosts.at((url,)) for url in members[:2])
            members[1] = "http://127.0.0.1:3"
            await cluster.picture(client, hosts)
            assert second.closed
            assert not first.closed
            assert hosts.at((members[0],)) is first
            await hosts.close()
            assert first.closed

    asyncio.run(steps())
