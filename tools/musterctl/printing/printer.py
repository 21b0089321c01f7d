"""Output formats: :func:`choose` gives the printer of ``--write-out``.

A printer has one method per kind of response. An unsupported one ends the program with code 4, after the
request, as in etcdctl.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

from google.protobuf.message import Message
from muster_client.pb import kv_pb2, rpc_pb2

from cluster.gotext import hex_bytes, text
from tools.musterctl.command import Exit
from tools.musterctl.printing import layout, print_json, print_rows
from tools.musterctl.printing.records import EndpointHash, EndpointHealth, EndpointStatus


def emit(output: str) -> None:
    """Write to stdout as it is."""
    sys.stdout.write(output)


class Printer:
    """One method for each kind of response; :class:`Simple` has their types."""

    kind = ""

    def __init__(self, as_hex: bool) -> None:
        self.as_hex = as_hex

    def operation(self, op: rpc_pb2.ResponseOp) -> bool:
        """Print one response of a transaction; False: it has another kind."""
        kind = op.WhichOneof("response")
        if kind == "response_put":
            self.put(op.response_put)
        elif kind == "response_range":
            self.get(op.response_range)
        elif kind == "response_delete_range":
            self.delete(op.response_delete_range)
        else:
            return False
        return True

    def _unsupported(self, *args: Any, **kwargs: Any) -> None:
        raise Exit(4, f"{self.kind} not supported as output format")

    message = put = get = delete = txn = watch = alarm = move_leader = downgrade = _unsupported
    lease_grant = lease_revoke = lease_keep_alive = lease_time_to_live = lease_list = _unsupported
    member_list = member_changed = endpoint_health = endpoint_status = endpoint_hash = _unsupported


class Simple(Printer):
    kind = "simple"

    def __init__(self, as_hex: bool) -> None:
        super().__init__(as_hex)
        self.value_only = False

    def _pair(self, pair: kv_pb2.KeyValue) -> None:
        show: Callable[[bytes], str] = hex_bytes if self.as_hex else text
        emit(f"{show(pair.value)}\n" if self.value_only else f"{show(pair.key)}\n{show(pair.value)}\n")

    def put(self, r: rpc_pb2.PutResponse) -> None:
        emit("OK\n")
        if r.HasField("prev_kv"):
            self._pair(r.prev_kv)

    def get(self, r: rpc_pb2.RangeResponse) -> None:
        for pair in r.kvs:
            self._pair(pair)

    def delete(self, r: rpc_pb2.DeleteRangeResponse) -> None:
        emit(f"{r.deleted}\n")
        for pair in r.prev_kvs:
            self._pair(pair)

    def txn(self, r: rpc_pb2.TxnResponse) -> None:
        emit("SUCCESS\n" if r.succeeded else "FAILURE\n")
        for op in r.responses:
            emit("\n")
            if not self.operation(op):
                emit(f"unexpected response {text(op.SerializeToString())}\n")

    def watch(self, r: rpc_pb2.WatchResponse) -> None:
        for event in r.events:
            emit("DELETE\n" if event.type else "PUT\n")
            if event.HasField("prev_kv"):
                self._pair(event.prev_kv)
            self._pair(event.kv)

    def lease_grant(self, r: rpc_pb2.LeaseGrantResponse) -> None:
        emit(f"lease {r.ID:016x} granted with TTL({r.TTL}s)\n")

    def lease_revoke(self, lease: int, r: rpc_pb2.LeaseRevokeResponse) -> None:
        emit(f"lease {lease:016x} revoked\n")

    def lease_keep_alive(self, r: rpc_pb2.LeaseKeepAliveResponse) -> None:
        emit(f"lease {r.ID:016x} keepalived with TTL({r.TTL})\n")

    def lease_time_to_live(self, r: rpc_pb2.LeaseTimeToLiveResponse, with_keys: bool) -> None:
        if r.grantedTTL == 0 and r.TTL == -1:
            emit(f"lease {r.ID:016x} already expired\n")
            return
        line = f"lease {r.ID:016x} granted with TTL({r.grantedTTL}s), remaining({r.TTL}s)"
        if with_keys:
            line += f", attached keys([{' '.join(text(key) for key in r.keys)}])"
        emit(line + "\n")

    def lease_list(self, r: rpc_pb2.LeaseLeasesResponse) -> None:
        emit(f"found {len(r.leases)} leases\n")
        for lease in r.leases:
            emit(f"{lease.ID:016x}\n")

    def _rows(self, rows: Sequence[Sequence[str]]) -> None:
        for row in rows:
            emit(", ".join(row) + "\n")

    def member_list(self, r: rpc_pb2.MemberListResponse) -> None:
        self._rows(print_rows.members(r))

    def member_changed(self, what: str, member_id: int, r: Any) -> None:
        where = {"added": "to", "removed": "from"}.get(what, "in")
        emit(f"Member {member_id:16x} {what} {where} cluster {r.header.cluster_id:16x}\n")

    def endpoint_health(self, results: list[EndpointHealth]) -> None:
        for r in results:
            if r.healthy:
                emit(f"{r.endpoint} is healthy: successfully committed proposal: took = {r.took}\n")
            else:
                print(f"{r.endpoint} is unhealthy: failed to commit proposal: {r.error}", file=sys.stderr)

    def endpoint_status(self, results: list[EndpointStatus]) -> None:
        self._rows(print_rows.statuses(results))

    def endpoint_hash(self, results: list[EndpointHash]) -> None:
        self._rows(print_rows.hashes(results))

    def alarm(self, r: rpc_pb2.AlarmResponse) -> None:
        for alarm in r.alarms:
            emit(alarm_text(alarm) + "\n")

    def move_leader(self, leader: int, target: int, r: rpc_pb2.MoveLeaderResponse) -> None:
        emit(f"Leadership transferred from {leader:x} to {target:x}\n")

    def downgrade(self, action: str, r: rpc_pb2.DowngradeResponse) -> None:
        emit(f"Downgrade {action} success, cluster version {r.version}\n")


def alarm_text(alarm: rpc_pb2.AlarmMember) -> str:
    """``memberID:123 alarm:NOSPACE `` with the trailing blank of Go's compact text."""
    member = f"memberID:{alarm.memberID} " if alarm.memberID else ""
    return member + (f"alarm:{rpc_pb2.AlarmType.Name(alarm.alarm)} " if alarm.alarm else "")


