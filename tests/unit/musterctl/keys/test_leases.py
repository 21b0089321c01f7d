"""``lease``: what ends its commands, with etcdctl's codes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from muster_client.pb import rpc_pb2 as pb

from tests.unit.library.scripted import refusing, scripted
from tools.musterctl import cli

LEARNER = "etcdserver: rpc not supported for learner"
HEADER = pb.ResponseHeader(cluster_id=1, member_id=2, revision=3)
REFUSE = refusing(grpc.StatusCode.FAILED_PRECONDITION, LEARNER)


def test_a_revocation_has_no_form_of_protobuf(capfd: pytest.CaptureFixture[str]) -> None:
    """clientv3's answer encodes itself to none: etcdctl says so after it has revoked the lease."""
    revoked: list[int] = []

    def revoke(request: pb.LeaseRevokeRequest, context: Any) -> pb.LeaseRevokeResponse:
        revoked.append(request.ID)
        return pb.LeaseRevokeResponse(header=HEADER)

    with scripted({"Lease/LeaseRevoke": revoke}) as address:
        code = cli.run(["--endpoints", address, "lease", "revoke", "1f", "-w", "protobuf"])
    out, said = capfd.readouterr()
    assert (code, revoked, out) == (4, [0x1F], "")
    assert said == (
        "Error: marshal unsupported for type clientv3.LeaseRevokeResponse "
        "({cluster_id:1 member_id:2 revision:3  {} [] 0})\n")


@pytest.mark.parametrize(("code", "text", "ends"), [
    (grpc.StatusCode.UNAVAILABLE, "etcdserver: no leader", True),
    (grpc.StatusCode.UNAVAILABLE, LEARNER, True),  # of etcd 3.5
    (grpc.StatusCode.UNAVAILABLE, "away", False),
])  # fmt: skip
@pytest.mark.parametrize("words", [["--once"], []])
def test_a_refused_renewal_ends_where_etcdctls_does(
    code: grpc.StatusCode, text: str, ends: bool, words: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    """``--once`` at a member's own refusal, also one that passes. Without it the next renewal follows."""
    asked: list[int] = []

    def renew(
        requests: Iterator[pb.LeaseKeepAliveRequest], context: grpc.ServicerContext
    ) -> Iterator[pb.LeaseKeepAliveResponse]:
        asked.append(next(requests).ID)
        if len(asked) == 1:
            context.abort(code, text)
        yield pb.LeaseKeepAliveResponse(header=HEADER, ID=0x1F, TTL=0 if not words else 9)

    with scripted({"Lease/LeaseKeepAlive": renew}) as address:
        ended = cli.run(["--endpoints", address, "lease", "keep-alive", "1f", *words])
    out, said = capfd.readouterr()
    if words and ends:
        assert (ended, len(asked), out, said) == (2, 1, "", f"Error: {text}\n")
    else:
        assert (ended, len(asked), "Error" in said) == (0, 2, False)


@pytest.mark.parametrize(("form", "last"), [
    ("simple", "lease 000000000000001f expired or revoked.\n"), ("json", ""), ("fields", "")])
def test_the_end_of_a_lease_is_a_line_for_people_alone(
    form: str, last: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """As in etcdctl: a reader of JSON fails at it."""
    def renew(
        requests: Iterator[pb.LeaseKeepAliveRequest], context: grpc.ServicerContext
    ) -> Iterator[pb.LeaseKeepAliveResponse]:
        yield pb.LeaseKeepAliveResponse(header=HEADER, ID=next(requests).ID, TTL=0)

    with scripted({"Lease/LeaseKeepAlive": renew}) as address:
        assert cli.run(["--endpoints", address, "lease", "keep-alive", "1f", "-w", form]) == 0
    assert capfd.readouterr().out == last


@pytest.mark.parametrize("words", [["--once"], []])
def test_a_renewal_goes_on_from_a_learner_to_a_voter(
    words: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    """Learners of muster, and of etcd since 3.6, refuse with this code. Learners alone end it."""
    def renew(
        requests: Iterator[pb.LeaseKeepAliveRequest], context: grpc.ServicerContext
    ) -> Iterator[pb.LeaseKeepAliveResponse]:
        yield pb.LeaseKeepAliveResponse(header=HEADER, ID=next(requests).ID, TTL=0 if not words else 9)

    line = ["lease", "keep-alive", "1f", *words]
    with (scripted({"Lease/LeaseKeepAlive": REFUSE}) as learner,
          scripted({"Lease/LeaseKeepAlive": REFUSE}) as second,
          scripted({"Lease/LeaseKeepAlive": renew}) as voter):
        assert cli.run(["--endpoints", f"{learner},{second},{voter}", *line]) == 0
        for alone in (learner, f"{learner},{second}", f"{learner},127.0.0.1:1"):
            assert cli.run(["--endpoints", alone, *line]) == 2
            assert capfd.readouterr().err.endswith(f"Error: {LEARNER}\n")


@pytest.mark.parametrize("passes", ["etcdserver: no leader", "etcdserver: request timed out"])
def test_a_voter_without_a_leader_for_a_while_has_another_turn_beside_a_learner(passes: str) -> None:
    asked: list[int] = []

    def renew(
        requests: Iterator[pb.LeaseKeepAliveRequest], context: grpc.ServicerContext
    ) -> Iterator[pb.LeaseKeepAliveResponse]:
        asked.append(next(requests).ID)
        if len(asked) == 1:
            context.abort(grpc.StatusCode.UNAVAILABLE, passes)
        yield pb.LeaseKeepAliveResponse(header=HEADER, ID=asked[-1], TTL=0)

    with (scripted({"Lease/LeaseKeepAlive": REFUSE}) as learner,
          scripted({"Lease/LeaseKeepAlive": renew}) as voter):
        assert cli.run(["--endpoints", f"{voter},{learner}", "lease", "keep-alive", "1f"]) == 0
    assert asked == [0x1F, 0x1F]


def test_renewals_that_have_begun_outlast_a_time_with_learners_alone() -> None:
    asked: list[int] = []

    def serve(
        requests: Iterator[pb.LeaseKeepAliveRequest], context: grpc.ServicerContext
    ) -> Iterator[pb.LeaseKeepAliveResponse]:
        asked.append(next(requests).ID)
        if len(asked) in (2, 3):
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, LEARNER)
        yield pb.LeaseKeepAliveResponse(header=HEADER, ID=0x1F, TTL=1 if len(asked) == 1 else 0)

    with (scripted({"Lease/LeaseKeepAlive": REFUSE}) as learner,
          scripted({"Lease/LeaseKeepAlive": serve}) as voter):
        line = [sys.executable, "-m", "tools.musterctl", "--endpoints", f"{learner},{voter}"]
        # a process of its own: its report of the lapse would come in another test
        ended = subprocess.run([*line, "lease", "keep-alive", "1f"], timeout=30)
    assert (ended.returncode, len(asked)) == (0, 4)
