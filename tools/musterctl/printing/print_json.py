"""``-w json``: Go's ``encoding/json`` of etcd's generated structs.

Proto field names in field order, no zero values, bytes in base64, 64-bit integers as plain numbers, enums as
numbers. A oneof sits in a wrapper named after it (``{"Response":{...}}``). Responses that clientv3 repacks
(watch, leases) have shapes of their own.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable
from typing import Any, cast

from google.protobuf.message import Message
from muster_client.pb import kv_pb2, rpc_pb2

from cluster.gotext import json_string
from tools.musterctl.printing.records import EndpointHash, EndpointHealth, EndpointStatus


def message(value: Message) -> str:
    """The message as one JSON object."""
    return "{" + ",".join(fields(value)) + "}"


def fields(value: Message) -> list[str]:
    """The members of the message's JSON object."""
    members = []
    oneofs = set()
    for field in value.DESCRIPTOR.fields:
        if field.containing_oneof is not None:
            oneof = field.containing_oneof
            if oneof.name not in oneofs:
                oneofs.add(oneof.name)
                members.append(_oneof(value, oneof.name))
            continue
        content = getattr(value, field.name)
        if field.is_repeated:
            if len(content):
                members.append(f'"{field.name}":[{",".join(_scalar(item) for item in content)}]')
        elif field.message_type is not None:
            if value.HasField(field.name):
                members.append(f'"{field.name}":{message(content)}')
        elif content:
            members.append(f'"{field.name}":{_scalar(content)}')
    return members


def _oneof(value: Message, name: str) -> str:
    chosen = value.WhichOneof(name)
    title = name.capitalize()
    if chosen is None:
        return f'"{title}":null'
    return f'"{title}":{{"{chosen}":{message(getattr(value, chosen))}}}'


def _scalar(value: Any) -> str:
    if isinstance(value, Message):
        return message(value)
    if isinstance(value, bytes):
        return base64(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return json_string(value)
    return str(cast(int, value))


def base64(value: bytes) -> str:
    return f'"{b64encode(value).decode()}"'


def watch(response: rpc_pb2.WatchResponse) -> str:
    """``Created`` is never true, since etcdctl does not ask to see it. An answer without a header is
    clientv3's own, and has no list of events."""
    header = message(response.header)
    listed = ",".join(message(event) for event in cast(Iterable[kv_pb2.Event], response.events))
    events = "null" if header == "{}" and not listed else f"[{listed}]"
    canceled = "true" if response.canceled else "false"
    return (
        f'{{"Header":{header},"Events":{events},"CompactRevision":{response.compact_revision},'
        f'"Canceled":{canceled},"Created":false}}')


def inline(header: rpc_pb2.ResponseHeader, *members: str) -> str:
    """A response whose header's members stand among its own."""
    return "{" + ",".join([*fields(header), *members]) + "}"


def lease_grant(r: rpc_pb2.LeaseGrantResponse) -> str:
    return inline(r.header, f'"ID":{r.ID}', f'"TTL":{r.TTL}', f'"Error":{json_string(r.error)}')


def lease_keep_alive(r: rpc_pb2.LeaseKeepAliveResponse) -> str:
    return inline(r.header, f'"ID":{r.ID}', f'"TTL":{r.TTL}')


def lease_time_to_live(r: rpc_pb2.LeaseTimeToLiveResponse) -> str:
    """No keys is null."""
    keys = f"[{','.join(map(base64, r.keys))}]" if r.keys else "null"
    return inline(
        r.header, f'"id":{r.ID}', f'"ttl":{r.TTL}', f'"granted-ttl":{r.grantedTTL}', f'"keys":{keys}')


def lease_list(r: rpc_pb2.LeaseLeasesResponse) -> str:
    leases = ",".join(f'{{"id":{lease.ID}}}' for lease in r.leases)
    return inline(r.header, f'"leases":[{leases}]')


def member_list_hex(r: rpc_pb2.MemberListResponse) -> str:
    """IDs in hex, and etcdctl 3.5's spelling of clientURLs; no learner flag."""
    members = []
    for member in r.members:
        parts = [f'"ID":"{member.ID:x}"', f'"name":{json_string(member.name)}']
        for name, urls in (("peerURLs", member.peerURLs), ("clientURLS", member.clientURLs)):
            told = f"[{','.join(map(json_string, urls))}]" if urls else "null"
            parts.append(f'"{name}":{told}')
        members.append("{" + ",".join(parts) + "}")
    header = [f'"cluster_id":"{r.header.cluster_id:x}"', f'"member_id":"{r.header.member_id:x}"']
    if r.header.revision:
        header.append(f'"revision":{r.header.revision}')
    if r.header.raft_term:
        header.append(f'"raft_term":{r.header.raft_term}')
    return f'{{"header":{{{",".join(header)}}},"members":[{",".join(members)}]}}'


def endpoint_health(results: list[EndpointHealth]) -> str:
    items = []
    for result in results:
        error = f',"error":{json_string(result.error)}' if result.error else ""
        items.append(
            f'{{"endpoint":{json_string(result.endpoint)},"health":{"true" if result.healthy else "false"},'
            f'"took":{json_string(result.took)}{error}}}')
    return f"[{','.join(items)}]"


def endpoint_status(results: list[EndpointStatus]) -> str:
    items = [f'{{"Endpoint":{json_string(r.endpoint)},"Status":{message(r.response)}}}' for r in results]
    return f"[{','.join(items)}]"


def endpoint_hash(results: list[EndpointHash]) -> str:
    items = [f'{{"Endpoint":{json_string(r.endpoint)},"HashKV":{message(r.response)}}}' for r in results]
    return f"[{','.join(items)}]"
