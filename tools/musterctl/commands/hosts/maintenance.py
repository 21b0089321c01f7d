"""``member list``, ``alarm``, ``defrag``, ``version``, ``peer-keys``."""

from __future__ import annotations

import sys

import tools.musterctl as musterctl
from cluster.gotext import quote
from tools.musterctl.command import Exit, Invocation


def version(invocation: Invocation) -> None:
    from tools.musterctl.usage import version as muster_version

    print(f"musterctl version: {muster_version()}")
    print(f"API version: {musterctl.API_VERSION}")


def member_list(invocation: Invocation) -> None:
    """Asks the leader, or with ``--consistency=s`` the member alone."""
    from muster_client.pb import rpc_pb2

    from tools.musterctl.client import session

    consistency = invocation.flags.string("consistency")
    if consistency not in ("l", "s"):
        raise Exit(4, f"unknown consistency flag {quote(consistency)}")
    s = session(invocation)
    request = rpc_pb2.MemberListRequest(linearizable=consistency == "l")
    r = s.ask("Cluster/MemberList", request, rpc_pb2.MemberListResponse, True)
    s.printer.member_list(r)


def alarm_list(invocation: Invocation) -> None:
    from muster_client.pb import rpc_pb2

    from tools.musterctl.client import session

    if invocation.args:
        raise Exit(128, "alarm list command accepts no arguments")
    s = session(invocation)
    r = s.ask("Maintenance/Alarm", rpc_pb2.AlarmRequest(), rpc_pb2.AlarmResponse)
    s.printer.alarm(r)


def alarm_disarm(invocation: Invocation) -> None:
    """Every active alarm; the answer has no header, as clientv3's."""
    from muster_client.pb import rpc_pb2

    from tools.musterctl.client import failing_with, session

    if invocation.args:
        raise Exit(128, "alarm disarm command accepts no arguments")
    s = session(invocation)
    client = s.client()
    disarmed = rpc_pb2.AlarmResponse()
    with failing_with():
        active = client.unary("Maintenance/Alarm", rpc_pb2.AlarmRequest(), rpc_pb2.AlarmResponse, s.timeout_s)
        for alarm in active.alarms:
            request = rpc_pb2.AlarmRequest(action="DEACTIVATE", memberID=alarm.memberID, alarm=alarm.alarm)
            r = client.unary("Maintenance/Alarm", request, rpc_pb2.AlarmResponse, s.timeout_s)
            disarmed.alarms.extend(r.alarms)
    s.printer.alarm(disarmed)


def defrag(invocation: Invocation) -> None:
    """Each endpoint in turn, or the data of a stopped host."""
    if data_dir := invocation.flags.string("data-dir"):
        _defrag_offline(data_dir)
        return
    from muster_client.pb import rpc_pb2

    from tools.musterctl.client import RequestError, session
    from tools.musterctl.commands.hosts.endpoint import endpoints

    s = session(invocation)
    failed = False
    for endpoint in endpoints(invocation, s):
        try:
            request = rpc_pb2.DefragmentRequest()
            s.client(endpoint).unary(
                "Maintenance/Defragment", request, rpc_pb2.DefragmentResponse, s.timeout_s)
            print(f"Finished defragmenting etcd member[{endpoint}]", flush=True)
        except RequestError as error:
            print(f"Failed to defragment etcd member[{endpoint}] ({error})", file=sys.stderr)
            failed = True
    if failed:
        raise Exit(1)


def _defrag_offline(data_dir: str) -> None:
    from tools.muster.config.parse import ConfigError
    from tools.muster.host.defragment import defragment

    try:
        defragment(data_dir)
    except ConfigError as error:
        raise Exit(1, f"Failed to defragment etcd data[{data_dir}] ({error})") from None
    print(f"Finished defragmenting etcd data[{data_dir}]")


def peer_keys(invocation: Invocation) -> None:
    """The key file that all hosts of a cluster share."""
    from tools.muster import peer_keys

    if len(invocation.args) != 1:
        raise Exit(128, "peer-keys command needs a file name as argument")
    try:
        peer_keys.generate(invocation.args[0])
    except OSError as error:
        raise Exit(1, f"open {invocation.args[0]}: {(error.strerror or '').lower()}") from None
    print(f"Peer keys saved at {invocation.args[0]}")
