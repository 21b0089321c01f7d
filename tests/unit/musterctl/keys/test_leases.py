"""``lease``: what ends its commands, with etcdctl's codes."""

from __future__ import annotations

from typing import Any

import pytest
from muster_client.pb import rpc_pb2 as pb

from tests.unit.library.scripted import scripted
from tools.musterctl import cli

HEADER = pb.ResponseHeader(cluster_id=1, member_id=2, revision=3)


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
    assert said == "Error: marshal unsupported for type clientv3.LeaseRevokeResponse\n"
