"""``-w fields``: one ``"Name" : value`` line per field."""

from __future__ import annotations

from cluster.pb import kv_pb2, rpc_pb2
from tools.musterctl.printing.gotext import quote
from tools.musterctl.printing.print_rows import go_bool
from tools.musterctl.printing.printer import Printer, emit
from tools.musterctl.printing.records import EndpointHash, EndpointHealth, EndpointStatus


def _line(name: str, value: object) -> None:
    emit(f'"{name}" : {value}\n')


def _header(header: rpc_pb2.ResponseHeader) -> None:
    _line("ClusterID", header.cluster_id)
    _line("MemberID", header.member_id)
    _line("Revision", header.revision)
    _line("RaftTerm", header.raft_term)


def _pair(prefix: str, pair: kv_pb2.KeyValue) -> None:
    _line(f"{prefix}Key", quote(pair.key))
    _line(f"{prefix}CreateRevision", pair.create_revision)
    _line(f"{prefix}ModRevision", pair.mod_revision)
    _line(f"{prefix}Version", pair.version)
    _line(f"{prefix}Value", quote(pair.value))
    _line(f"{prefix}Lease", pair.lease)


class Fields(Printer):
    """etcdctl 3.5's form: IDs always in decimal, the revision always there."""

    kind = "fields"

    def put(self, r: rpc_pb2.PutResponse) -> None:
        _header(r.header)
        if r.HasField("prev_kv"):
            _pair("Prev", r.prev_kv)

    def get(self, r: rpc_pb2.RangeResponse) -> None:
        _header(r.header)
        for pair in r.kvs:
            _pair("", pair)
        _line("More", go_bool(r.more))
        _line("Count", r.count)

    def delete(self, r: rpc_pb2.DeleteRangeResponse) -> None:
        _header(r.header)
        _line("Deleted", r.deleted)
        for pair in r.prev_kvs:
            _pair("Prev", pair)

    def txn(self, r: rpc_pb2.TxnResponse) -> None:
        _header(r.header)
        _line("Succeeded", go_bool(r.succeeded))
        for op in r.responses:
            kind = op.WhichOneof("response")
            if kind == "response_put":
                self.put(op.response_put)
            elif kind == "response_range":
                self.get(op.response_range)
            elif kind == "response_delete_range":
                self.delete(op.response_delete_range)
            else:
                _line("Unknown", quote(op.SerializeToString()))

    def watch(self, r: rpc_pb2.WatchResponse) -> None:
        _header(r.header)
        for event in r.events:
            _line("Type", "DELETE" if event.type else "PUT")
            if event.HasField("prev_kv"):
                _pair("Prev", event.prev_kv)
            _pair("", event.kv)

    def lease_grant(self, r: rpc_pb2.LeaseGrantResponse) -> None:
        _header(r.header)
        _line("ID", r.ID)
        _line("TTL", r.TTL)

    def lease_revoke(self, lease: int, r: rpc_pb2.LeaseRevokeResponse) -> None:
        _header(r.header)

    def lease_keep_alive(self, r: rpc_pb2.LeaseKeepAliveResponse) -> None:
        _header(r.header)
        _line("ID", r.ID)
        _line("TTL", r.TTL)

    def lease_time_to_live(self, r: rpc_pb2.LeaseTimeToLiveResponse, with_keys: bool) -> None:
        _header(r.header)
        _line("ID", r.ID)
        _line("TTL", r.TTL)
        _line("GrantedTTL", r.grantedTTL)
        for key in r.keys:
            _line("Key", quote(key))

    def lease_list(self, r: rpc_pb2.LeaseLeasesResponse) -> None:
        _header(r.header)
        for lease in r.leases:
            _line("ID", lease.ID)

    def member_list(self, r: rpc_pb2.MemberListResponse) -> None:
        _header(r.header)
        for member in r.members:
            _line("ID", member.ID)
            _line("Name", quote(member.name))
            for url in member.peerURLs:
                _line("PeerURL", quote(url))
            for url in member.clientURLs:
                _line("ClientURL", quote(url))
            _line("IsLearner", go_bool(member.isLearner))
            emit("\n")

    def endpoint_health(self, results: list[EndpointHealth]) -> None:
        for result in results:
            _line("Endpoint", quote(result.endpoint))
            _line("Health", go_bool(result.healthy))
            _line("Took", result.took)
            _line("Error", result.error)
            emit("\n")

    def endpoint_status(self, results: list[EndpointStatus]) -> None:
        for result in results:
            r = result.response
            _header(r.header)
            _line("Version", quote(r.version))
            _line("DBSize", r.dbSize)
            _line("Leader", r.leader)
            _line("IsLearner", go_bool(r.isLearner))
            _line("RaftIndex", r.raftIndex)
            _line("RaftTerm", r.raftTerm)
            _line("RaftAppliedIndex", r.raftAppliedIndex)
            _line("Errors", f"[{' '.join(r.errors)}]")
            _line("Endpoint", quote(result.endpoint))
            emit("\n")

    def endpoint_hash(self, results: list[EndpointHash]) -> None:
        for result in results:
            _header(result.response.header)
            _line("Endpoint", quote(result.endpoint))
            _line("Hash", result.response.hash)
            emit("\n")

    def alarm(self, r: rpc_pb2.AlarmResponse) -> None:
        _header(r.header)
        for alarm in r.alarms:
            _line("MemberID", alarm.memberID)
            _line("AlarmType", rpc_pb2.AlarmType.Name(alarm.alarm))
            emit("\n")
