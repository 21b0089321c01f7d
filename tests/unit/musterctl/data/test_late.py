"""Hosts that stood still, and do old requests behind newer ones."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import grpc
import pytest
from muster_client.pb import kv_pb2, rpc_pb2
from muster_client.wire import engine

from tests.unit.musterctl.data.clusters import EVERYTHING, Code, Store, following, until
from tools.musterctl import cli
from tools.musterctl.client import Client
from tools.musterctl.commands.data import copying
from tools.musterctl.commands.data import late as late_module
from tools.musterctl.commands.data.copier import Copier


@pytest.mark.parametrize("imports", [True, False])
def test_what_a_host_does_late_is_put_right(imports: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """It stood still, another one did the transaction, and newer ones followed."""
    monkeypatch.setattr(late_module, "_LOST_S", 0.0)
    monkeypatch.setattr(late_module, "_LATEST_S", 1.0)
    source, target = Store(kept=b"1", gone=b"1"), Store(other=b"x")
    late: list[rpc_pb2.TxnRequest] = []

    def stands_still(request: rpc_pb2.TxnRequest, context: grpc.ServicerContext) -> None:
        late.append(request)
        context.abort(Code.UNAVAILABLE, "the connection ended")

    with (source.served() as from_, target.served({"KV/Txn": stands_still}) as first,
          target.served() as second, following(source, from_, first, second, imports=imports) as copier):
        source.put(b"kept", b"2")
        source.delete(b"gone")
        until(lambda: target.values() == {b"kept": b"2", b"other": b"x"})
        assert copier.late.unsure
        context: Any = None
        target.txn(late[0], context)
        assert target.values() == {b"kept": b"1", b"gone": b"1", b"other": b"x"}
        until(lambda: target.values() == {b"kept": b"2", b"other": b"x"})
        until(lambda: copier.is_whole and not copier.late.unsure)


@pytest.mark.parametrize("back", [True, False])
def test_a_copy_that_does_not_follow_waits_for_what_a_host_does_late(
    back: bool, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Clients write as soon as it has ended. Where that host stays away, they are told."""
    monkeypatch.setattr(late_module, "_LOST_S", 0.0)
    monkeypatch.setattr(late_module, "_LATEST_S", 1.0)
    monkeypatch.setattr(late_module, "_LIMIT_S", 5.0 if back else 0.0)
    begun: list[Future[None]] = []
    monkeypatch.setattr(Client, "begin", lambda client, step: begun.append(engine.submit(step)))

    async def answers(client: Client, endpoint: str) -> None:
        if not back:
            await asyncio.Event().wait()

    monkeypatch.setattr(Client, "answers", answers)
    source, target = Store(a=b"2"), Store()
    late: list[rpc_pb2.TxnRequest] = []

    def stands_still(request: rpc_pb2.TxnRequest, context: grpc.ServicerContext) -> None:
        if not late:
            late.append(request)
            threading.Timer(0.5, lambda: target.kvs.update({b"a": kv_pb2.KeyValue(value=b"1")})).start()
        context.abort(Code.UNAVAILABLE, "the connection ended")

    with (source.served() as from_, target.served({"KV/Txn": stands_still}) as first,
          target.served() as second):
        assert cli.run(["--endpoints", f"{first},{second}", "import", "--from-etcd", from_]) == 0
        for one in begun:
            one.cancel()
    assert target.values() == {b"a": b"2" if back else b"1"}
    said = capfd.readouterr().err
    assert f"import: waits for {first}, which left changes unanswered\n" in said
    assert (f"import: {first} left changes unanswered, and may still do them" in said) is not back


def test_an_end_says_what_is_open(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    codes: list[int] = []

    class Ended(Exception):
        """The program."""

    def end(code: int) -> None:
        codes.append(code)
        raise Ended

    monkeypatch.setattr("os._exit", end)
    client: Any = SimpleNamespace(unanswered=set())
    copier = Copier(client, client, EVERYTHING, 1, lambda key: key)
    copier.revision = 5
    for late, unsure in (([], []), ([], ["b", "a", "b"]), ([[b"k"]], [])):
        copier.late.keys.clear()
        copier.late.keys.extend(late)
        copier.late.unsure = unsure
        with pytest.raises(Ended):
            copying._end(copier)
    client.unanswered.add("c")  # by what is on its way
    copier.late.unsure = ["b"]
    with pytest.raises(Ended):
        copying._end(copier)
    open_ = "left changes unanswered, and may still do them: compare the keys once it is back"
    assert capfd.readouterr().err.splitlines() == [
        "import: ended: all is copied up to revision 5",
        f"import: a {open_}", f"import: b {open_}", "import: ended: all is copied up to revision 5",
        "import: ended: keys are missing; to go on, add --follow --since 6",
        f"import: b {open_}", f"import: c {open_}",
        "import: ended: keys are missing; to go on, add --follow --since 6"]
    assert codes == [0, 0, 1, 1]
