"""What this replica reports about itself and its applied state: members, status, alarms, hashes, figures."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from cluster import errors
from cluster.errors import EtcdError
from cluster.evaluate.validate import parse
from cluster.features import downgrade
from cluster.histogram import HASH_S, Histogram
from cluster.pb import rpc_pb2
from cluster.settings import NodeSettings
from cluster.version import CLUSTER_VERSION
from node.links.fronts import FrontLink
from node.machine import NodeMachine
from node.slicing.slicer import Slices
from node.storage import StateStore

if TYPE_CHECKING:
    from cluster.raft import Raft
    from node.members.roster import Roster
    from node.storage.state.slices.hashing import StateHash


class MaintenanceNode(Protocol):
    settings: NodeSettings
    machine: NodeMachine
    raft: Raft
    store: StateStore
    roster: Roster
    applied_index: int


class Maintenance:
    """``facts`` and ``counters``: what it reports about the node, as JSON."""

    def __init__(
        self, node: MaintenanceNode, facts: Callable[[], dict[str, Any]],
        counters: Callable[[], dict[str, Any]],
    ) -> None:
        self._node = node
        self._store = node.store
        self._facts = facts
        self._counters = counters
        self.hashes, self.hash_revs = Histogram(HASH_S), Histogram(HASH_S)

    def _term(self) -> int:
        return self._node.raft.term

    def members(self, link: FrontLink, rid: int, revision: int, body: bytes) -> None:
        answer = rpc_pb2.MemberListResponse(members=self._node.roster.listed())
        link.ok(rid, 0, self._term(), answer.SerializeToString())

    def status(self, link: FrontLink, rid: int, revision: int, body: bytes) -> None:
        node, raft = self._node, self._node.raft
        answer = rpc_pb2.StatusResponse(
            dbSize=max(self._store.size_bytes(), 1), dbSizeInUse=max(self._store.size_in_use_bytes(), 1),
            leader=raft.leader_id, raftIndex=raft.commit_index, raftTerm=raft.term,
            raftAppliedIndex=node.applied_index,
            isLearner=node.roster.table.learner(node.settings.common.member_id),
            dbSizeQuota=node.settings.quota_backend_bytes)
        target = self._store.meta(downgrade.META)
        answer.downgradeInfo.enabled = target is not None
        answer.downgradeInfo.targetVersion = (target or b"").decode()
        if not raft.leader_id:
            answer.errors.append("etcdserver: no leader")
        for member_id, kind in self._store.alarms():  # as etcd writes an AlarmMember
            member = f"memberID:{member_id} " if member_id else ""
            answer.errors.append(f"{member}alarm:{rpc_pb2.AlarmType.Name(kind)} ")
        link.ok(rid, self._store.revision, raft.term, answer.SerializeToString())

    def counters(self, link: FrontLink, rid: int, revision: int, body: bytes) -> None:
        link.ok(rid, self._store.revision, self._term(), json.dumps(self._counters()).encode())

    def facts(self, link: FrontLink, rid: int, revision: int, body: bytes) -> None:
        link.ok(rid, self._store.revision, self._term(), json.dumps(self._facts()).encode())

    def alarms(self, link: FrontLink, rid: int, revision: int, body: bytes) -> None:
        wanted = rpc_pb2.AlarmRequest.FromString(body).alarm
        answer = rpc_pb2.AlarmResponse(alarms=[
            rpc_pb2.AlarmMember(memberID=member_id, alarm=kind)  # type: ignore[arg-type]  # an enum's number
            for member_id, kind in self._store.alarms() if wanted in (rpc_pb2.NONE, kind)])
        link.ok(rid, self._store.revision, self._term(), answer.SerializeToString())

    def may_downgrade(self, link: FrontLink, rid: int, revision: int, body: bytes) -> None:
        """VALIDATE: whether a downgrade to that version may begin."""
        request = parse(rpc_pb2.DowngradeRequest.FromString, body)
        downgrade.check_target(request.version, self._store.meta(downgrade.META))
        answer = rpc_pb2.DowngradeResponse(version=CLUSTER_VERSION)
        link.ok(rid, self._store.revision, self._term(), answer.SerializeToString())

    def hash_kv(self, link: FrontLink, rid: int, revision: int, body: bytes) -> Slices:
        wanted = revision or rpc_pb2.HashKVRequest.FromString(body).revision
        store = self._store
        if wanted > store.revision:
            raise EtcdError(errors.FUTURE_REV)
        if 0 < wanted < store.compact_revision:
            raise EtcdError(errors.COMPACTED)
        # of what its client was judged by; more may be applied before it is done
        return self._hashed_revision(link, rid, store.hash_kv(wanted), store.revision)

    def _hashed_revision(self, link: FrontLink, rid: int, hashing: StateHash, shown: int) -> Slices:
        began = self._node.machine.perf_counter()
        while not hashing.step(200):
            yield
        self.hash_revs.observe(self._node.machine.perf_counter() - began)
        answer = rpc_pb2.HashKVResponse(
            hash=hashing.value, compact_revision=hashing.compact_revision or -1,
            hash_revision=hashing.revision)
        link.ok(rid, shown, self._term(), answer.SerializeToString())

    def hash_all(self, link: FrontLink, rid: int, revision: int, body: bytes) -> Slices:
        """Of all that is applied."""
        return self._hashed_all(link, rid, self._store.hash_written(), self._store.revision)

    def _hashed_all(self, link: FrontLink, rid: int, hashing: StateHash, shown: int) -> Slices:
        began = self._node.machine.perf_counter()
        while not hashing.step(200):
            yield
        self.hashes.observe(self._node.machine.perf_counter() - began)
        link.ok(rid, shown, self._term(), rpc_pb2.HashResponse(hash=hashing.value).SerializeToString())
