"""``lease grant``, ``revoke``, ``timetolive``, ``list``, ``keep-alive``."""

from __future__ import annotations

import sys
import threading

from muster_client.pb import rpc_pb2

from cluster.errors import LEASE_NOT_FOUND
from cluster.gotext import GoError, parse_int
from tools.client.channels import say
from tools.musterctl.client import failing_with, session
from tools.musterctl.command import Exit, Invocation


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
    with failing_with(2):
        if invocation.flags.switch("once"):
            r = client.run(client.raw().renew(lease, on_again=client.again_elsewhere()))
            if r.TTL == 0:
                raise Exit(2, LEASE_NOT_FOUND.text)
            s.printer.lease_keep_alive(r)
            return
        lapse, served, first = _Lapse(lease), False, client.again_elsewhere(())
        renewals = client.raw().renewals(
            lease, on_again=lambda error: client.again(error) if served else first(error))
        for answer in client.each(renewals):
            served = True
            if answer.TTL > 0:
                lapse.in_s(answer.TTL)
                s.printer.lease_keep_alive(answer)
                sys.stdout.flush()
    if s.printer.kind == "simple":
        print(f"lease {lease:016x} expired or revoked.")


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
