"""What node 0 asks of the leaders of the other shards: prepares of transactions and their rows, and whatever
else is for a leader."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING

from cluster import errors
from cluster.errors import EtcdError
from cluster.order.log import Attempt
from cluster.order.prepare import Grant, decode_attempt, sent_at
from cluster.order.sequencing.coordinator import Coordinator
from cluster.order.sequencing.fetching import Ask, Fetched, Fetching
from cluster.wire.frames import PREPARE_SAYS_WHEN
from cluster.wire.messages import LEADER, Method, Status
from node.links.fronts import FrontLink
from node.links.siblings import NodeLink
from node.replica.roles.role import Body

if TYPE_CHECKING:
    from node.replica.shards.order_role import OrderRole

Token = tuple[FrontLink, int]


class ToLeaders:
    def __init__(self, role: OrderRole) -> None:
        common = role.settings.common
        self._role = role
        self._node, self._links, self._reports = role.node, role.links, role.reports
        self.fetching = Fetching(common.heartbeat_interval_ms, common.election_timeout_ms)

    def send_prepares(self, coordinator: Coordinator[Token], last: int) -> None:
        for message in coordinator.take_messages():
            member_id = self._reports.reporters.get(message.shard)
            if member_id is None or (link := self._links.find(member_id, message.shard)) is None:
                continue
            if message.method == Method.PREPARE:
                attempt = decode_attempt(message.body[:16])
                body = message.body if link.version < PREPARE_SAYS_WHEN else sent_at(message.body, last)
                link.request(message.method, body, self._answered(link, message.shard, attempt))
            else:
                link.request(message.method, message.body)

    def _answered(self, link: NodeLink, shard: int, attempt: Attempt) -> Callable[[int, bytes], None]:
        def answered(status: int, body: bytes) -> None:
            coordinator = self._role.coordinator
            if coordinator is None or attempt.term != coordinator.term:
                return
            if status == Status.OK:
                coordinator.granted(attempt, shard, Grant.decode(body, link.member_id))
            elif status == Status.LOCKED:
                coordinator.refused(attempt, shard, decode_attempt(body), self._node.now_ms())
            elif status == Status.ERROR and (e := EtcdError.decode(body)).kind is errors.REQUEST_TOO_LARGE:
                coordinator.cannot_grant(attempt, e)

        return answered

    def ask(
        self, shard: int, method: int, body: Body, answered: Callable[[int, bytes], bool] | None = None,
    ) -> None:
        """Asks the node that reported last that it leads; while that is unreachable, the own host's. A
        follower gets no reports: a node that no longer leads names the next one."""
        member_id = self._reports.reporters.get(shard)
        if member_id is None:
            return
        link = self._links.find(member_id, shard)
        if not self._role.sequencing and (link is None or not link.up):
            link = self._links.find(self._node.raft.id, shard)
        if link is None:
            return

        def said(status: int, data: bytes) -> bool:
            if status == Status.NOT_LEADER and len(data) == LEADER.size and not self._role.sequencing:
                leader, _ = LEADER.unpack(data)
                self._reports.reporters[shard] = leader or member_id
            return answered is not None and answered(status, data)

        link.request(method, body(link.version), said)
        self._node.wake()

    def fetch(
        self, attempt: Attempt, members: Mapping[int, int], rows: Fetched, token: Token,
        then: Callable[[bool], None],
    ) -> None:
        link, rid = token
        self.fetching.start(attempt, members, rows, lambda: link.awaits(rid), then, self._node.now_ms())
        self._node.wake()

    def send_asks(self) -> None:
        for ask in self.fetching.take_messages():
            if (link := self._links.find(ask.member_id, ask.shard)) is not None:
                link.request(Method.SHOWN, ask.body, partial(self._came, ask) if ask.answered else None)

    def _came(self, ask: Ask, status: int, body: bytes) -> None:
        self.fetching.came(ask, body if status == Status.OK else None, self._node.now_ms())
        self._node.wake()

    def heartbeat(self) -> None:
        self.fetching.again(self._node.now_ms(), self._links.reaches)
