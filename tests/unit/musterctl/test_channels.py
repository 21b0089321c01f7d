"""A connection of musterctl notices a network that is dead, by its own times."""

from __future__ import annotations

import time
from collections.abc import Iterator

import grpc
import pytest
from muster_client import MusterError
from muster_client.pb import rpc_pb2 as pb

from tests.interop.library.cutting import Cutting
from tests.unit.library.scripted import scripted, watched
from tools.client.channels import Config
from tools.musterctl.client import Client, RequestError


def test_a_watch_at_an_endpoint_that_stands_still_ends() -> None:
    """Within its keep-alive time and timeout."""
    with scripted({"Watch/Watch": watched}) as address:
        proxy = Cutting(address, lambda n: (None, None))
        config = Config((proxy.address,), keepalive_ms=500, keepalive_timeout_ms=500)
        client = Client(config, config.endpoints)
        try:
            def end(error: MusterError) -> None:
                raise error

            watch = client.raw().watch(pb.WatchCreateRequest(key=b"a"), on_again=end)
            client.run(watch.__aenter__())  # it is created
            proxy.stall()
            began = time.monotonic()
            with pytest.raises(RequestError) as met:
                client.run(watch.next())
            assert met.value.code is grpc.StatusCode.UNAVAILABLE
            assert time.monotonic() - began < 10
        finally:
            client.close()
            proxy.close()


def test_an_endpoint_that_answers_pings_is_kept_where_they_have_no_time_limit() -> None:
    """0 stands for gRPC's own limit."""
    with scripted({"Watch/Watch": watched}) as address:
        config = Config((address,), keepalive_ms=100, keepalive_timeout_ms=0)
        client = Client(config, config.endpoints)
        broken: list[MusterError] = []
        try:
            watch = client.raw().watch(pb.WatchCreateRequest(key=b"a"), on_again=broken.append)
            client.run(watch.__aenter__())  # it is created
            with pytest.raises(RequestError, match="context deadline exceeded"):
                client.run(watch.next(), time.monotonic() + 1.0)
            client.run(watch.close())
        finally:
            client.close()
    assert broken == []


@pytest.mark.parametrize(("code", "text"), [
    (grpc.StatusCode.UNAVAILABLE, ""),
    (grpc.StatusCode.FAILED_PRECONDITION, "etcdserver: rpc not supported for learner")])
def test_a_stream_begins_again_where_etcdctls_does(
    code: grpc.StatusCode, text: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """What broke is told; an answer that etcdctl would end with ends it."""
    asked: list[int] = []

    def renew(
        requests: Iterator[pb.LeaseKeepAliveRequest], context: grpc.ServicerContext
    ) -> Iterator[pb.LeaseKeepAliveResponse]:
        asked.append(next(requests).ID)
        if len(asked) == 1:
            context.abort(code, text or "away")
        yield pb.LeaseKeepAliveResponse(ID=5)

    with scripted({"Lease/LeaseKeepAlive": renew}) as address:
        client = Client(Config((address,), debug=True), (address,))
        met = ""
        try:
            told = client.raw().renewals(5, on_again=client.again)
            assert [answer.ID for answer in client.each(told)] == [5]
        except RequestError as error:
            met = str(error)
        finally:
            client.close()
    assert (met, len(asked)) == (text, 1 if text else 2)
    said = f"musterctl: debug: {address}: rpc error: code = Unavailable desc = away\n"
    assert (said in capfd.readouterr().err) == (not text)
