"""``lease grant``, ``revoke``, ``timetolive``, ``list``, ``keep-alive``."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Iterator

import grpc
from muster_client.wire.http2.answers import CallError

from cluster.pb import rpc_pb2
from tools.client.channels import say
from tools.gotext import GoError, parse_int
from tools.musterctl.client import Client, Stream, request_error, session, stream_breaks
from tools.musterctl.command import Exit, Invocation

# how long a renewal may take before another endpoint is asked
_FIRST_PATIENCE_S = 5.0  # while the TTL is not known
_LEAST_PATIENCE_S = 1.0
_ENDED = "the server ended the stream"
_SILENT = "a renewal was not answered in time"


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
    """The server chooses the ID."""
    if len(invocation.args) != 1:
        raise Exit(128, "lease grant command needs TTL argument")
    try:
        ttl = parse_int(invocation.args[0])
    except GoError as error:
        raise Exit(128, f"bad TTL ({error})") from None
    s = session(invocation)
    request = rpc_pb2.LeaseGrantRequest(TTL=ttl)
    r = s.ask("Lease/LeaseGrant", request, rpc_pb2.LeaseGrantResponse, wrap="failed to grant lease ({})")
    s.printer.lease_grant(r)


def revoke(invocation: Invocation) -> None:
    lease = _one_id(invocation, "lease revoke command needs 1 argument")
    s = session(invocation)
    request = rpc_pb2.LeaseRevokeRequest(ID=lease)
    r = s.ask("Lease/LeaseRevoke", request, rpc_pb2.LeaseRevokeResponse, wrap="failed to revoke lease ({})")
    s.printer.lease_revoke(lease, r)


def time_to_live(invocation: Invocation) -> None:
    """Without a time limit."""
    lease = _one_id(invocation, "lease timetolive command needs lease ID as argument")
    with_keys = invocation.flags.switch("keys")
    s = session(invocation)
    request = rpc_pb2.LeaseTimeToLiveRequest(ID=lease, keys=with_keys)
    r = s.ask("Lease/LeaseTimeToLive", request, rpc_pb2.LeaseTimeToLiveResponse, True, limited=False, code=2)
    s.printer.lease_time_to_live(r, with_keys)


def list_leases(invocation: Invocation) -> None:
    s = session(invocation)
    request = rpc_pb2.LeaseLeasesRequest()
    r = s.ask("Lease/LeaseLeases", request, rpc_pb2.LeaseLeasesResponse, True, limited=False, code=2)
    s.printer.lease_list(r)


def keep_alive(invocation: Invocation) -> None:
    """A renewal each third of the TTL until a server says that the lease is gone."""
    lease = _one_id(invocation, "lease keep-alive command needs lease ID as argument")
    s = session(invocation)
    client = s.client()
    if invocation.flags.switch("once"):
        try:
            r = _renewed(client.stream("Lease/LeaseKeepAlive", rpc_pb2.LeaseKeepAliveResponse), lease, None)
        except CallError as error:
            raise Exit(2, str(request_error(error))) from None
        if r.TTL == 0:
            raise Exit(2, "etcdserver: requested lease not found")
        s.printer.lease_keep_alive(r)
        return
    for answer in renewals(client, lease):
        if answer.TTL <= 0:
            break
        s.printer.lease_keep_alive(answer)
        sys.stdout.flush()
    print(f"lease {lease:016x} expired or revoked.")


def renewals(client: Client, lease: int) -> Iterator[rpc_pb2.LeaseKeepAliveResponse]:
    """Answers to renewals, the next sent a third of the TTL after the last answer, for ever.

    A renewal without an answer in time, or on a broken stream, goes to another endpoint. It goes on after the
    TTL without an answer: only the cluster knows, and it gives a lease its full time after an election.
    """
    ttl_s = 0
    lapse = _Lapse(lease)
    while True:
        stream = client.stream("Lease/LeaseKeepAlive", rpc_pb2.LeaseKeepAliveResponse)
        try:
            while True:
                patience_s = max(_LEAST_PATIENCE_S, ttl_s / 3) if ttl_s else _FIRST_PATIENCE_S
                answer = _renewed(stream, lease, patience_s)
                client.works(stream)
                ttl_s = answer.TTL
                if ttl_s > 0:
                    lapse.in_s(ttl_s)
                yield answer
                _pause(stream, ttl_s / 3)
        except CallError as error:
            if not stream_breaks(error):
                raise Exit(2, str(request_error(error))) from None
            reason = error.details if error.details in (_ENDED, _SILENT) else str(request_error(error))
        finally:
            stream.cancel()
        client.failed(stream, reason)


def _renewed(
    stream: Stream[rpc_pb2.LeaseKeepAliveResponse], lease: int, limit_s: float | None
) -> rpc_pb2.LeaseKeepAliveResponse:
    """The answer to one renewal. CallError."""
    stream.send(rpc_pb2.LeaseKeepAliveRequest(ID=lease))
    try:
        answer = stream.read(limit_s)
    except TimeoutError:
        raise CallError(grpc.StatusCode.UNAVAILABLE, _SILENT) from None
    if answer is None:
        raise CallError(grpc.StatusCode.UNAVAILABLE, _ENDED)
    return answer


def _pause(stream: Stream[rpc_pb2.LeaseKeepAliveResponse], pause_s: float) -> None:
    """Until the next renewal. CallError: the stream has ended meanwhile."""
    with contextlib.suppress(TimeoutError):
        stream.read(pause_s)
        raise CallError(grpc.StatusCode.UNAVAILABLE, _ENDED)


class _Lapse:
    """Reports a lease that was not renewed for its whole TTL."""

    def __init__(self, lease: int) -> None:
        self._lease = lease
        self._timer: threading.Timer | None = None

    def in_s(self, ttl_s: int) -> None:
        """It was renewed now."""
        if self._timer is not None:
            self._timer.cancel()
        words = (
            f"lease {self._lease:016x} was not renewed for its whole TTL of {ttl_s} s "
            f"and may have ended; trying again")
        self._timer = threading.Timer(ttl_s, say, (words,))
        self._timer.daemon = True
        self._timer.start()
