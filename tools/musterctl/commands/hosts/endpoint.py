"""``endpoint health``, ``status``, ``hashkv``: each endpoint is asked by itself."""

from __future__ import annotations

import contextlib
import queue
import sys
import threading
import time

from muster_client.pb import rpc_pb2

from cluster.errors import PERMISSION_DENIED
from cluster.gotext import duration
from tools.musterctl.client import Client, RequestError, Session, session
from tools.musterctl.command import Exit, Invocation
from tools.musterctl.printing.records import EndpointHash, EndpointHealth, EndpointStatus

_ASK_AGAIN_S = 0.05
_ALARMS = {rpc_pb2.NOSPACE: "NOSPACE", rpc_pb2.CORRUPT: "CORRUPT"}


def endpoints(invocation: Invocation, s: Session) -> list[str]:
    """The endpoints of the command line, or with ``--cluster`` the client URLs of every member."""
    if not invocation.flags.switch("cluster"):
        return list(s.config.endpoints)
    request = rpc_pb2.MemberListRequest(linearizable=True)
    r = s.ask(
        "Cluster/MemberList", request, rpc_pb2.MemberListResponse, True,
        wrap="failed to fetch endpoints from etcd cluster member list: {}")
    return [url for member in r.members for url in member.clientURLs]


def health(invocation: Invocation) -> None:
    """A linearizable read from each endpoint at once, in the order of answers."""
    s = session(invocation)
    asked = endpoints(invocation, s)
    results: queue.SimpleQueue[EndpointHealth | Exception] = queue.SimpleQueue()

    def probe(endpoint: str) -> None:
        try:
            results.put(_probe(s, endpoint))
        except Exception as error:
            if isinstance(error, Exit) and error.code != 128:
                # it could not log in; as by etcdctl, this is the endpoint's
                results.put(EndpointHealth(endpoint, False, "", str(error)))
            else:  # of the command line: a file that cannot be read, a name that is no UTF-8
                results.put(error)

    for endpoint in asked:
        threading.Thread(target=probe, args=(endpoint,), daemon=True).start()
    found = []
    for _ in asked:
        if isinstance(result := results.get(), Exception):
            raise result
        found.append(result)
    s.printer.endpoint_health(found)
    if not all(result.healthy for result in found):
        raise Exit(1, "unhealthy cluster")


def _probe(s: Session, endpoint: str) -> EndpointHealth:
    started = time.monotonic_ns()
    healthy, reason = True, ""
    client = s.client(endpoint)
    try:
        request = rpc_pb2.RangeRequest(key=b"health")
        try:
            client.unary("KV/Range", request, rpc_pb2.RangeResponse, s.timeout_s, True)
        except RequestError as error:
            # a working quorum has answered a user without the right, too
            if str(error) != PERMISSION_DENIED.text:
                raise
        took = duration(time.monotonic_ns() - started)
        reason = _alarms(s, client)
        healthy = not reason
    except RequestError as error:
        took = "" if client.logs_in else duration(time.monotonic_ns() - started)  # as etcdctl
        healthy, reason = False, str(error)
    return EndpointHealth(endpoint, healthy, took, reason)


def _alarms(s: Session, client: Client) -> str:
    """What they have against an endpoint's health, in etcdctl's words; "": nothing."""
    try:
        found = client.unary("Maintenance/Alarm", rpc_pb2.AlarmRequest(), rpc_pb2.AlarmResponse, s.timeout_s)
    except RequestError:
        return "Unable to fetch the alarm list"
    names = " ".join(_ALARMS.get(a.alarm, "UNKNOWN") for a in found.alarms)
    return f"Active Alarm(s): {names} " if names else ""


def status(invocation: Invocation) -> None:
    """One after the other; a failure is printed at once and decides the exit code."""
    s = session(invocation)
    found: list[EndpointStatus] = []
    failed = False
    for endpoint in endpoints(invocation, s):
        try:
            client = s.client(endpoint)
            request = rpc_pb2.StatusRequest()
            r = client.unary("Maintenance/Status", request, rpc_pb2.StatusResponse, s.timeout_s, True)
            found.append(EndpointStatus(endpoint, r))
        except RequestError as error:
            failed = True
            print(f"Failed to get the status of endpoint {endpoint} ({error})", file=sys.stderr)
    s.printer.endpoint_status(found)
    if failed:
        raise Exit(1)


def hash_kv(invocation: Invocation) -> None:
    """At ``--rev``, or of several endpoints at the newest revision that all have."""
    s = session(invocation)
    asked = endpoints(invocation, s)
    wanted = invocation.flags.number("rev")
    if wanted or len(asked) == 1:
        found, failure = _hashes(s, {endpoint: s.client(endpoint) for endpoint in asked}, wanted)
    else:
        found, failure = _comparable_hashes(s, asked)
    told = {one.endpoint: one for one in found}
    s.printer.endpoint_hash([told[endpoint] for endpoint in asked if endpoint in told])
    if failure:
        raise Exit(1, failure)


def _hashes(s: Session, clients: dict[str, Client], revision: int) -> tuple[list[EndpointHash], str]:
    """Of each endpoint that answers, and the last failure, "" for none. A failure is printed at once."""
    found, failure = [], ""
    for endpoint, client in clients.items():
        try:
            found.append(EndpointHash(endpoint, _hash_of(s, client, revision)))
        except RequestError as error:
            failure = str(error)
            print(f"Failed to get the hash of endpoint {endpoint} ({error})", file=sys.stderr)
    return found, failure


def _hash_of(s: Session, client: Client, revision: int) -> rpc_pb2.HashKVResponse:
    request = rpc_pb2.HashKVRequest(revision=revision)
    return client.unary("Maintenance/HashKV", request, rpc_pb2.HashKVResponse, s.timeout_s, True)


def _comparable_hashes(s: Session, asked: list[str]) -> tuple[list[EndpointHash], str]:
    """Hashes of one revision, over one compaction.

    The endpoints' least revision is what all have. A replica may lag behind its endpoint, and a compaction
    may come between: then all are asked again, within the command's time.
    """
    end = time.monotonic() + s.timeout_s
    clients = {endpoint: s.client(endpoint) for endpoint in asked}
    failure = ""
    while True:
        revisions = []
        for endpoint, client in list(clients.items()):
            request = rpc_pb2.StatusRequest()
            try:
                r = client.unary("Maintenance/Status", request, rpc_pb2.StatusResponse, s.timeout_s, True)
            except RequestError as error:
                failure = str(error)
                del clients[endpoint]
                print(f"Failed to get the hash of endpoint {endpoint} ({error})", file=sys.stderr)
            else:
                revisions.append(r.header.revision)
        revision = min(revisions, default=0)
        if time.monotonic() >= end or not clients:
            found, last = _hashes(s, clients, revision)
            return found, last or failure
        with contextlib.suppress(RequestError):
            found = [EndpointHash(e, _hash_of(s, c, revision)) for e, c in clients.items()]
            if len({h.response.compact_revision for h in found}) == 1:
                return found, failure
        time.sleep(_ASK_AGAIN_S)
