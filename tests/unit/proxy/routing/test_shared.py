"""A host with several fronts is one member to its clients: no connection sees less than another has seen."""

from __future__ import annotations

import asyncio
import os
from dataclasses import replace
from pathlib import Path

import pytest

from cluster import errors
from cluster.errors import EtcdError
from cluster.features.v2.requests import Answer, split_read
from cluster.pb import rpc_pb2
from cluster.wire.messages import HEAD, READ, Method, Status
from proxy.routing.reads import recent
from proxy.routing.reads.shared import Shared, shared_by
from proxy.v2.keys import Keys
from tests.unit.grpc.http1.test_http1_ended import Front
from tests.unit.proxy.fakes import FakeCall, Net
from tests.unit.proxy.routing.router.asking import put, read
from tests.unit.proxy.served import COMPACTED, Served
from tests.unit.proxy.watch.watching import Client, World
from tools.muster.host import rundir


def fronts(page: bytearray | None = None) -> tuple[Net, Net]:
    """Two of one host."""
    page, found = page or bytearray(48), (Net(), Net())
    for number, net in enumerate(found):
        net.router.shared = Shared(page, number, 2)
        net.started(leader=2)
    return found


def answered(net: Net, revision: int) -> None:
    put(net)
    (request,) = net.nodes[2].take(Method.PUT)
    net.nodes[2].ok(request, revision)
    net.run()


def test_i14_a_serializable_read_waits_for_what_another_front_of_its_host_has_shown() -> None:
    first, second = fronts()
    answered(first, 50)
    call = read(second, serializable=True)
    second.run()
    assert second.nodes[1].take(Method.RANGE) == []
    (hurry,) = second.nodes[1].take(Method.CATCH_UP)
    assert hurry.body == (50).to_bytes(8, "little")
    second.nodes[1].watermark(50)
    second.run()
    (served,) = second.nodes[1].take(Method.RANGE)
    second.nodes[1].ok(served, 50)
    second.run()
    assert call.status == (0, "")
    assert first.router.highest == second.router.highest == 50


def test_a_front_that_starts_again_knows_what_it_has_shown() -> None:
    page = bytearray(48)
    for _ in range(2):
        net = Net()
        net.router.shared = Shared(page, 1, 2)
        net.started(leader=2)
        read(net, serializable=True)
        net.run()
        asked = net.nodes[1].take(Method.RANGE)
        answered(net, 50)
    assert asked == []


def test_a_front_that_learned_how_far_the_order_is_shares_that() -> None:
    page = bytearray(48)
    first, second = fronts(page)
    first.router.recent.knows = False  # it has just started
    read(first, serializable=True)
    first.run()
    (question,) = first.nodes[2].take(Method.READ_INDEX)
    first.nodes[2].index(question, 17, 50)
    first.run()
    answered(first, 50)
    read(second, serializable=True)
    second.run()
    assert second.nodes[1].take(Method.RANGE) == []
    assert first.router.shared is not None
    assert first.router.shared.revision == first.router.highest == 50


def test_a_front_that_goes_by_its_own_node_shares_that() -> None:
    page = bytearray(48)
    net = Net()
    net.router.shared = Shared(page, 0, 2)
    for node in net.every.values():
        node.up, node.revision = node.member == 1, 50
    net.router.recent.knows = False
    net.pass_time(0.1)
    read(net, serializable=True)
    net.pass_time(recent.ASK_S + 0.2)
    assert net.router.recent.knows
    assert net.router.shared.revision == net.router.highest == 50


def test_a_front_that_goes_by_a_pruned_table_shares_that() -> None:
    page = bytearray(48)
    first, _ = fronts(page)
    first.context.follow(replace(first.context.placement.table, generation=9, pruned=40))
    assert first.router.shared is not None
    assert first.router.shared.revision == first.router.highest == 40


@pytest.mark.parametrize("writer", ["a sibling", "the same front"])
def test_steady_writes_do_not_hold_up_serializable_reads(writer: str) -> None:
    first, second = fronts()
    node, loop = second.nodes[1], second.loop
    node.watermark(100)
    second.run()
    read(second, serializable=True)  # from here on the link is settled
    second.run()
    node.take()
    waits, came = list[float](), dict[FakeCall, float]()
    for ms in range(1, 1001):  # a write and a read each; the replica is 3 ms behind
        loop.now += 0.001
        (first if writer == "a sibling" else second).router.show(100 + ms)
        came[read(second, serializable=True)] = loop.now
        node.watermark(100 + ms - 3)
        second.run()
        if ms % 50 == 49:
            second.router.sweep()
            second.run()
        for request in node.take(Method.RANGE):
            node.ok(request, 100 + ms - 3)
        second.run()
        waits += [loop.now - came.pop(call) for call in tuple(came) if call.status is not None]
    assert len(waits) > 990
    assert max(waits) < 0.005


def test_a_front_that_starts_again_does_not_take_back_what_it_has_shown() -> None:
    page = bytearray(48)
    first, second = fronts(page)
    answered(first, 50)
    assert first.router.shared is not None
    first.router.shared.show_index(30)
    again = Net()
    again.router.shared = Shared(page, 0, 2)
    again.started(leader=2)
    again.router.local(FakeCall(), Method.STATUS, b"", 0, again.router.quiet)  # of the replica as it is
    again.run()
    (asked,) = again.nodes[1].take(Method.STATUS)
    again.nodes[1].ok(asked, 40)
    again.run()
    again.router.shared.show_index(20)
    assert (again.router.highest, again.router.shared.revision, again.router.shared.index) == (40, 50, 30)
    read(second, serializable=True)
    second.run()
    assert second.nodes[1].take(Method.RANGE) == []


