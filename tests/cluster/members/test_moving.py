"""A member moves to another machine by the steps of articles, while clients write: stop it, copy its data
directory, tell the cluster its new peer URL, start it there."""

from __future__ import annotations

import contextlib
import http.client
import json
import shutil
import signal
from pathlib import Path
from typing import Any

import grpc
import pytest

from cluster.pb import rpc_pb2 as pb
from tests.cluster.local_cluster import until
from tests.cluster.members.hosts import LIMIT_S, Hosts, Writer
from tests.cluster.members.test_forced import asked, three

OLD, NEW = 1, 6  # places, each with ports and a folder of its own


def _put_member(hosts: Hosts, host: int, member_id: int, url: str) -> int:
    """What ``curl $E/v2/members/<id> -XPUT`` does; the status."""
    with contextlib.closing(http.client.HTTPConnection(hosts.client(host), timeout=LIMIT_S)) as connection:
        body = json.dumps({"peerURLs": [url]})
        connection.request("PUT", f"/v2/members/{member_id:x}", body, {"Content-Type": "application/json"})
        return connection.getresponse().status


def _own(hosts: Hosts, host: int, key: str) -> Any:
    """What the host itself holds of a key."""
    with contextlib.suppress(grpc.RpcError):
        request = pb.RangeRequest(key=key.encode(), serializable=True)
        return hosts.call(host, "KV/Range", request, pb.RangeResponse).kvs
    return None


@pytest.mark.timeout(400)
def test_a_member_moves_with_its_id_and_its_data_while_clients_write(tmp_path: Path) -> None:
    with three(tmp_path) as hosts:
        member_id = hosts.member(OLD).ID
        writer = Writer(hosts)
        try:
            writer.wait(50)
            process = hosts.running.pop(OLD)
            process.send_signal(signal.SIGTERM)
            assert process.wait(LIMIT_S) == 0
            # no file can be copied from a socket, which a node that was ended leaves
            no_sockets = shutil.ignore_patterns("run")
            shutil.copytree(tmp_path / f"h{OLD}", tmp_path / f"h{NEW}", symlinks=True, ignore=no_sockets)
            writer.wait(50)  # the two that are left go on
            # what is asked as a leader is elected may be refused; to ask twice does no harm
            until(lambda: _put_member(hosts, 0, member_id, hosts.peer(NEW)) == 204, LIMIT_S)
            hosts.start(NEW)
            until(lambda: list(hosts.member(NEW).clientURLs) == [f"http://{hosts.client(NEW)}"], LIMIT_S)
            writer.wait(50)
        finally:
            writer.stop()
        assert member_id == hosts.member(NEW).ID
        assert len(hosts.members()) == 3
        last = writer.acknowledged[-1]
        until(lambda: _own(hosts, NEW, last), LIMIT_S)
        found = asked(hosts, NEW, "KV/Range", pb.RangeRequest(key=b"/w", range_end=b"/x"), pb.RangeResponse)
        assert {kv.key.decode() for kv in found.kvs} >= set(writer.acknowledged)

        # it counts: with another one gone, the two others write on
        gone = hosts.running.pop(2)
        gone.kill()
        gone.wait(LIMIT_S)
        asked(hosts, NEW, "KV/Put", pb.PutRequest(key=b"/after", value=b"1"), pb.PutResponse)
