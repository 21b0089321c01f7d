"""Watch responses are read by hand where many watchers get the same: against protobuf."""

from __future__ import annotations

import pytest

from bench.streams import _envelope
from cluster.pb import rpc_pb2 as pb


def response(watch_id: int, events: int, revision: int = 7) -> pb.WatchResponse:
    made = pb.WatchResponse(watch_id=watch_id)
    made.header.cluster_id = made.header.member_id = 2**63 + 5
    made.header.revision = revision
    made.header.raft_term = 3
    for i in range(events):
        event = made.events.add()
        event.kv.key = b"k"
        event.kv.mod_revision = revision + i
    return made


@pytest.mark.parametrize("watch_id", [0, 1, 127, 128, 9_999, 2**40])
def test_the_envelope_ends_where_the_events_begin_and_they_read_alone(watch_id: int) -> None:
    made = response(watch_id, 3)
    found, at = _envelope(made.SerializeToString())
    assert found == watch_id
    assert pb.WatchResponse.FromString(made.SerializeToString()[at:]).events == made.events


def test_responses_that_say_something_else_are_left_to_protobuf() -> None:
    created, cancelled, progress, fragment = response(3, 0), response(3, 0), response(-1, 0), response(3, 1)
    created.created = cancelled.canceled = fragment.fragment = True
    for made in (created, cancelled, progress, fragment, pb.WatchResponse()):
        assert _envelope(made.SerializeToString()) == (0, 0)
