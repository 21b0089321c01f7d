"""``import`` goes on from where an earlier run ended."""

from __future__ import annotations

import grpc
import pytest
from muster_client.pb import rpc_pb2

from tests.unit.musterctl.data.clusters import Code, Store, following, until
from tools.musterctl import cli
from tools.musterctl.client import Client


def test_a_later_run_deletes_what_the_source_has_deleted_and_nothing_else() -> None:
    source = Store(a=b"1", b=b"2")
    source.delete(b"a")  # at 11
    target = Store(a=b"1", other=b"x")
    with source.served() as from_, target.served() as to, following(source, from_, to, since=11):
        until(lambda: target.values() == {b"b": b"2", b"other": b"x"})
        assert source.watched_from == 11


def test_a_later_run_from_the_future_copies_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    """The source was restored: what it had deleted by then, and what it lacks since, would stay."""
    source, target = Store(a=b"2"), Store(a=b"1")
    source.told.put(rpc_pb2.WatchResponse(canceled=True, compact_revision=9))  # where one is begun
    with source.served() as from_, target.served() as to:
        command = ["--endpoints", to, "import", "--from-etcd", from_, "--follow", "--since", "12"]
        assert cli.run(command) == 1
    said = capfd.readouterr().err
    assert said.endswith("Error: the source has no revision 11: if it was restored, begin again, with an "
                         "empty store\n")
    assert "to go on" not in said
    assert target.values() == {b"a": b"1"}


def test_an_end_by_an_error_says_how_to_go_on(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Without a time limit only a server's own answer is one."""
    monkeypatch.setattr(Client, "begin", lambda client, step: step.close())
    source, target = Store(a=b"1"), Store()

    def full(request: rpc_pb2.TxnRequest, context: grpc.ServicerContext) -> None:
        context.abort(Code.RESOURCE_EXHAUSTED, "etcdserver: mvcc: database space exceeded")

    with source.served() as from_, target.served({"KV/Txn": full}) as to:
        assert cli.run(["--endpoints", to, "import", "--from-etcd", from_, "--follow"]) == 1
    said = capfd.readouterr().err
    assert "import: to go on, add --follow --since 11\n" in said
    assert said.endswith("Error: etcdserver: mvcc: database space exceeded\n")


def test_a_cluster_is_not_copied_into_itself(capfd: pytest.CaptureFixture[str]) -> None:
    """With --follow each put was an event, which it put again, without end."""
    store = Store(a=b"1")
    with store.served() as one, store.served() as other:
        assert cli.run(["--endpoints", one, "import", "--from-etcd", other]) == 128
        until(lambda: store.granted and not store.leases)
    assert "Error: --from-etcd names this cluster itself" in capfd.readouterr().err


@pytest.mark.parametrize("code", [Code.NOT_FOUND, Code.UNIMPLEMENTED])
def test_an_etcd_that_tells_of_no_leases_is_another_cluster(code: grpc.StatusCode) -> None:
    """One of 3.1, or of 3.0."""
    source, target = Store(a=b"1"), Store()

    def unknown(request: rpc_pb2.LeaseTimeToLiveRequest, context: grpc.ServicerContext) -> None:
        context.abort(code, "etcdserver: requested lease not found")

    with source.served({"Lease/LeaseTimeToLive": unknown}) as from_, target.served() as to:
        assert cli.run(["--endpoints", to, "import", "--from-etcd", from_]) == 0
        until(lambda: target.granted and not target.leases)
    assert target.values() == {b"a": b"1"}


def test_a_later_run_from_what_is_compacted_copies_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    """The watch would refuse it behind the copy of all keys. From just the compacted revision it goes on: an
    etcd before 3.5.16 lacks what was deleted in it."""
    source, target = Store(a=b"2"), Store(a=b"1")
    source.compacted = 5
    source.told.put(rpc_pb2.WatchResponse(canceled=True, compact_revision=9))  # where one is begun
    with source.served() as from_, target.served() as to:
        command = ["--endpoints", to, "import", "--from-etcd", from_, "--follow", "--since"]
        for since in ("4", "5"):
            assert cli.run([*command, since]) == 1
            said = capfd.readouterr().err
            assert said.endswith("Error: etcdserver: mvcc: required revision has been compacted\n")
            assert "to go on" not in said
        assert cli.run([*command, "-4"]) == 128
        assert target.values() == {b"a": b"1"}
        with following(source, from_, to, since=6):
            assert target.values() == {b"a": b"2"}


def test_a_copy_that_takes_longer_than_a_compaction_says_what_helps(
    capfd: pytest.CaptureFixture[str]
) -> None:
    """Nothing could go on from there: its revision is compacted."""
    source = Store(a=b"1")

    def pages(request: rpc_pb2.RangeRequest, context: grpc.ServicerContext) -> rpc_pb2.RangeResponse:
        page = source._range(request, context)
        source.compacted = source.revision + 1
        page.more = True
        return page

    with source.served({"KV/Range": pages}) as from_, Store().served() as to:
        assert cli.run(["--endpoints", to, "import", "--from-etcd", from_, "--follow"]) == 1
    said = capfd.readouterr().err
    assert "import: the source compacted what is copied: stop its compaction, and begin with an empty" in said
    assert said.endswith("Error: etcdserver: mvcc: required revision has been compacted\n")
    assert "to go on" not in said


def test_a_later_run_follows(capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["import", "--from-etcd", "127.0.0.1:1", "--since", "3"]) == 128
    assert "--since needs --follow" in capfd.readouterr().err
