"""member and cluster-health."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import TypeVar
from urllib.parse import quote

from cluster import gotext
from cluster.members.urls import in_order
from tools.musterctl.command import Exit
from tools.musterctl.v2.client import (
    NOT_HEALTHY,
    SERVER_ERROR,
    Client,
    Member,
    Refused,
    connect,
    expect,
    fail,
    parsed,
    refuse,
)
from tools.musterctl.v2.exchange import Request, RequestError
from tools.musterctl.v2.output import end_at_interrupt
from tools.musterctl.v2.start import Run

_JSON = {"Content-Type": "application/json"}
_MORE = "https://github.com/etcd-io/etcd/blob/main/Documentation/runtime-configuration.md#remove-a-member"
_AGAIN_S = 10

T = TypeVar("T")


def _done(request: Callable[[], T], before: str = "") -> T:
    try:
        return request()
    except (RequestError, Refused) as error:
        refuse(f"{before}{error}")


def list_(run: Run) -> None:
    if run.args:
        refuse("No arguments accepted")
    client = connect(run.globals)
    members = _done(client.members)
    leader = _done(lambda: _leader(client), "Failed to get leader:  ")
    for member in members:
        peers = ",".join(member.peer_urls)
        if not member.name:
            print(f"{member.id}[unstarted]: peerURLs={peers}")
        else:
            leads = "true" if member.id == leader else "false"
            clients = ",".join(member.client_urls)
            print(f"{member.id}: name={member.name} peerURLs={peers} clientURLs={clients} isLeader={leads}")


def _leader(client: Client) -> str:
    answer = client.ask(Request("GET", "/v2/members/leader"))
    expect(answer, 200)
    return Member.of(parsed(answer.body)).id


def add(run: Run) -> None:
    """Also prints the new member's settings."""
    if len(run.args) != 2:
        refuse("Provide a name and a single member peerURL")
    name, url = run.args
    client = connect(run.globals)
    added = _done(lambda: _add(client, url))
    print(f"Added member named {name} with ID {added.id} to cluster")
    members = _done(client.members)
    listed = [f"{name if m.id == added.id else m.name}={peer}" for m in members for peer in m.peer_urls]
    print(f"\nETCD_NAME={gotext.quote(name)}")
    print(f"ETCD_INITIAL_CLUSTER={gotext.quote(','.join(listed))}")
    print('ETCD_INITIAL_CLUSTER_STATE="existing"')


def _add(client: Client, url: str) -> Member:
    answer = client.ask(Request("POST", "/v2/members", "", _peers([url]), _JSON))
    expect(answer, 201, 409)
    if answer.status != 201:
        raise Refused(str(parsed(answer.body).get("message", "")))
    return Member.of(parsed(answer.body))


def remove(run: Run) -> None:
    if len(run.args) != 1:
        refuse("Provide a single member ID")
    wanted = run.args[0]
    client = connect(run.globals)
    members = _done(client.members, "Error while verifying ID against known members: ")
    for member in members:
        if member.name == wanted:
            print(
                f"Found a member named {member.name}; if this is correct, please use its ID, eg:\n"
                f"\tmusterctl member remove {member.id}\n"
                f"For more details, read the documentation at {_MORE}\n",
                file=sys.stderr)
    if all(member.id != wanted for member in members):
        refuse(f"Couldn't find a member in the cluster with an ID of {wanted}.")
    try:
        expect(client.ask(Request("DELETE", f"/v2/members/{quote(wanted)}")), 204, 410)
    except (RequestError, Refused) as error:
        sys.stderr.write(f"Received an error trying to remove member {wanted}: {error}")
        raise Exit(1) from None
    print(f"Removed member {wanted} from cluster")


def update(run: Run) -> None:
    if len(run.args) != 2:
        refuse(
            "Provide an ID and a list of comma separated peerURL (0xabcd http://example.com,http://example1.com)"
        )
    member, urls = run.args
    client = connect(run.globals)
    _done(lambda: _update(client, member, urls.split(",")))
    print(f"Updated member with ID {member} in cluster")


def _update(client: Client, member: str, urls: list[str]) -> None:
    answer = client.ask(Request("PUT", f"/v2/members/{quote(gotext.raw(member))}", "", _peers(urls), _JSON))
    expect(answer, 204, 404, 409)
    if answer.status != 204:
        raise Refused(str(parsed(answer.body).get("message", "")))


def _peers(urls: list[str]) -> bytes:
    """The body that names peer URLs. Refused."""
    try:
        return json.dumps({"peerURLs": in_order(urls)}, separators=(",", ":")).encode()
    except ValueError as wrong:
        raise Refused(str(wrong)) from None


def cluster_health(run: Run) -> None:
    """Print whether each member is healthy, and the cluster."""
    forever = run.options.switch("forever")
    if forever:
        end_at_interrupt()
    client = connect(run.globals, sync=False)
    try:
        members = client.members(bounded=False)
    except (RequestError, Refused) as error:
        print("cluster may be unhealthy: failed to list members", flush=True)
        fail(SERVER_ERROR, error)
    client.connections.debug = False  # its requests to members are not shown
    while True:
        healthy = sum(_is_healthy(client, member) for member in members)
        if healthy == len(members):
            print("cluster is healthy", flush=True)
        else:
            print(f"cluster is {'degraded' if healthy else 'unavailable'}", flush=True)
        if not forever:
            raise Exit(0 if healthy == len(members) else NOT_HEALTHY)
        print(f"\nnext check after {_AGAIN_S} second...\n", flush=True)
        time.sleep(_AGAIN_S)


def _is_healthy(client: Client, member: Member) -> bool:
    if not member.client_urls:
        print(f"member {member.id} is unreachable: no available published client urls")
        return False
    for url in member.client_urls:
        try:
            deadline = time.monotonic() + client.total_s if client.total_s > 0 else None
            answer = client.connections.send(url, Request("GET", "/health"), 0, deadline)
            result = parsed(answer.body).get("health")
        except (RequestError, Refused) as error:
            reason = f'Get "{url}/health": {error}' if isinstance(error, RequestError) else str(error)
            print(f"failed to check the health of member {member.id} on {url}: {reason}")
            continue
        healthy = result in ("true", True)
        state = "healthy" if healthy else "unhealthy"
        print(f"member {member.id} is {state}: got {state} result from {url}")
        return healthy
    print(f"member {member.id} is unreachable: [{' '.join(member.client_urls)}] are all unreachable")
    return False
