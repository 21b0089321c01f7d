"""What two servers' answers must have in common: all but what names the server or a clock."""

from __future__ import annotations

import itertools
from typing import Any

from google.protobuf.json_format import MessageToDict

from .endpoints import Refusal, Watched
from .steps import LEASES, Step


def essence(step: Step, result: Any) -> Any:
    """A step's answer as plain data, without what may differ."""
    if isinstance(result, Refusal):
        return ("refused", result.code, result.text)
    if isinstance(result, Watched):
        return {
            "created": result.created, "canceled": result.canceled, "split": result.split,
            "compact_revision": result.compact_revision, "reason": result.reason,
            "events": [_plain(event) for event in result.events]}
    if step.rpc in ("Range", "Txn"):
        result = type(result).FromString(result.SerializeToString())
        (_settle_ties if step.rpc == "Range" else _settle_txn)(step.request, result)
    data = _plain(result)
    if result.DESCRIPTOR.name == "LeaseGrantResponse":
        data["ID"] = _lease(data["ID"])
    if result.DESCRIPTOR.name == "LeaseLeasesResponse":
        data["leases"] = sorted(_lease(lease["ID"]) for lease in data.get("leases", []))
    if result.DESCRIPTOR.name == "LeaseTimeToLiveResponse":
        data["keys"] = sorted(data.get("keys", []))
        data["TTL"] = "dead" if int(data["TTL"]) < 0 else "alive"
    return data


_SORT_FIELDS = ["key", "version", "create_revision", "mod_revision", "value"]


def _settle_ties(request: Any, response: Any) -> None:
    """Put rows of equal rank into key order: etcd's own order of them is its sort routine's accident. If the
    limit has cut rows off, which of the last rank are left is an accident too: only their number stays."""
    if request.sort_target == 0 or not response.kvs:
        return
    rank = _SORT_FIELDS[request.sort_target]
    rows = list(response.kvs)
    last = getattr(rows[-1], rank)
    settled: list[Any] = []
    for row_rank, group in itertools.groupby(rows, key=lambda kv: getattr(kv, rank)):
        members = sorted(group, key=lambda kv: kv.key)
        if response.more and row_rank == last:
            members = [type(rows[0])(**{rank: row_rank}) for _ in members]
        settled += members
    del response.kvs[:]
    response.kvs.extend(settled)


def _settle_txn(request: Any, response: Any) -> None:
    ops = request.success if response.succeeded else request.failure
    for op, answer in zip(ops, response.responses, strict=True):
        if op.HasField("request_range"):
            _settle_ties(op.request_range, answer.response_range)
        elif op.HasField("request_txn"):
            _settle_txn(op.request_txn, answer.response_txn)


def _plain(message: Any) -> dict[str, Any]:
    data: dict[str, Any] = MessageToDict(message, preserving_proto_field_name=True)
    header = data.get("header")
    if header is not None:
        data["header"] = {"revision": header.get("revision")}
    return data


def _lease(lease: str) -> str:
    return lease if int(lease) in LEASES else "chosen by the server"
