"""A store that has used up its quota, and the alarm that says so."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc

from cluster.pb import rpc_pb2 as pb
from tests.cluster.local_cluster import ROOT, local_cluster, until

VALUE = b"v" * 10_000
NO_SPACE = "etcdserver: mvcc: database space exceeded"


def method(channel: grpc.Channel, path: str, request: Any, response: Any) -> Callable[..., Any]:
    return channel.unary_unary(f"/etcdserverpb.{path}", request.SerializeToString, response.FromString)


def etcdctl(endpoint: str, *words: str) -> str:
    done = subprocess.run([str(ROOT / ".venv/bin/etcdctl"), f"--endpoints={endpoint}", *words],
                          capture_output=True, text=True, timeout=30, check=True)
    return done.stdout


def refused(put: Callable[..., Any], key: bytes = b"k", value: bytes = VALUE) -> bool:
    try:
        put(pb.PutRequest(key=key, value=value), timeout=30)
    except grpc.RpcError as e:
        if e.details() != NO_SPACE:
            raise
        return True
    return False


def test_a_store_over_its_quota_takes_puts_again_after_a_compaction_and_the_alarm_is_disarmed(
    tmp_path: Path,
) -> None:
    with local_cluster(tmp_path / "c", 1, extra=("--quota-backend-bytes=20000000",)) as cluster, \
            grpc.insecure_channel(cluster.endpoints()[0]) as channel:
        put = method(channel, "KV/Put", pb.PutRequest, pb.PutResponse)
        get = method(channel, "KV/Range", pb.RangeRequest, pb.RangeResponse)
        compact = method(channel, "KV/Compact", pb.CompactionRequest, pb.CompactionResponse)
        alarm = method(channel, "Maintenance/Alarm", pb.AlarmRequest, pb.AlarmResponse)

        def alarms() -> list[tuple[int, int]]:
            return [(a.memberID, a.alarm) for a in alarm(pb.AlarmRequest(), timeout=30).alarms]

        assert alarms() == []
        until(lambda: any(refused(put) for _ in range(100)))
        until(alarms)
        revision = get(pb.RangeRequest(key=b"k"), timeout=30).header.revision
        member_id = get(pb.RangeRequest(key=b"k"), timeout=30).header.member_id
        assert alarms() == [(member_id, pb.NOSPACE)]
        assert refused(put, value=b"")
        compact(pb.CompactionRequest(revision=revision, physical=True), timeout=30)

        def again() -> bool:
            for held in alarms():
                request = pb.AlarmRequest(
                    action=pb.AlarmRequest.DEACTIVATE, memberID=held[0], alarm=held[1])
                alarm(request, timeout=30)
            return not refused(put)

        until(again)
        assert alarms() == []


def test_an_alarm_refuses_puts_on_every_host_until_it_is_disarmed(tmp_path: Path) -> None:
    with local_cluster(tmp_path / "c", 3) as cluster:
        endpoints = cluster.endpoints()
        channels = [grpc.insecure_channel(endpoint) for endpoint in endpoints]
        try:
            puts = [method(channel, "KV/Put", pb.PutRequest, pb.PutResponse) for channel in channels]
            alarm = method(channels[0], "Maintenance/Alarm", pb.AlarmRequest, pb.AlarmResponse)
            request = pb.AlarmRequest(action=pb.AlarmRequest.ACTIVATE, memberID=7, alarm=pb.NOSPACE)
            assert [(a.memberID, a.alarm) for a in alarm(request, timeout=30).alarms] == [(7, pb.NOSPACE)]
            for put in puts:
                assert refused(put, b"/a/1")
                assert refused(put, b"b")
            for endpoint in endpoints:
                assert etcdctl(endpoint, "alarm", "list") == "memberID:7 alarm:NOSPACE \n"
            assert etcdctl(endpoints[1], "del", "b") == "0\n", "deletes pass"
            assert etcdctl(endpoints[1], "alarm", "disarm") == "memberID:7 alarm:NOSPACE \n"
            for endpoint, put in zip(endpoints, puts, strict=True):
                assert etcdctl(endpoint, "alarm", "list") == ""
                assert not refused(put, b"/a/1")
                assert not refused(put, b"b")
        finally:
            for channel in channels:
                channel.close()