class Table(Printer):
    kind = "table"

    def member_list(self, r: rpc_pb2.MemberListResponse) -> None:
        emit(layout.grid(print_rows.MEMBER_HEADER, print_rows.members(r)))

    def endpoint_health(self, results: list[EndpointHealth]) -> None:
        emit(layout.grid(print_rows.HEALTH_HEADER, print_rows.health(results)))

    def endpoint_status(self, results: list[EndpointStatus]) -> None:
        emit(layout.grid(print_rows.STATUS_HEADER, print_rows.statuses(results)))

    def endpoint_hash(self, results: list[EndpointHash]) -> None:
        emit(layout.grid(print_rows.HASH_HEADER, print_rows.hashes(results)))


class Json(Printer):
    """One line per response."""

    kind = "json"

    def _message(self, r: Message) -> None:
        emit(print_json.message(r) + "\n")

    def _last(self, *args: Any) -> None:
        self._message(args[-1])

    message = put = get = delete = txn = alarm = _message
    lease_revoke = member_changed = move_leader = downgrade = _last

    def watch(self, r: rpc_pb2.WatchResponse) -> None:
        emit(print_json.watch(r) + "\n")

    def lease_grant(self, r: rpc_pb2.LeaseGrantResponse) -> None:
        emit(print_json.lease_grant(r) + "\n")

    def lease_keep_alive(self, r: rpc_pb2.LeaseKeepAliveResponse) -> None:
        emit(print_json.lease_keep_alive(r) + "\n")

    def lease_time_to_live(self, r: rpc_pb2.LeaseTimeToLiveResponse, with_keys: bool) -> None:
        emit(print_json.lease_time_to_live(r) + "\n")

    def lease_list(self, r: rpc_pb2.LeaseLeasesResponse) -> None:
        emit(print_json.lease_list(r) + "\n")

    def member_list(self, r: rpc_pb2.MemberListResponse) -> None:
        emit((print_json.member_list_hex(r) if self.as_hex else print_json.message(r)) + "\n")

    def endpoint_health(self, results: list[EndpointHealth]) -> None:
        emit(print_json.endpoint_health(results) + "\n")

    def endpoint_status(self, results: list[EndpointStatus]) -> None:
        emit(print_json.endpoint_status(results) + "\n")

    def endpoint_hash(self, results: list[EndpointHash]) -> None:
        emit(print_json.endpoint_hash(results) + "\n")


class Protobuf(Printer):
    """The encoded response, no newline.

    Of grants, keep-alives and lease lists etcdctl 3.5 writes only the encoded *header*, which is all that
    clientv3's repacked structs can encode. That of a revocation encodes nothing.
    """

    kind = "protobuf"

    def _message(self, r: Message) -> None:
        emit(text(r.SerializeToString()))

    def _last(self, *args: Any) -> None:
        self._message(args[-1])

    def _header(self, r: Any, *args: Any) -> None:
        self._message(r.header)

    message = put = get = delete = txn = member_list = alarm = _message
    member_changed = move_leader = downgrade = _last
    lease_grant = lease_keep_alive = lease_time_to_live = lease_list = _header

    def lease_revoke(self, lease: int, r: rpc_pb2.LeaseRevokeResponse) -> None:
        header = "".join(f"{field.name}:{value} " for field, value in r.header.ListFields())
        shown = f"{{{header} {{}} [] 0}}"  # as Go prints the structure
        raise Exit(4, f"marshal unsupported for type clientv3.LeaseRevokeResponse ({shown})")

    def watch(self, r: rpc_pb2.WatchResponse) -> None:
        shown = rpc_pb2.WatchResponse()
        shown.CopyFrom(r)
        shown.watch_id = 0
        shown.ClearField("cancel_reason")
        self._message(shown)


def choose(name: str, as_hex: bool) -> Printer:
    """Exit 4 if there is none."""
    if name == "fields":
        from tools.musterctl.printing.print_fields import Fields

        return Fields(as_hex)
    kinds: dict[str, type[Printer]] = {"simple": Simple, "json": Json, "protobuf": Protobuf, "table": Table}
    kind = kinds.get(name)
    if kind is None:
        raise Exit(4, "unsupported output format")
    return kind(as_hex)
