"""What waits at a sequencer that can log nothing."""

from __future__ import annotations

from unittest.mock import MagicMock

import pytest

from node.replica.shards.order_role import OrderRole


@pytest.mark.parametrize("has_room", [False, True])
def test_a_sequencer_that_does_not_run_is_swept(has_room: bool) -> None:
    """One that runs looks at all that waits by itself."""
    role = MagicMock()
    role.writes.has_room = has_room
    role.node.now_ms.return_value = 7
    OrderRole._heartbeat(role)
    assert role.coordinator.sweep.mock_calls == ([] if has_room else [((7,),)])
