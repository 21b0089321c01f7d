"""A router without a member of its own: its headers name the member that answers, as with etcd's grpc-proxy.

A host's own router has none of this: its headers name the host.
"""

from __future__ import annotations

from typing import Any

from cluster.settings import Common
from cluster.wire.protobuf import ResponseHeaders, header_prefix
from proxy.routing.links import Link
from proxy.routing.router import Router


class Answering(Router):
    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self._named = 0  # whom headers name
        self._prefixes: dict[int, tuple[bytes, ResponseHeaders]] = {}  # by member

    def link_answers(self, link: Link, answers: list[tuple[int, int, bytes]]) -> None:
        """What a node says unasked, as its state, names nobody; but for the first one that is heard."""
        member = link.member_id
        if member != self._named and (not self._named or any(rid for rid, _, _ in answers)):
            self._name(member)
        super().link_answers(link, answers)

    def _name(self, member: int) -> None:
        if member not in self._prefixes:
            prefix = header_prefix(self.common.cluster_id, member)
            self._prefixes[member] = prefix, ResponseHeaders(prefix)
        self._named = member
        self.header_prefix, self._headers = self._prefixes[member]
        self._header_key = (-1, -1)  # the header that is kept is another's


def kind_of(common: Common) -> type[Router]:
    return Router if common.member_id else Answering
