"""A node's requests, sampled: which are looked at, what they weigh, and that nothing comes of a mistake."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from cluster.features.auth.principal import NOBODY, SAID
from cluster.growth.sample import Weighed
from cluster.pb import rpc_pb2 as pb
from cluster.wire.messages import LONE_HEAD, READ, Method
from node.upkeep.growth import sampling as module
from node.upkeep.growth.sampling import Sampling

PUT = pb.PutRequest(key=b"/a", value=b"v").SerializeToString()
TXN = pb.TxnRequest(success=[
    pb.RequestOp(request_put=pb.PutRequest(key=b"/a", value=b"v")),
    pb.RequestOp(request_put=pb.PutRequest(key=b"/b", value=b"v"))]).SerializeToString()
NO_READ = READ.pack(0, 0)


class Node:
    def __init__(self) -> None:
        self.sampling = Sampling(lambda: 5000, 1)
        self.passed: list[list[Any]] = []
        self._take = self.sampling.before(lambda link, requests: self.passed.append(requests))

    def take(self, *requests: tuple[int, bytes], joined: bool = False) -> None:
        link: Any = SimpleNamespace(pass_on=print if joined else None)
        self._take(link, [(rid, method, 0, body) for rid, (method, body) in enumerate(requests, 1)])

    @property
    def seen(self) -> list[Weighed]:
        return self.sampling.sample.weighed(5000)


@pytest.mark.parametrize(("method", "body", "key", "spans"), [
    (Method.PUT, PUT, b"/a", ()),
    (Method.PUT | SAID, NOBODY.encode() + PUT, b"/a", ()),
    (Method.LONE, LONE_HEAD.pack(1) + PUT, b"/a", ()),
    (Method.TXN, TXN, b"/a", ((b"/a", b""), (b"/b", b""))),
    (Method.WIDE, bytes((Method.TXN,)) + TXN, b"/a", ((b"/a", b""), (b"/b", b""))),
    (Method.DELETE_RANGE, pb.DeleteRangeRequest(key=b"/a", range_end=b"/b").SerializeToString(), b"/a",
     ((b"/a", b"/b"),)),
    (Method.RANGE, NO_READ + pb.RangeRequest(key=b"/a").SerializeToString(), b"/a", ()),
    (Method.STREAM_ROWS, NO_READ + pb.RangeRequest(key=b"/a", range_end=b"/b").SerializeToString(), b"/a",
     ((b"/a", b"/b"),)),
])
def test_requests_of_keys_are_taken(
    method: int, body: bytes, key: bytes, spans: tuple[tuple[bytes, bytes], ...]
) -> None:
    node = Node()
    node.take((method, body))
    assert [(one.key, one.spans) for one in node.seen] == [(key, spans)]
    assert len(node.passed) == 1


def test_what_comes_by_a_front_in_this_process_is_a_share_of_the_load() -> None:
    node = Node()
    assert node.sampling.sample.joined(5000) == 0
    for number in range(4):
        node.take((Method.PUT, PUT), joined=not number)
    assert node.sampling.sample.joined(5000) == pytest.approx(0.25)


def test_what_costs_more_weighs_more() -> None:
    def weight(method: int, body: bytes) -> float:
        node = Node()
        node.take((method, body))
        return node.seen[0].weight

    put = weight(Method.PUT, PUT)
    large = weight(Method.PUT, pb.PutRequest(key=b"k", value=bytes(1 << 20)).SerializeToString())
    read = weight(Method.RANGE, NO_READ + pb.RangeRequest(key=b"/a").SerializeToString())
    assert read < put < weight(Method.TXN, TXN) < large


@pytest.mark.parametrize("request_", [
    (Method.READ_INDEX, b""), (Method.REPORT, b"\0" * 30), (Method.PUT, b"\xff"), (Method.TXN, b"\xff" * 9),
    (Method.TXN, bytes(module._MOST_READ_BYTES + 1)), (Method.PUT | SAID, b""), (250, b""),
    (Method.WIDE, b"\1"),
])
def test_others_pass(request_: tuple[int, bytes]) -> None:
    node = Node()
    node.take(request_)
    assert node.seen == []
    assert len(node.passed) == 1


def test_a_mistake_ends_the_looks_and_no_request(monkeypatch: pytest.MonkeyPatch) -> None:
    node = Node()

    def mistake(method: int, body: bytes) -> None:
        raise AssertionError("of the policy")

    monkeypatch.setattr(module, "footprint", mistake)
    for _ in range(3):
        node.take((Method.PUT, PUT))
    node.sampling.second()
    node.take((Method.PUT, PUT))
    assert len(node.passed) == 4
    assert isinstance(node.sampling.failed, AssertionError)
    assert node.sampling.sample.skip > 1 << 60, "it looks at nothing any more"
