"""What clients are told when the front ends."""

from __future__ import annotations

import asyncio
import threading

import grpc
import pytest

from tests.unit.grpc.harness import Service, same, serving, wait_for


@pytest.fixture
def service() -> Service:
    return Service()


def test_stopping_answers_what_is_open_and_tells_clients_to_go(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proxy.listener.server._LINGER_S", 60.0)  # a client on a busy machine reads late
    with serving(service.registry) as running, grpc.insecure_channel(running.address) as channel:
        future = channel.unary_unary("/t.S/Park", same, same).future(b"")
        wait_for(lambda: len(service.parked) == 1)
        stopper = threading.Thread(target=running.stop, args=(200,))
        stopper.start()
        wait_for(lambda: service.parked[0].connection.draining)
        running.call(service.parked[0].reply, b"done")
        assert future.result(timeout=60) == b"done"
        stopper.join(100)
        assert not stopper.is_alive(), "nothing is open, so the grace need not pass"
        assert running.call(running.server.statistics)["connections"] == 0


def test_an_answer_that_is_said_in_the_turn_of_the_close_is_sent(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    sleep = asyncio.sleep

    async def answers(delay_s: float) -> None:
        """No turn of the loop lies between the answer and the next look whether all is answered."""
        if replies and replies[0].connection.draining:
            replies.pop().reply(b"done")
        else:
            await sleep(delay_s)

    with serving(service.registry) as running, grpc.insecure_channel(running.address) as channel:
        future = channel.unary_unary("/t.S/Park", same, same).future(b"")
        wait_for(lambda: len(service.parked) == 1)
        replies = list(service.parked)
        monkeypatch.setattr("proxy.listener.server.asyncio.sleep", answers)
        monkeypatch.setattr("proxy.listener.server._LINGER_S", 60.0)
        running.stop(200)
        assert future.result(timeout=60) == b"done"
