"""Evaluation against a dictionary: every response, refusal, revision and all history after every request."""

from random import Random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.errors import EtcdError
from cluster.pb import rpc_pb2 as pb
from tests.interop.differential.endpoints import _UNARY, MemoryEndpoint
from tests.interop.differential.steps import Context, Generator

from .memory import MemoryShard
from .model import Model, Refused

METHODS = MemoryEndpoint._METHODS


def answer(shard: MemoryShard, rpc: str, request: Any) -> Any:
    try:
        revision, tail = shard.execute(METHODS[rpc], request.SerializeToString())
    except EtcdError as e:
        return e.kind.name
    response = _UNARY[rpc][1].FromString(tail)
    response.header.revision = revision
    # spliced by hand, and still exactly what protobuf would write
    assert pb_bytes(response, tail)
    return response


def pb_bytes(response: Any, tail: bytes) -> bool:
    bare = type(response)()
    bare.CopyFrom(response)
    bare.ClearField("header")
    return bool(bare.SerializeToString(deterministic=True) == tail)


def expected(model: Model, rpc: str, request: Any) -> Any:
    try:
        return model.call(rpc, request)
    except Refused as e:
        return str(e)


@given(st.randoms(use_true_random=False), st.integers(1, 60))
@settings(max_examples=150, deadline=None)
def test_requests_do_what_the_model_says(random: Random, count: int) -> None:
    run(random, count)


def test_long_sequences_do_what_the_model_says() -> None:
    for seed in range(6):
        run(Random(seed), 400)


def run(random: Random, count: int) -> None:
    shard, model, context = MemoryShard(), Model(), Context()
    for step in Generator(random, context).steps(count):
        if step.rpc not in METHODS or (step.rpc == "LeaseGrant" and not step.request.ID):
            continue
        assert answer(shard, step.rpc, step.request) == expected(model, step.rpc, step.request), str(step)
        assert shard.revision == model.revision
        context.revision, context.compact_revision = shard.revision, shard.compact_revision
    for revision in range(max(model.compacted, 1), model.revision + 1):
        request = pb.RangeRequest(key=b"\0", range_end=b"\0", revision=revision)
        assert answer(shard, "Range", request) == expected(model, "Range", request)
    assert shard.leases == model.leases
