"""``move-leader`` and ``downgrade``."""

from __future__ import annotations

from muster_client.pb import rpc_pb2

from cluster.gotext import GoError, parse_uint
from tools.musterctl.client import RequestError, failing_with, session
from tools.musterctl.command import Exit, Invocation


def move_leader(invocation: Invocation) -> None:
    """Asked at the leader, which must be among the endpoints."""
    if len(invocation.args) != 1:
        raise Exit(128, "move-leader command needs 1 argument")
    try:
        target = parse_uint(invocation.args[0], 16)
    except GoError as error:
        raise Exit(128, str(error)) from None
    s = session(invocation)
    for endpoint in s.config.endpoints:
        client = s.client(endpoint)
        try:
            status = client.unary(
                "Maintenance/Status", rpc_pb2.StatusRequest(), rpc_pb2.StatusResponse, s.timeout_s
            )
        except RequestError as error:  # etcdctl cannot connect where there is no login
            raise Exit(2 if client.logs_in else 1, str(error)) from None
        if status.header.member_id != status.leader:
            continue
        with failing_with():
            r = client.unary(
                "Maintenance/MoveLeader",
                rpc_pb2.MoveLeaderRequest(targetID=target),
                rpc_pb2.MoveLeaderResponse,
                s.timeout_s)
        s.printer.move_leader(status.leader, target, r)
        return
    raise Exit(128, f"no leader endpoint given at [{' '.join(s.config.endpoints)}]")


def downgrade_validate(invocation: Invocation) -> None:
    _downgrade(invocation, "VALIDATE", _version(invocation))


def downgrade_enable(invocation: Invocation) -> None:
    _downgrade(invocation, "ENABLE", _version(invocation))


def downgrade_cancel(invocation: Invocation) -> None:
    _downgrade(invocation, "CANCEL", "")


def _version(invocation: Invocation) -> str:
    if not invocation.args:
        raise Exit(128, "TARGET_VERSION not provided")
    if len(invocation.args) > 1:
        raise Exit(128, "too many arguments")
    if not invocation.args[0]:
        raise Exit(128, "target version not provided")
    return invocation.args[0]


def _downgrade(invocation: Invocation, action: str, version: str) -> None:
    s = session(invocation)
    request = rpc_pb2.DowngradeRequest(action=action, version=version)
    r = s.ask("Maintenance/Downgrade", request, rpc_pb2.DowngradeResponse)
    s.printer.downgrade(action.lower(), r)
