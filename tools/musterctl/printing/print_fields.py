"""``-w fields``: one ``"Name" : value`` line per field."""

from __future__ import annotations

from muster_client.pb import kv_pb2, rpc_pb2

from cluster.gotext import quote
from tools.musterctl.printing.print_rows import go_bool
from tools.musterctl.printing.printer import Printer, emit
from tools.musterctl.printing.records import EndpointHash, EndpointHealth, EndpointStatus


def line(name: str, value: object) -> None:
    emit(f'"{name}" : {value}\n')


def header(of: rpc_pb2.ResponseHeader) -> None:
    line("ClusterID", of.cluster_id)
    line("MemberID", of.member_id)
    line("Revision", of.revision)
    line("RaftTerm", of.raft_term)


def _pair(prefix: str, pair: kv_pb2.KeyValue) -> None:
    line(f"{prefix}Key", quote(pair.key))
    line(f"{prefix}CreateRevision", pair.create_revision)
    line(f"{prefix}ModRevision", pair.mod_revision)
    line(f"{prefix}Version", pair.version)
    line(f"{prefix}Value", quote(pair.value))
    line(f"{prefix}Lease", pair.lease)


class Fields(Printer):
    """etcdctl 3.5's form: IDs always in decimal, the revision always there."""

    kind = "fields"

    def put(self, r: rpc_pb2.PutResponse) -> None:
        header(r.header)
        if r.HasField("prev_kv"):
            _pair("Prev", r.prev_kv)

    def get(self, r: rpc_pb2.RangeResponse) -> None:
        header(r.header)
        for pair in r.kvs:
            _pair("", pair)
        line("More", go_bool(r.more))
        line("Count", r.count)

    def delete(self, r: rpc_pb2.DeleteRangeResponse) -> None:
        header(r.header)
        line("Deleted", r.deleted)
        for pair in r.prev_kvs:
            _pair("Prev", pair)

    def txn(self, r: rpc_pb2.TxnResponse) -> None:
        header(r.header)
        line("Succeeded", go_bool(r.succeeded))
        for op in r.responses:
            if not self.operation(op):
                line("Unknown", quote(op.SerializeToString()))

    def watch(self, r: rpc_pb2.WatchResponse) -> None:
        header(r.header)
        for event in r.events:
            line("Type", "DELETE" if event.type else "PUT")
            if event.HasField("prev_kv"):
                _pair("Prev", event.prev_kv)
            _pair("", event.kv)

    def lease_grant(self, r: rpc_pb2.LeaseGrantResponse) -> None:
        header(r.header)
        line("ID", r.ID)
        line("TTL", r.TTL)

    def lease_revoke(self, lease: int, r: rpc_pb2.LeaseRevokeResponse) -> None:
        header(r.header)

    def lease_keep_alive(self, r: rpc_pb2.LeaseKeepAliveResponse) -> None:
        header(r.header)
        line("ID", r.ID)
        line("TTL", r.TTL)

    def lease_time_to_live(self, r: rpc_pb2.LeaseTimeToLiveResponse, with_keys: bool) -> None:
        header(r.header)
        line("ID", r.ID)
        line("TTL", r.TTL)
        line("GrantedTTL", r.grantedTTL)
        for key in r.keys:
            line("Key", quote(key))

    def lease_list(self, r: rpc_pb2.LeaseLeasesResponse) -> None:
        header(r.header)
        for lease in r.leases:
            line("ID", lease.ID)

    def member_list(self, r: rpc_pb2.MemberListResponse) -> None:
        header(r.header)
        for member in r.members:
            line("ID", member.ID)
            line("Name", quote(member.name))
            for url in member.peerURLs:
                line("PeerURL", quote(url))
            for url in member.clientURLs:
                line("ClientURL", quote(url))
            line("IsLearner", go_bool(member.isLearner))
            emit("\n")

    def endpoint_health(self, results: list[EndpointHealth]) -> None:
        for result in results:
            line("Endpoint", quote(result.endpoint))
            line("Health", go_bool(result.healthy))
            line("Took", result.took)
            line("Error", result.error)
            emit("\n")

    def endpoint_status(self, results: list[EndpointStatus]) -> None:
        for result in results:
            r = result.response
            header(r.header)
            line("Version", quote(r.version))
            line("DBSize", r.dbSize)
            line("Leader", r.leader)
            line("IsLearner", go_bool(r.isLearner))
            line("RaftIndex", r.raftIndex)
            line("RaftTerm", r.raftTerm)
            line("RaftAppliedIndex", r.raftAppliedIndex)
            line("Errors", f"[{' '.join(r.errors)}]")
            line("Endpoint", quote(result.endpoint))
            emit("\n")

    def endpoint_hash(self, results: list[EndpointHash]) -> None:
        for result in results:
            header(result.response.header)
            line("Endpoint", quote(result.endpoint))
            line("Hash", result.response.hash)
            emit("\n")

    def alarm(self, r: rpc_pb2.AlarmResponse) -> None:
        header(r.header)
        for alarm in r.alarms:
            line("MemberID", alarm.memberID)
            line("AlarmType", rpc_pb2.AlarmType.Name(alarm.alarm))
            emit("\n")
