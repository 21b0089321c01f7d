"""Members as a console sees them, which runs for months."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from muster_client import Client, Tls
from muster_client.pb import rpc_pb2 as pb

from tools.console.sessions import Identity, Sessions, Target
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


def test_a_password_leaves_by_tls_alone_where_the_endpoints_have_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """It went to the first URL that a member told, such as http://localhost:2379 of this very machine."""

    async def call(client: Client, method: Any, request: Any, **how: Any) -> Any:
        if method is raw.MEMBERS:
            return pb.MemberListResponse(members=[
                pb.Member(ID=1, clientURLs=["http://localhost:2379", "https://127.0.0.1:2"]),
                pb.Member(ID=2, clientURLs=["http://localhost:2379"]), pb.Member(ID=3)])
        return pb.StatusResponse() if method is raw.STATUS else pb.AlarmResponse()

    monkeypatch.setattr(raw, "call", call)

    async def told(endpoint: str, user: str) -> tuple[list[str], list[str]]:
        sessions = Sessions(Target((endpoint,), Tls()))
        identity = Identity(sessions.target, sessions.recorder, user, "secret" if user else "")
        found = await cluster.picture(identity.client, identity.hosts)
        dialled = sorted(identity.hosts._clients)
        await identity.close()
        return dialled, [one.error for one in found.members]

    why = "this host tells no https URL: a password would leave in clear"
    none = "it has not started"
    by_first = ["http://localhost:2379"]
    assert asyncio.run(told("https://127.0.0.1:1", "ann")) == (["https://127.0.0.1:2"], ["", why, none])
    assert asyncio.run(told("127.0.0.1:1", "ann"))[0] == ["https://127.0.0.1:2"]
    assert asyncio.run(told("https://127.0.0.1:1", "")) == (by_first, ["", "", none])
    assert asyncio.run(told("http://127.0.0.1:1", "ann")) == (by_first, ["", "", none]), "in clear anyway"
