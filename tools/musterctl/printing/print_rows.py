"""Rows of commands with a table: their cells are also the simple output."""

from __future__ import annotations

from collections.abc import Sequence

from muster_client.pb import rpc_pb2

from cluster.gotext import si_bytes
from tools.musterctl.printing.records import EndpointHash, EndpointHealth, EndpointStatus

MEMBER_HEADER = ("ID", "STATUS", "NAME", "PEER ADDRS", "CLIENT ADDRS", "IS LEARNER")
HEALTH_HEADER = ("ENDPOINT", "HEALTH", "TOOK", "ERROR")
HASH_HEADER = ("ENDPOINT", "HASH")
STATUS_HEADER = (
    "ENDPOINT", "ID", "VERSION", "DB SIZE", "IS LEADER", "IS LEARNER", "RAFT TERM", "RAFT INDEX",
    "RAFT APPLIED INDEX", "ERRORS")


def go_bool(value: bool) -> str:
    return "true" if value else "false"


def members(r: rpc_pb2.MemberListResponse) -> list[list[str]]:
    """A member without a name has not started yet."""
    return [
        [
            f"{m.ID:x}",
            "started" if m.name else "unstarted",
            m.name,
            ",".join(m.peerURLs),
            ",".join(m.clientURLs),
            go_bool(m.isLearner),
        ]
        for m in r.members
    ]


def health(results: Sequence[EndpointHealth]) -> list[list[str]]:
    return [[r.endpoint, go_bool(r.healthy), r.took, r.error] for r in results]


def hashes(results: Sequence[EndpointHash]) -> list[list[str]]:
    return [[r.endpoint, str(r.response.hash)] for r in results]


def statuses(results: Sequence[EndpointStatus]) -> list[list[str]]:
    rows = []
    for result in results:
        r = result.response
        rows.append(
            [
                result.endpoint,
                f"{r.header.member_id:x}",
                r.version,
                si_bytes(r.dbSize),
                go_bool(r.leader == r.header.member_id),
                go_bool(r.isLearner),
                str(r.raftTerm),
                str(r.raftIndex),
                str(r.raftAppliedIndex),
                ", ".join(r.errors),
            ])
    return rows
