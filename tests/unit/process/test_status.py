"""What a process says to its supervisor."""

from __future__ import annotations

import json
import os
from typing import Any

from tools.muster.machine.process.status import StatusPipe, parts


class Said:
    def __init__(self) -> None:
        self.lines: list[dict[str, Any]] = []

    def say(self, event: str, **facts: Any) -> None:
        self.lines.append({"event": event, **facts})


def test_lines_of_json_go_to_the_pipe_and_a_supervisor_that_is_gone_is_no_error() -> None:
    read, write = os.pipe()
    pipe = StatusPipe(write)
    pipe.say("leader", shard=2, leader=7)
    assert [json.loads(line) for line in os.read(read, 1000).splitlines()] == [
        {"event": "leader", "shard": 2, "leader": 7}
    ]
    os.close(read)
    pipe.say("ready")
    pipe.say("ready")
    os.close(write)
    StatusPipe(-1).say("ready")


def test_a_process_of_two_parts_is_ready_once_and_when_both_are() -> None:
    said = Said()
    node, front = parts(said, 2)
    node.say("leader", leader=1)
    node.say("ready")
    node.say("ready")
    assert said.lines == [{"event": "leader", "leader": 1}]
    front.say("ready")
    front.say("ready")
    node.say("fatal", error="x")
    assert said.lines[1:] == [{"event": "ready"}, {"event": "fatal", "error": "x"}]
