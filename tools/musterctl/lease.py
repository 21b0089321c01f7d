"""``lease grant``, ``revoke``, ``timetolive``, ``list``, ``keep-alive``."""

from __future__ import annotations

import queue
import sys
import time
from collections.abc import Iterator

import grpc
from google.protobuf.message import Message

from cluster.pb import rpc_pb2
from tools.musterctl.client import Client, failing_with, request_error, session
from tools.musterctl.command import Exit, Invocation
from tools.musterctl.gotext import GoError, parse_int

_NO_ANSWER_S = 5.0  # clientv3's: how long a lease is kept when no renewal has ever been answered


def _lease_id(text: str) -> int:
    try:
        return parse_int(text, 16)
    except GoError as error:
        raise Exit(128, f"bad lease ID arg ({error}), expecting ID in Hex") from None


def _one_id(invocation: Invocation, message: str) -> int:
    if len(invocation.args) != 1:
        raise Exit(128, message)
    return _lease_id(invocation.args[0])


def grant(invocation: Invocation) -> None:
    """``lease grant <ttl>``: the server chooses the ID."""
    if len(invocation.args) != 1:
        raise Exit(128, "lease grant command needs TTL argument")
    try:
        ttl = parse_int(invocation.args[0])
    except GoError as error:
        raise Exit(128, f"bad TTL ({error})") from None
    s = session(invocation)
    with failing_with(1, "failed to grant lease ({})"):
        request = rpc_pb2.LeaseGrantRequest(TTL=ttl)
        r = s.client().unary("Lease/LeaseGrant", request, rpc_pb2.LeaseGrantResponse, s.timeout_s)
    s.printer.lease_grant(r)


def revoke(invocation: Invocation) -> None:
    """``lease revoke <leaseID>``."""
    lease = _one_id(invocation, "lease revoke command needs 1 argument")
    s = session(invocation)
    with failing_with(1, "failed to revoke lease ({})"):
        request = rpc_pb2.LeaseRevokeRequest(ID=lease)
        r = s.client().unary("Lease/LeaseRevoke", request, rpc_pb2.LeaseRevokeResponse, s.timeout_s)
    s.printer.lease_revoke(lease, r)


def time_to_live(invocation: Invocation) -> None:
    """``lease timetolive <leaseID>``: waits as long as it takes."""
    lease = _one_id(invocation, "lease timetolive command needs lease ID as argument")
    with_keys = invocation.flags.switch("keys")
    s = session(invocation)
    with failing_with(2):
        request = rpc_pb2.LeaseTimeToLiveRequest(ID=lease, keys=with_keys)
        r = s.client().unary(
            "Lease/LeaseTimeToLive", request, rpc_pb2.LeaseTimeToLiveResponse, None, safe_to_repeat=True
        )
    s.printer.lease_time_to_live(r, with_keys)


def list_leases(invocation: Invocation) -> None:
    """``lease list``."""
    s = session(invocation)
    with failing_with(2):
        request = rpc_pb2.LeaseLeasesRequest()
        r = s.client().unary(
            "Lease/LeaseLeases", request, rpc_pb2.LeaseLeasesResponse, None, safe_to_repeat=True
        )
    s.printer.lease_list(r)


def keep_alive(invocation: Invocation) -> None:
    """``lease keep-alive <leaseID>``: a renewal each third of the TTL until the lease is gone."""
    lease = _one_id(invocation, "lease keep-alive command needs lease ID as argument")
    s = session(invocation)
    client = s.client()
    if invocation.flags.switch("once"):
        try:
            r = _renew_once(client, lease)
        except grpc.RpcError as error:
            raise Exit(2, str(request_error(error))) from None
        if r.TTL == 0:
            raise Exit(2, "etcdserver: requested lease not found")
        s.printer.lease_keep_alive(r)
        return
    expires = time.monotonic() + _NO_ANSWER_S
    while time.monotonic() < expires:
        try:
            for r in _renewals(client, lease):
                if r.TTL <= 0:
                    print(f"lease {lease:016x} expired or revoked.")
                    return
                expires = time.monotonic() + r.TTL
                s.printer.lease_keep_alive(r)
                sys.stdout.flush()
        except grpc.RpcError as error:
            if error.code() not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.INTERNAL):
                break
            time.sleep(0.5)  # the pause between two tries to reach a server, as clientv3's
    print(f"lease {lease:016x} expired or revoked.")


def _renew_once(client: Client, lease: int) -> rpc_pb2.LeaseKeepAliveResponse:
    request: list[Message] = [rpc_pb2.LeaseKeepAliveRequest(ID=lease)]
    call = client.stream("Lease/LeaseKeepAlive", iter(request), rpc_pb2.LeaseKeepAliveResponse)
    answer: rpc_pb2.LeaseKeepAliveResponse = next(call)
    return answer


def _renewals(client: Client, lease: int) -> Iterator[rpc_pb2.LeaseKeepAliveResponse]:
    """Answers to renewals, the next sent a third of the TTL after the last was answered."""
    due: queue.SimpleQueue[float] = queue.SimpleQueue()
    due.put(0.0)

    def requests() -> Iterator[Message]:
        while True:
            time.sleep(due.get())
            yield rpc_pb2.LeaseKeepAliveRequest(ID=lease)

    for answer in client.stream("Lease/LeaseKeepAlive", requests(), rpc_pb2.LeaseKeepAliveResponse):
        yield answer
        due.put(answer.TTL / 3)
