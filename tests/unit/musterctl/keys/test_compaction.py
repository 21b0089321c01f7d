"""``compaction --physical``, which a host may refuse once it is done."""

from __future__ import annotations

from typing import Any

import grpc
import pytest
from muster_client.pb import rpc_pb2 as pb

from tests.unit.library.scripted import Code, scripted
from tools.musterctl import cli

COMPACTED = "etcdserver: mvcc: required revision has been compacted"


@pytest.mark.parametrize(("flags", "refusals", "code"), [
    (["--physical"], 1, 0),
    (["--physical"], 0, 1),  # another program's compaction
    ([], 1, 1),
])  # fmt: skip
def test_a_physical_compaction_that_was_refused_while_it_waited_is_done(
    flags: list[str], refusals: int, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """It was tried again, met itself, and was said to have failed."""
    asked: list[pb.CompactionRequest] = []

    def compact(request: pb.CompactionRequest, context: grpc.ServicerContext) -> Any:
        asked.append(request)
        if len(asked) <= refusals:
            context.abort(Code.UNKNOWN, "etcdserver: too many requests")
        context.abort(Code.OUT_OF_RANGE, COMPACTED)

    with scripted({"KV/Compact": compact}) as address:
        assert cli.run(["--endpoints", address, "compaction", "5", *flags]) == code
    told = capsys.readouterr()
    assert told.out == ("" if code else "compacted revision 5\n")
    assert told.err == (f"Error: {COMPACTED}\n" if code else "")
    assert len(asked) == refusals + 1