def test_a_watch_from_now_on_begins_behind_what_another_front_has_shown() -> None:
    first, second = fronts()
    answered(first, 50)
    assert second.router.store_revision() == 50
    alone = Net()
    alone.router.shared = second.router.shared
    assert alone.router.store_revision() == 0, "what others have shown may be old: it waits for a node"


def compacting(page: bytearray, revision: int, *, refused: bool = False) -> None:
    """By a client of the host's first front. ``refused``: it is compacted already."""
    served = Served(leader=2)
    served.net.router.shared = Shared(page, 0, 2)
    call = served.call("Compact", rpc_pb2.CompactionRequest(revision=revision))
    (request,) = served.node.take()
    if refused:
        served.node.answer(request.rid, Status.ERROR, EtcdError(errors.COMPACTED).encode())
    else:
        served.node.ok(request, 7)
    served.net.run()
    assert call.status == (COMPACTED if refused else (0, ""))


@pytest.mark.parametrize("refused", [False, True])
@pytest.mark.parametrize("front", [0, 1])
def test_what_any_front_said_to_be_compacted_is_shown_no_more(front: int, refused: bool) -> None:
    """Nor by one that starts again. The replica may be behind: an etcd member would not show it."""
    page = bytearray(48)
    for revision in (5, 4):
        compacting(page, revision, refused=refused)
    served = Served(leader=2)
    served.net.router.shared = Shared(page, front, 2)
    served.net.nodes[1].watermark(7)
    served.net.run()
    asked = rpc_pb2.RangeRequest(key=b"k", serializable=True, revision=4)
    hashed = rpc_pb2.HashKVRequest(revision=4)
    for method, request in (("Range", asked), ("RangeStream", asked), ("HashKV", hashed)):
        assert served.call(method, request).status == COMPACTED, method
    txn = served.call("Txn", rpc_pb2.TxnRequest(success=[rpc_pb2.RequestOp(request_range=asked)]))
    (compares,) = served.net.nodes[1].take()
    served.net.nodes[1].ok(compares, 7)
    served.net.run()
    assert txn.status == COMPACTED
    asked.revision = 5
    served.call("Range", asked)
    assert [request.method for request in served.net.nodes[1].take()] == [Method.RANGE]


def test_a_watch_below_what_another_front_compacted_waits_for_a_replica_that_is_behind() -> None:
    page, world = bytearray(48), World()
    world.net.router.shared = Shared(page, 1, 2)
    for _ in range(6):
        world.write((0, b"k"))  # a put
    compacting(page, 5)
    client = Client(world)
    client.create(b"k", start=4)
    client.create(b"k", start=5)
    world.settle()
    assert not any(r.canceled for r in client.responses())
    world.store.compacted = 5
    world.net.context.hub.tick(world.net.loop.now)
    world.settle()
    responses = client.responses()
    assert [(r.watch_id, r.compact_revision) for r in responses if r.canceled] == [(0, 5)]
    assert [(r.watch_id, e.kv.mod_revision) for r in responses for e in r.events] == [(1, 5), (1, 6), (1, 7)]


@pytest.mark.parametrize(
    "line",
    [
        b"GET /v2/keys/k HTTP/1.1\r\n",
        b"GET /v2/keys/?recursive=true HTTP/1.1\r\n",
        b"GET /v2/keys/k?wait=true HTTP/1.1\r\n",
    ],
)
def test_a_request_of_version_2_waits_for_what_another_front_has_shown(line: bytes) -> None:
    asyncio.run(_asked(line))


async def _asked(line: bytes) -> None:
    first, second = fronts()
    served = []
    for net in (first, second):
        front, keys = Front(), Keys(net.context)
        front.serve = keys.serve  # type: ignore[method-assign]
        served.append(front)
    served[0].http1.receive(
        b"PUT /v2/keys/k HTTP/1.1\r\nHost: a\r\nContent-Type: application/x-www-form-urlencoded\r\n"
        b"Content-Length: 7\r\n\r\nvalue=v",
        0.0,
    )
    first.run()
    (request,) = first.nodes[2].take(Method.V2_WRITE)
    first.nodes[2].answer(request.rid, Status.OK, HEAD.pack(5, 1) + Answer(9, b"{}").encode())
    first.run()
    assert served[0].output.data
    served[1].http1.receive(line + b"Host: a\r\n\r\n", 0.0)
    second.run()
    (asked,) = second.nodes[1].take(Method.V2_READ)
    assert split_read(asked.body[READ.size :])[1] == 9


def test_fronts_share_memory_of_their_host_until_that_starts_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rundir, "LONGEST_SOCKET_PATH", 1000)
    path = rundir.make_run_dir(str(tmp_path))

    def of(front: int) -> Shared:
        return shared_by(os.dup(rundir.page_of(path, 3)), front, 3)

    three = [of(number) for number in range(3)]
    three[1].show(1 << 62)
    three[2].show_index(7)
    three[2].show_compaction(5)
    assert {(one.revision, one.index, one.compacted) for one in [*three, of(0)]} == {(1 << 62, 7, 5)}
    assert os.listdir(path) == [], "no disk that hangs or is frozen holds up a store"
    assert rundir.make_run_dir(str(tmp_path)) == path
    later = of(0)
    assert (later.revision, later.index, later.compacted) == (0, 0, 0)
    assert rundir.page_of(path, 1) == -1
    rundir.remove_run_dir(str(tmp_path), path)
    assert rundir.page_of(path, 3) == -1
