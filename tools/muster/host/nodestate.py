"""The state of a host's nodes, asked by the protocol of their fronts."""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from typing import Any

import zmq

from cluster.members.table import Host, decode_all
from cluster.wire.link import Answers, AskingEnd
from cluster.wire.messages import STATE_BODY, Status

_LIMIT_S = 0.5  # of all that are asked


def states(
    run_dir: str, cluster_id: int, member_id: int, shards: Sequence[int]
) -> tuple[dict[int, dict[str, Any]], dict[int, Host]]:
    """Leader, term and indexes by shard, and the hosts that node 0 knows, which it tells with its own. A node
    without an answer in time is left out."""
    found: dict[int, dict[str, Any]] = {}
    hosts: dict[int, Host] = {}
    deadline = time.monotonic() + _LIMIT_S
    with zmq.Context(io_threads=1) as context:
        poller = zmq.Poller()
        hellos: dict[zmq.Socket[bytes], bytes] = {}
        ends: dict[zmq.Socket[bytes], AskingEnd] = {}
        try:
            for shard in shards:
                s = context.socket(zmq.DEALER)
                s.setsockopt(zmq.LINGER, 0)
                # writable means connected: nothing is queued for a stopped node
                s.setsockopt(zmq.IMMEDIATE, 1)
                s.connect(f"ipc://{run_dir}/node-{shard}.sock")
                end = ends[s] = AskingEnd()
                hellos[s] = end.frame([end.hello(cluster_id, member_id, secrets.randbits(64))])
                poller.register(s, zmq.POLLOUT)
            while len(found) < len(hellos) and (left_s := deadline - time.monotonic()) > 0:
                for s, events in poller.poll(int(left_s * 1000) + 1):
                    if events & zmq.POLLOUT:
                        s.send(hellos[s])
                        poller.modify(s, zmq.POLLIN)
                    elif events & zmq.POLLIN:
                        answers = ends[s].opened(s.recv(), time.monotonic())
                        found |= _states_in(answers)
                        hosts |= _hosts_in(answers)
        finally:
            for s in hellos:
                s.close()
    return found, hosts


def _states_in(answers: Answers) -> dict[int, dict[str, Any]]:
    found: dict[int, dict[str, Any]] = {}
    for rid, status, body in answers:
        if rid == 0 and status == Status.STATE:
            shard, leader, term, commit, applied, revision = STATE_BODY.unpack(body)
            found[shard] = {
                "leader": f"{leader:x}" if leader else "", "term": term,
                "commit_index": commit, "applied_index": applied, "revision": revision,
            }  # fmt: skip
    return found


def _hosts_in(answers: Answers) -> dict[int, Host]:
    return {
        host.member_id: host
        for rid, status, body in answers if rid == 0 and status == Status.MEMBERS
        for host in decode_all(body)
    }  # fmt: skip
