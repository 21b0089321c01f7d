"""grpc.health.v1.Health."""

from __future__ import annotations

from proxy.services.health import HealthWatch
from tests.unit.proxy.fakes import FakeCall
from tests.unit.proxy.test_services import Served


def test_a_health_watch_is_answered_once_however_many_messages_come() -> None:
    served = Served()
    call = FakeCall()
    watch = HealthWatch(served.net.context)
    watch.opened(call)
    for _ in range(1000):
        watch.message(call, b"")
    assert call.replies == [b"\x08\x01"]
    assert not call.closed
