"""A host lists members once it is listed itself: an etcd serves only then.

A host publishes its name and client URLs as soon as its cluster has a leader. Until its node lists it so,
questions for members wait here, ``LIMIT_S`` at most and once: a host without a majority answers all the
same.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from cluster.pb import rpc_pb2
from cluster.wire.messages import HEAD, Method

if TYPE_CHECKING:
    from proxy.routing.router import Router
    from proxy.routing.waiting import Waiting

LIMIT_S = 5.0
_MOST_WAITING = 20_000


class Listing:
    def __init__(self, router: Router) -> None:
        self.stands = not router.common.member_id  # a proxy is no member
        self._router = router
        self._waiting: list[Callable[[], None]] = []
        self._asking = False
        self._until: float | None = None  # set by the first question

    def when_listed(self, then: Callable[[], None]) -> None:
        """Call back once this host lists itself, or ``LIMIT_S`` are over."""
        if self.stands or len(self._waiting) >= _MOST_WAITING:
            then()
            return
        if self._until is None:
            self._until = self._router.loop.time() + LIMIT_S
        self._waiting.append(then)
        self._ask()

    def tick(self, now: float) -> None:
        if self._until is None or self.stands:
            return
        if now >= self._until:
            self._release()
        else:
            self._ask()

    def _ask(self) -> None:
        if not self._asking:
            self._asking = True
            router = self._router
            router.local(None, Method.MEMBER_LIST, b"", 0, router.quiet, self._heard)

    def _heard(self, _: Waiting, status: int, body: bytes) -> None:
        self._asking = False
        if self.stands or status != 0:
            return
        if lists(body, self._router.common.member_id):
            self._release()

    def _release(self) -> None:
        self.stands = True
        waiting, self._waiting = self._waiting, []
        for then in waiting:
            then()


def lists(body: bytes, member_id: int) -> bool:
    """Whether a node's answer to MEMBER_LIST has this member as one that has started."""
    members = rpc_pb2.MemberListResponse.FromString(body[HEAD.size :]).members
    return member_id in {m.ID for m in members if m.name or m.clientURLs}
