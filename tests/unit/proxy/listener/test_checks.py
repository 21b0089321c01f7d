"""What health endpoints ask, while keys move and links end."""

from __future__ import annotations

import pytest

from cluster.placement import Table
from cluster.placement.base import Base
from cluster.placement.changes import Moved, take_compact, take_move, take_moved
from cluster.placement.table import Move
from cluster.wire.messages import READ, Method, Status
from node.serving.reads import agree
from proxy.listener.endpoints import Checks
from proxy.services.table import register_all
from tests.unit.proxy.fakes import FakeNode, Net
from tests.unit.proxy.served import Methods

KEY = b"\0"
BEFORE = Table.initial(Base(2, 2))
SOURCE = BEFORE.owner(KEY)
AFTER = take_moved(
    take_move(BEFORE, Move(1, KEY, KEY + b"\0", (SOURCE,), 1 - SOURCE), 5), Moved(1, True, 5, 0), 5)


def answer(node: FakeNode) -> None:
    """Serve the check, in a cluster where keys have moved."""
    (asked,) = (request for request in node.take() if request.method in (Method.ALARM, Method.RANGE))
    assert agree(AFTER, None, asked.method, asked.body[READ.size :]), "a node would answer MOVED"
    node.ok(asked)


@pytest.mark.parametrize("link_ends", [False, True])
def test_g7_a_check_is_answered_though_keys_have_moved_and_a_table_comes_or_its_link_ends(
    link_ends: bool
) -> None:
    net = Net(shards=2).started()
    register_all(Methods(), net.context)
    node, said = net.nodes[1], list[str]()
    node.answer(0, Status.PLACEMENT, AFTER.encode())
    net.run()
    Checks(net.context).read(False, said.append)
    net.run()
    (question,) = node.take(Method.READ_INDEX)
    if not link_ends:
        node.answer(0, Status.PLACEMENT, take_compact(AFTER, 8).encode())
        net.run()
    node.index(question, 9)
    net.run()
    if link_ends:
        net.cut(1)
        net.lead(2, 3)
        net.pass_time(0.2)
        node = net.nodes[2]
    answer(node)
    net.run()
    assert said == [""]
