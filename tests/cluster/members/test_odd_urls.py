"""Peer URLs of members that nobody can dial: what an etcd refuses is refused, and the rest ends no process.

A name with an octet of zero once ended all nodes, again at every start; with a key file so did one of other
letters than ASCII's.
"""

from __future__ import annotations

from pathlib import Path

import grpc
import pytest

from cluster.pb import rpc_pb2 as pb
from tests.cluster.local_cluster import until
from tests.cluster.members.hosts import LIMIT_S, Hosts, works
from tools.muster import peer_keys

REFUSED = ["http://a\x00b:1", "http://a\tb:1", "http://a b:1", "http:// :1", "http://a|b:1", "http://a%41:1"]
TAKEN = [
    "http://*:1", "http://äö.☃:1", "http://a..b:1", 'http://a<b>"c:1', f"http://{'x' * 300}:1", "http://:1",
    f"unix://{'y' * 200}:1", "http://[::1%25zz]:1",
]  # fmt: skip


@pytest.mark.timeout(300)
@pytest.mark.parametrize("keyed", [False, True], ids=["in clear", "with keys"])
def test_an_address_that_nobody_can_dial_ends_no_process(tmp_path: Path, keyed: bool) -> None:
    hosts = Hosts(tmp_path, 2)
    flags = [f"--initial-cluster=h0={hosts.peer(0)}", "--shards=2", "--max-learners=20"]
    if keyed:
        peer_keys.generate(str(tmp_path / "keys.json"))
        flags.append(f"--peer-key-file={tmp_path / 'keys.json'}")
    try:
        hosts.start(0, *flags)
        until(lambda: hosts.member(0).name, LIMIT_S)
        for url in REFUSED:
            with pytest.raises(grpc.RpcError) as refused:
                added(hosts, url)
            assert refused.value.details() == "etcdserver: given member URLs are invalid"
        for url in TAKEN:
            assert added(hosts, url).member.ID
        assert len(hosts.members()) == 1 + len(TAKEN)
        first = hosts.running[0]
        assert first.poll() is None
        first.terminate()
        assert first.wait(60) == 0
        hosts.start(0, *flags)
        put = pb.PutRequest(key=b"k", value=b"v")
        until(lambda: works(lambda: hosts.call(0, "KV/Put", put, pb.PutResponse)), LIMIT_S)
        assert "crashed" not in hosts.log(0)
    finally:
        hosts.close()


def added(hosts: Hosts, url: str) -> pb.MemberAddResponse:
    request = pb.MemberAddRequest(peerURLs=[url], isLearner=True)
    response: pb.MemberAddResponse = hosts.call(0, "Cluster/MemberAdd", request, pb.MemberAddResponse)
    return response
