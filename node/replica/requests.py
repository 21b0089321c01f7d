"""What a node does with a request that is no write: the table of its methods."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from cluster.wire.messages import Method
from node.kinds import QUESTIONS
from node.links.fronts import FrontLink

if TYPE_CHECKING:
    from node.members.roster import Roster
    from node.replica.roles.role import Handler
    from node.serving.auth.admission import Admission
    from node.serving.backups import Backups
    from node.serving.confirm import Confirmations
    from node.serving.reads import Reads
    from node.serving.serve import Serve
    from node.serving.streams import Streams
    from node.serving.watch.watches import WatchSource
    from node.upkeep.upkeep import Upkeep


class RequestsNode(Protocol):
    confirmations: Confirmations
    watches: WatchSource
    reads: Reads
    backups: Backups
    streams: Streams
    serve: Serve
    upkeep: Upkeep
    roster: Roster

    admission: Admission
    handlers: dict[int, Handler]

    def hurry(self, link: FrontLink, revision: int) -> None: ...


def take_in(node: RequestsNode, link: FrontLink, rid: int, method: int, timeout_ms: int, body: bytes) -> None:
    if method in QUESTIONS:
        node.confirmations.ask(link, rid, method, body)
    elif method == Method.SUBSCRIBE:
        node.watches.subscribe(link, rid, body)
    elif method == Method.UNSUBSCRIBE:
        node.watches.unsubscribe(link, rid)
    elif method == Method.CANCEL:
        node.reads.cancel(link, rid)
        node.backups.end(link, rid)
        node.streams.end(link, rid)
    elif method == Method.CATCH_UP:
        node.hurry(link, int.from_bytes(body, "little"))
    elif method == Method.V2_FOLLOW:
        node.serve.v2.follow(link, body)
    elif method == Method.CREDIT:
        node.backups.credit(link, rid, int.from_bytes(body, "little"))
        node.streams.credit(link, rid, int.from_bytes(body, "little"))
    elif method == Method.PLACED:
        link.placed(body)
        node.reads.told(link)
    elif method == Method.FAREWELL:
        link.farewell = True
    elif method == Method.TRANSFER_LEADER:
        node.upkeep.succession.transfer(link, rid, body)
    elif method == Method.MEMBERS:
        node.roster.changes.submit(link, rid, body)
    elif method == Method.RECONFIGURE:
        node.roster.changes.asked(link, rid, body)
    elif method < Method.WIDE:
        node.serve.request(link, rid, method, timeout_ms, body)
    elif (handler := node.handlers.get(method)) is not None:
        handler(link, rid, timeout_ms, body)
    elif not node.admission.take(link, rid, method, timeout_ms, body):
        node.serve.request(link, rid, method, timeout_ms, body)
