"""Specs and the requests made from them."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import replace
from time import perf_counter_ns
from typing import Any

import pytest

from bench.client.connection import Callback
from bench.load.spec import Spec
from bench.load.traffic.actors import Mixed
from bench.load.traffic.streams import prefix_end
from bench.load.traffic.workloads import compare_body, key_format, numbers, put_body, range_body, txn_body
from cluster.pb import rpc_pb2 as pb

SPEC = Spec("put", ("a:1", "b:2", "c:3"), total=1000, key_space=1000)


def test_puts_have_the_sizes_asked_for_and_keys_of_the_key_space() -> None:
    body = put_body(replace(SPEC, key_prefix="/p%/", key_size_bytes=20, val_size_bytes=300))
    for _ in range(100):
        request = pb.PutRequest.FromString(body(0))
        assert (len(request.key), len(request.value)) == (20, 300)
        assert request.key.startswith(b"/p%/")
        assert 0 <= int(request.key[4:]) < 1000


def test_a_value_of_no_bytes_and_a_stamped_value_are_right() -> None:
    assert pb.PutRequest.FromString(put_body(replace(SPEC, val_size_bytes=0))(0)).value == b""
    stamped = pb.PutRequest.FromString(put_body(replace(SPEC, val_size_bytes=300), stamped=True)(123_456_789))
    assert int.from_bytes(stamped.value[:8], "big") == 123_456_789
    assert len(stamped.value) == 300


def test_ranges_read_keys_that_puts_write() -> None:
    request = pb.RangeRequest.FromString(
        range_body(replace(SPEC, serializable=True, limit=5, keys_only=True))(0)
    )
    assert 0 <= int(request.key) < 1000
    assert (len(request.key), request.serializable, request.limit, request.keys_only) == (8, True, 5, True)
    whole = pb.RangeRequest.FromString(range_body(replace(SPEC, range_key="a", range_end="b"))(0))
    assert (whole.key, whole.range_end) == (b"a", b"b")


@pytest.mark.parametrize("value_size", [0, 1, 256, 70_000])
def test_transactions_put_as_many_different_keys_as_asked(value_size: int) -> None:
    spec = replace(SPEC, command="txn-put", txn_ops=7, val_size_bytes=value_size)
    request = pb.TxnRequest.FromString(txn_body(spec)(0))
    puts = [operation.request_put for operation in request.success]
    assert len({put.key for put in puts}) == 7
    assert {len(put.value) for put in puts} == {value_size}
    assert not request.compare


@pytest.mark.parametrize("value_size", [0, 1, 100, 256, 70_000])
@pytest.mark.parametrize("key_size", [8, 200])
def test_a_comparing_transaction_is_what_protobuf_would_write(key_size: int, value_size: int) -> None:
    body = compare_body(
        replace(SPEC, command="txn-compare", key_size_bytes=key_size, val_size_bytes=value_size)
    )(0)
    key = pb.TxnRequest.FromString(body).compare[0].key
    value = pb.TxnRequest.FromString(body).success[0].request_put.value
    assert (len(key), len(value)) == (key_size, value_size)
    get = pb.RequestOp(request_range=pb.RangeRequest(key=key))
    put = pb.RequestOp(request_put=pb.PutRequest(key=key, value=value))
    existed = pb.Compare(result=pb.Compare.GREATER, target=pb.Compare.VERSION, key=key, version=0)
    assert body == pb.TxnRequest(compare=[existed], success=[put, get], failure=[get]).SerializeToString()


def test_sequential_shares_cover_the_key_space_once() -> None:
    drawn: list[int] = []
    for share in replace(SPEC, distribution="sequential", clients=7).split(3):
        number = numbers(share)
        drawn += [number() for _ in range(share.total)]
    assert sorted(drawn) == list(range(1000))


@pytest.mark.parametrize("exponent", [0.5, 1.0, 1.1, 2.0])
def test_zipf_draws_in_proportion_to_rank(exponent: float) -> None:
    number = numbers(replace(SPEC, distribution="zipf", zipf_exponent=exponent))
    drawn = Counter(number() for _ in range(65_536))
    weights = [rank ** -exponent for rank in range(1, 1001)]
    for rank in (1, 2, 3, 10):
        wanted = 65_536 * weights[rank - 1] / sum(weights)
        assert abs(drawn[rank - 1] - wanted) < 6 * wanted ** 0.5
    assert set(drawn) <= set(range(1000))


def test_latencies_of_mixed_reads_and_writes_count_from_the_intended_time() -> None:
    class Server:
        connections: list[Any]

        def __init__(self) -> None:
            self.connections = [self]

        def call(self, path: str, body: bytes, callback: Callback) -> int:
            callback(None, b"")
            return 1

    async def mixed() -> Mixed:
        made = Mixed(replace(SPEC, command="mixed", clients=1), Server())  # type: ignore[arg-type]
        await made.create()
        planned_ns = perf_counter_ns() - 1_000_000_000
        for _ in range(50):
            made.callers[0].call("", planned_ns.to_bytes(8, "big"), lambda error, body: None)
        return made

    found = asyncio.run(mixed()).extra_us
    assert min(map(len, found.values())) > 0
    assert min(map(min, found.values())) >= 1_000_000


def test_shares_add_up_and_spread_over_all_endpoints() -> None:
    spec = replace(SPEC, clients=10, conns=4, total=1001, rate_per_s=100.0, streams=5, leases=10)
    shares = spec.split(4)
    assert sum(share.clients for share in shares) == 10
    assert sum(share.total for share in shares) == 1001
    assert sum(share.conns for share in shares) == 4
    assert sum(share.streams for share in shares) == 5
    assert sum(share.rate_per_s for share in shares) == pytest.approx(100)
    assert [share.endpoints[0] for share in shares] == ["a:1", "b:2", "c:3", "a:1"]
    assert len({share.seed for share in shares}) == 4
    assert len(replace(spec, clients=2).split(8)) == 2


@pytest.mark.parametrize("total", [1, 3, 10, 17])
def test_each_share_of_few_operations_has_one_since_none_is_no_limit(total: int) -> None:
    shares = replace(SPEC, clients=16, total=total).split(16)
    assert sum(share.total for share in shares) == total
    assert all(share.total for share in shares)
    assert sum(share.clients for share in shares) == 16


@pytest.mark.parametrize(("watchers", "streams", "processes"), [
    (5, 10, 1), (25, 10, 1), (10_000, 10, 1), (25, 10, 4), (5, 10, 4), (10, 3, 2), (7, 1, 4), (1, 10, 4)])
def test_shares_have_all_watchers_that_catch_up_and_each_has_one(
        watchers: int, streams: int, processes: int) -> None:
    spec = replace(SPEC, command="watch-get", total=0, clients=10, watchers=watchers, streams=streams)
    shares = spec.split(processes)
    assert sum(share.watchers for share in shares) == watchers
    assert sum(share.streams for share in shares) == min(streams, watchers)
    assert all(1 <= share.streams <= share.watchers for share in shares)
    on_each = [share.watchers / share.streams for share in shares]
    assert max(on_each) - min(on_each) <= 1
    assert sum(share.clients for share in shares) == 10


def test_a_spec_survives_its_way_to_a_client_process() -> None:
    spec = replace(SPEC, watch_prefix="ü", duration_s=1.5)
    assert Spec.loads(spec.dumps()) == spec


@pytest.mark.parametrize(("changes", "reason"), [
    ({"total": 0}, "needs an end"),
    ({"clients": 0}, "clients must be"),
    ({"key_size_bytes": 2}, "1000 keys need 3 digits"),
    ({"key_prefix": "/bench/"}, "give --key-size 10 or more, or fewer --keys"),
    ({"distribution": "normal"}, "uniform, zipf, sequential"),
    ({"command": "watch", "val_size_bytes": 7}, "at least 8 bytes"),
    ({"command": "txn-put", "txn_ops": 1001}, "only once"),
    ({"command": "get"}, "unknown command"),
    ({"endpoints": ()}, "no endpoint"),
    ({"command": "watch-get", "streams": 0}, "streams must be"),
    ({"command": "watch-get", "watchers": 0}, "watchers must be"),
    ({"rate_per_s": -1.0}, "must not be negative"), ({"val_size_bytes": -1}, "must not be negative"),
])
def test_what_cannot_be_run_is_refused_in_words(changes: dict[str, object], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        replace(SPEC, **changes).check()  # type: ignore[arg-type]


def test_the_smallest_key_size_that_holds_the_key_space_is_accepted() -> None:
    spec = replace(SPEC, key_size_bytes=3)
    spec.check()
    assert key_format(spec)(999) == b"999"


@pytest.mark.parametrize(
    ("prefix", "end"), [(b"a", b"b"), (b"a\xff", b"b"), (b"\xff\xff", b"\0"), (b"/x/", b"/x0")]
)
def test_the_end_of_a_prefix(prefix: bytes, end: bytes) -> None:
    assert prefix_end(prefix) == end
