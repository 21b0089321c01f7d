"""A compaction with ``physical``: the host that was asked has removed old data, as etcd's member has."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from cluster import errors
from cluster.errors import EtcdError
from cluster.pb import rpc_pb2 as pb
from cluster.wire.messages import READ, Method, Status
from tests.unit.proxy.fakes import FakeCall
from tests.unit.proxy.served import Served

COMPACTED = EtcdError(errors.COMPACTED)


class Compacts:
    """Host 2 leads, and host 1 was asked to compact: everything is in order at index 7."""

    def __init__(self, *, physical: bool = True, deadline: float | None = None) -> None:
        self.served = Served(leader=2, shards=2)
        self.net = self.served.net
        self.call = FakeCall(deadline=deadline)
        request = pb.CompactionRequest(revision=5, physical=physical)
        self.served.methods.handlers["Compact"](self.call, request.SerializeToString())
        self.net.run()

    def done_at_the_sequencer(self, status: Status = Status.OK) -> None:
        (request,) = self.served.node.take(Method.COMPACT)
        if status == Status.OK:
            self.served.node.ok(request, 9)
        else:
            self.served.node.answer(request.rid, status, COMPACTED.encode())
        self.net.run()

    def indexed(self) -> None:
        for question in self.served.node.take(Method.READ_INDEX):
            self.served.node.index(question, 7)
        self.net.run()

    def say(self, shard: int, compacting: int, *, member: int = 1) -> bool:
        """This host's replica of the shard answers; whether it was asked."""
        node = self.net.every[shard, member]
        asked = node.take(Method.FACTS)
        for request in asked:
            assert READ.unpack_from(request.body) == (7, 0)
            node.ok(request, tail=json.dumps({"compacting": compacting}).encode())
        self.net.run()
        return bool(asked)

    def later(self) -> None:
        later, self.net.loop.later = self.net.loop.later, []
        for call in later:
            call()
        self.net.run()


def test_it_is_answered_once_all_replicas_of_the_asked_host_have_removed_old_data() -> None:
    compacts = Compacts()
    compacts.done_at_the_sequencer()
    compacts.indexed()
    assert compacts.call.status is None, "the asked host's replicas may not have done it"
    assert compacts.say(0, 0)
    for _ in range(3):
        assert compacts.say(1, 1)
        assert compacts.call.status is None
        compacts.later()
    assert not compacts.say(0, 0), "it has said so"
    assert compacts.say(1, 0)
    assert pb.CompactionResponse.FromString(compacts.call.replies[0]).header.revision == 9


def test_it_may_take_longer_than_a_request_once_it_is_in_order() -> None:
    compacts = Compacts()
    late = compacts.served.call("Compact", pb.CompactionRequest(revision=6, physical=True))
    ordered, _ = compacts.served.node.take(Method.COMPACT)
    compacts.served.node.answer(ordered.rid, Status.PARTIAL, b"")
    compacts.net.run()
    compacts.net.pass_time(60)
    assert compacts.call.status is None
    assert late.status == (errors.TIMEOUT.code, errors.TIMEOUT.text)
    compacts.served.node.ok(ordered, 9)
    compacts.net.run()
    compacts.indexed()
    assert compacts.say(0, 0)
    assert compacts.say(1, 1)
    compacts.net.pass_time(60)
    compacts.later()
    assert compacts.say(1, 0)
    assert compacts.call.status == (0, "")


def test_what_is_compacted_already_waits_likewise() -> None:
    compacts = Compacts()
    compacts.done_at_the_sequencer(Status.ERROR)
    compacts.indexed()
    assert compacts.say(0, 0)
    assert compacts.say(1, 1)
    assert compacts.call.status is None
    compacts.later()
    assert compacts.say(1, 0)
    assert compacts.call.status == (COMPACTED.code, COMPACTED.text)


def test_without_physical_nothing_is_asked() -> None:
    compacts = Compacts(physical=False)
    compacts.done_at_the_sequencer()
    assert compacts.call.status == (0, "")
    assert not compacts.served.node.take(Method.READ_INDEX)


def lost(compacts: Compacts) -> None:
    link = compacts.net.every[1, 1].link
    assert link is not None
    link.close("lost")
    compacts.net.pass_time(0.2)  # there is a new one


def stood_still(compacts: Compacts) -> None:
    compacts.net.every[1, 1].take()
    compacts.net.pass_time(0.6)


@pytest.mark.parametrize("meets", [lost, stood_still])
def test_a_replica_that_did_not_answer_is_asked_again(meets: Callable[[Compacts], None]) -> None:
    compacts = Compacts()
    compacts.done_at_the_sequencer()
    compacts.indexed()
    assert compacts.say(0, 0)
    meets(compacts)
    assert compacts.call.status is None
    compacts.later()
    assert compacts.say(1, 0)
    assert compacts.call.status == (0, "")


def test_so_is_the_sequencer_for_its_index() -> None:
    compacts = Compacts()
    compacts.done_at_the_sequencer()
    (question,) = compacts.served.node.take(Method.READ_INDEX)
    compacts.served.node.answer(question.rid, Status.ERROR, EtcdError(errors.TIMEOUT).encode())
    compacts.net.run()
    assert compacts.call.status is None
    compacts.later()
    compacts.indexed()
    assert compacts.say(0, 0)
    assert compacts.say(1, 0)
    assert compacts.call.status == (0, "")


def test_nothing_is_asked_for_a_client_that_is_gone() -> None:
    compacts = Compacts()
    compacts.done_at_the_sequencer()
    compacts.indexed()
    compacts.call.closed = True
    assert compacts.say(0, 0)
    assert compacts.say(1, 1)
    compacts.later()
    assert not compacts.say(1, 1)
    assert compacts.served.count("etcdserverpb.KV", "Compact", errors.CONTEXT_CANCELED.code) == 1


def test_a_shard_that_is_dropped_meanwhile_is_not_waited_for() -> None:
    compacts = Compacts()
    compacts.done_at_the_sequencer()
    compacts.indexed()
    assert compacts.say(0, 0)
    assert compacts.say(1, 1)
    del compacts.net.router.routes[1]
    compacts.later()
    assert compacts.call.status == (0, "")


def test_a_stop_ends_the_wait() -> None:
    """It had no answer: the questions went on behind the end of all links."""
    compacts = Compacts()
    compacts.done_at_the_sequencer()
    compacts.indexed()
    assert compacts.say(0, 0)
    assert compacts.say(1, 1)
    compacts.net.context.stop()
    compacts.later()
    assert compacts.say(1, 1)
    assert compacts.call.status == (0, ""), "as etcd answers when it stops"
