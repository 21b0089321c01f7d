"""``compaction --physical``, which a host may refuse once it is done."""

from __future__ import annotations

from typing import Any

import grpc
import pytest
from muster_client.pb import rpc_pb2 as pb

from tests.unit.library.scripted import Code, scripted
from tools.musterctl import cli

COMPACTED = "etcdserver: mvcc: required revision has been compacted"


TOO_MANY = (Code.UNKNOWN, "etcdserver: too many requests")
NO_LEADER = (Code.UNAVAILABLE, "etcdserver: no leader")  # it has surely done nothing


@pytest.mark.parametrize(("flags", "refusal", "code"), [
    (["--physical"], TOO_MANY, 0),
    (["--physical"], None, 1),  # another program's compaction
    (["--physical"], NO_LEADER, 1),  # likewise
    ([], TOO_MANY, 1),
])  # fmt: skip
def test_a_physical_compaction_that_was_refused_while_it_waited_is_done(
    flags: list[str], refusal: tuple[Code, str] | None, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """It was tried again, met itself, and was said to have failed. Its space is not waited for then."""
    asked: list[pb.CompactionRequest] = []

    def compact(request: pb.CompactionRequest, context: grpc.ServicerContext) -> Any:
        asked.append(request)
        if len(asked) == 1 and refusal is not None:
            context.abort(*refusal)
        context.abort(Code.OUT_OF_RANGE, COMPACTED)

    with scripted({"KV/Compact": compact}) as address:
        assert cli.run(["--endpoints", address, "compaction", "5", *flags]) == code
    told = capsys.readouterr()
    assert told.out == ("" if code else "compacted revision 5\n")
    assert told.err == (f"Error: {COMPACTED}\n" if code else "musterctl: the space may not be free yet\n")
    assert len(asked) == 1 + (refusal is not None)
