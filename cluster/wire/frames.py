"""Every kind of frame, record and line that processes of muster exchange, in one declaration.

Each entry says who sends it, who answers and how, and what becomes of it when it is lost.
``docs/design/frames.md`` is made of it (``make docs``). Numbers of methods and answers are those of
``cluster.wire.messages``; the kinds that replicas of one shard exchange are declared here, and a node takes
no other.

Versions. A link speaks the highest version that both sides know. Each side says which ones it does: the
lowest in its hello, the range in what follows (``VERSIONS``, or the spare field of a front's hello), which
version 7, the oldest, passes over. A kind is sent only on links of its version or a higher one. What changes
the meaning of a kind raises ``HIGHEST``; ``LOWEST`` rises when no host of that version is to be met any more,
so that hosts of two neighbouring versions always work together.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum

from cluster.wire.messages import Method, Status

LOWEST, HIGHEST = 7, 9  # versions that this program speaks


class PeerKind(IntEnum):
    """First byte of a frame between the replicas of one shard."""

    HELLO = ord("H")
    VERSIONS = ord("W")
    RAFT = ord("R")
    SNAPSHOT = ord("S")
    PUBLISH = ord("P")
    ALARM = ord("A")
    FLOORS = ord("D")
    PROMISES = ord("B")
    SPACE = ord("V")
    HAND_OVER = ord("L")
    STATE_WANTED = ord("N")
    LEAVING = ord("G")
    ASKED_WHEN = ord("T")
    ANSWERED_WHEN = ord("t")
    FRONT = ord("F")
    WHO = ord("?")
    REFUSED = ord("X")
    JOIN = ord("J")

    @property
    def byte(self) -> bytes:
        """As it stands in the frame."""
        return bytes((self,))


@dataclass(slots=True, frozen=True)
class Kind:
    """One kind."""

    name: str
    code: str  # on the wire
    sender: str
    receiver: str
    body: str
    answer: str  # who answers, and how; "" where nobody does
    lost: str  # what becomes of it when it is lost
    since: int = LOWEST


_RESENT = "Raft sends it again"
_WRITE_LOST = "its fate is unknown: the client is told so, and nobody resends it (I23)"
_READ_LOST = "asked again, of any replica, within the request's time"
_ASKED_AGAIN = "asked again"
_ANSWERED_AGAIN = "the question is asked again"
_LINK_ENDS = "the link ends with it: frames are numbered, and a gap ends a link"


def _peer(
    kind: PeerKind,
    body: str,
    answer: str,
    lost: str,
    since: int = LOWEST,
    to: str = "replica of the same shard",
) -> Kind:
    return Kind(kind.name, kind.byte.decode(), "replica", to, body, answer, lost, since)


PEER_KINDS: dict[PeerKind, Kind] = {
    PeerKind.HELLO: _peer(PeerKind.HELLO,
        "a version u16, cluster ID, member ID, incarnation u64 each, shard u32; first frame of a link. "
        "Before it parts that versions 7 and 8 pass over: the sender's origin (`cluster.members.origin`), "
        "its term and the end of its log (`node.links.promises`)",
        "REFUSED, or nothing", "asked for by WHO"),
    PeerKind.VERSIONS: _peer(PeerKind.VERSIONS, "lowest and highest version u16 each; follows a hello", "",
        "the link speaks the hello's version", 8),
    PeerKind.RAFT: _peer(PeerKind.RAFT, "Raft messages (`cluster.raft.encode_messages`)", "RAFT", _RESENT),
    PeerKind.SNAPSHOT: _peer(PeerKind.SNAPSHOT,
        "kind u8, transfer u64, offset u64, data: a state on its way (`node.upkeep.snapshots`)",
        "SNAPSHOT: what has come, or why it is refused",
        "the transfer is given up after 10 s, and begun anew"),
    PeerKind.PUBLISH: _peer(PeerKind.PUBLISH, "a host's name and URLs: `etcdserverpb.Member`", "",
        "said again until the state shows it", to="leader"),
    PeerKind.ALARM: _peer(
        PeerKind.ALARM, "an alarm of a host: `AlarmRequest`", "", "said again while it holds", to="leader"
    ),
    PeerKind.FLOORS: _peer(PeerKind.FLOORS,
        "what a host's nodes have durably applied: u64 for each shard from 1 on", "", "said again every 2 s",
        to="node 0"),
    PeerKind.PROMISES: _peer(PeerKind.PROMISES,
        "what members have acknowledged (`cluster.raft.promises`)", "",
        "said again with the next ack, every 2 s at most", 9),
    PeerKind.SPACE: _peer(PeerKind.SPACE, "u8, how short of space the sender's disk is", "",
        "said again each second while it is short", to="node 0"),
    PeerKind.HAND_OVER: _peer(PeerKind.HAND_OVER,
        "`?`; or `!`, the sequencer that it reaches, its order index u64 each", "HAND_OVER with `!`",
        "asked again each second, or with the next back-off"),
    PeerKind.STATE_WANTED: _peer(PeerKind.STATE_WANTED, "order index applied u64",
        "SNAPSHOT, if the receiver is further on", "asked again, of the next peer"),
    PeerKind.LEAVING: _peer(
        PeerKind.LEAVING, "empty: the sender is about to end", "", "said again every heartbeat until it ends"
    ),
    PeerKind.ASKED_WHEN: _peer(PeerKind.ASKED_WHEN, "the asker's clock, ns u64", "ANSWERED_WHEN",
        "one sample of the round trips is missing"),
    PeerKind.ANSWERED_WHEN: _peer(
        PeerKind.ANSWERED_WHEN, "the same u64", "", "one sample of the round trips is missing"
    ),
    PeerKind.FRONT: Kind("FRONT", "F", "front or node of another host", "node, and back",
        "a frame of the table below, sequence and records", "FRONT", _LINK_ENDS),
    PeerKind.WHO: _peer(PeerKind.WHO, "empty: the answer to a frame before any hello", "HELLO",
        "the next frame is answered again"),
    PeerKind.REFUSED: _peer(PeerKind.REFUSED, "code u8, reason in UTF-8", "HELLO again after 5 s",
        "the next frame is answered with WHO, and the hello refused again"),
    PeerKind.JOIN: Kind("JOIN", "J", "host that is to join; replica that does not find who says hello",
        "node; replica of the same shard", "empty: who belongs to the cluster?",
        "JOIN: JSON of cluster ID, shards, depth, members", "asked again, of the next host; each second", 8),
}

PEER_FRAMES = frozenset(int(k) for k in PEER_KINDS) - {
    PeerKind.HELLO,
    PeerKind.FRONT,
    PeerKind.WHO,
    PeerKind.REFUSED,
    PeerKind.JOIN,
}
"""What a peer sends after its hello."""


def _ask(
    method: Method, sender: str, receiver: str, body: str, answer: str, lost: str, since: int = LOWEST,
) -> tuple[Method, Kind]:
    return method, Kind(method.name, str(int(method)), sender, receiver, body, answer, lost, since)


def _write(method: Method, body: str, receiver: str = "leader of its shard") -> tuple[Method, Kind]:
    return _ask(method, "front", receiver, body, "OK: HEAD + fields; ERROR, NOT_LEADER, UNKNOWN", _WRITE_LOST)


def _read(method: Method, body: str, answer: str = "OK: HEAD + fields; ERROR") -> tuple[Method, Kind]:
    return _ask(method, "front", "replica", f"READ + {body}", answer, _READ_LOST)


def _node(
    method: Method, sender: str, receiver: str, body: str, answer: str, lost: str
) -> tuple[Method, Kind]:
    return _ask(method, sender, receiver, body, answer, lost)


_NOTHING = ""
_PARTS = "PARTIAL..., OK: HEAD + fields; ERROR"

REQUESTS: dict[Method, Kind] = dict(
    (
        _ask(Method.HELLO, "front or node", "node",
            "HELLO_BODY; its time-out field: highest version u16, lowest u16, or 0", "STATE, or REFUSED",
            "the link hears no STATE, and is made anew"),
        _write(Method.PUT, "`PutRequest`"),
        _write(Method.DELETE_RANGE, "`DeleteRangeRequest`"),
        _write(Method.TXN, "`TxnRequest`"),
        _write(Method.COMPACT, "`CompactionRequest`", "sequencer"),
        _write(Method.LEASE_GRANT, "`LeaseGrantRequest`", "sequencer"),
        _write(Method.LEASE_REVOKE, "`LeaseRevokeRequest`", "sequencer"),
        _write(Method.SET_ALARM, "`AlarmRequest`", "sequencer"),
        _write(Method.SET_DOWNGRADE, "`DowngradeRequest` that enables or cancels", "sequencer"),
        _write(Method.AUTH_CHANGE, "a change of users and roles: its number, the request", "sequencer"),
        _ask(Method.V2_WRITE, "front", "sequencer",
            "a change of the v2 tree (`cluster.features.v2.requests`), or of its users (`.user_changes`)",
            "OK: HEAD + `Answer`, of a refusal too; ERROR, NOT_LEADER, UNKNOWN", _WRITE_LOST, 8),
        _ask(Method.V2_READ, "front", "replica of shard 0",
            "READ + kind u8, index of the v2 tree to wait for u64, the request",
            "OK: HEAD + `Answer`; ERROR", _READ_LOST, 8),
        _ask(Method.V2_FOLLOW, "front", "replica of shard 0", "u8: whether it wants the v2 tree's events",
            "V2_EVENTS...", "the link ends, and is asked for anew", 8),
        _ask(Method.MEMBERS, "front", "sequencer",
            "kind u8 (+ 0x80: quorum unchecked) + `MemberAddRequest` and so on",
            "OK: HEAD + fields; ERROR, NOT_LEADER, UNKNOWN", _WRITE_LOST, 8),
    _ask(Method.PUBLISH, "node", "sequencer", "`etcdserverpb.Member`", "OK",
            "said again until the state shows it"),
        _ask(Method.READ_INDEX, "front", "sequencer", "empty", "OK: READ_INDEX_ANSWER", _READ_LOST),
        _ask(Method.LEASE_KEEPALIVE, "front", "sequencer", "`LeaseKeepAliveRequest`", "OK: HEAD + fields",
            _READ_LOST),
        _ask(Method.LEASE_TTL, "front", "sequencer", "`LeaseTimeToLiveRequest`", "OK: HEAD + fields",
            _READ_LOST),
        _ask(Method.LEASE_KEEPALIVES, "front", "sequencer", "lease IDs, i64 each",
            "OK: HEAD + TTLs, i64 each", _READ_LOST),
        _read(Method.RANGE, "`RangeRequest`", _PARTS),
        _read(Method.LEASE_LEASES, "`LeaseLeasesRequest`"),
        _read(Method.MEMBER_LIST, "`MemberListRequest`"),
        _read(Method.DOWNGRADE, "`DowngradeRequest` that validates"),
        _read(Method.DEFRAGMENT, "nothing: files are rewritten", "OK: HEAD, once that is done"),
        _read(Method.HASH, "`HashRequest`"),
        _read(Method.HASH_KV, "`HashKVRequest`"),
        _read(Method.STATUS, "`StatusRequest`"),
        _read(Method.COUNTERS, "nothing", "OK: HEAD + JSON of `node.upkeep.counters`"),
        _read(Method.FACTS, "nothing", "OK: HEAD + JSON of `node.upkeep.facts`"),
        _ask(Method.SNAPSHOT, "front", "replica", "READ; nothing: hold a checkpoint; or names of such",
            "PARTIAL: the checkpoint; or bytes left u64 + chunk, as far as CREDIT goes; OK: HEAD",
            "the client's stream ends"),
        _read(Method.ALARM, "`AlarmRequest`: those that are raised"),
        _read(Method.AUTH_SHOW, "what of users and roles: its number, the request"),
        _read(Method.READ_TXN, "`TxnRequest` that writes nothing", _PARTS),
        _read(Method.RANGE_STREAM, "`RangeRequest`", "PARTIAL: whole KeyValues; OK: HEAD + fields; ERROR"),
        _ask(Method.SUBSCRIBE, "front", "node of its host", "SUBSCRIBE_HEAD + key + range_end",
            "SUBSCRIBED, EVENTS..., LOST",
            "the link ends, and the watch is subscribed anew from where it was"),
        _ask(Method.UNSUBSCRIBE, "front", "node of its host", "rid of the subscription", _NOTHING,
            "events of nobody are dropped"),
        _ask(Method.HISTORY, "front", "node of its host", "HISTORY_HEAD + key + range_end",
            "OK: HISTORY_ANSWER + events; ERROR", _ASKED_AGAIN),
        _read(
            Method.RANGE_ROWS, "`RangeRequest`",
            "PARTIAL..., OK: HEAD + rows (`cluster.evaluate.reading.row_parts`)"
        ),
        _read(
            Method.STREAM_ROWS, "`RangeRequest`",
            "PARTIAL..., OK: HEAD + rows (`cluster.evaluate.reading.row_parts`)"
        ),
        _read(Method.LEASE_KEYS, "`LeaseTimeToLiveRequest`"),
        _ask(Method.CATCH_UP, "front", "node of its host", "revision u64 that a read waits for", "WATERMARK",
            "the watermark comes with what leaves next"),
        _ask(Method.CANCEL, "front", "node", "rid of a request that nobody waits for", _NOTHING,
            "its answer is dropped"),
        _ask(Method.WIDE, "front", "sequencer", "method u8 + the request, which touches several shards",
            "OK: HEAD + fields; ERROR, NOT_LEADER, UNKNOWN", _WRITE_LOST),
        _ask(Method.LONE, "front", "sequencer", "shard u16 + the request", "OK, ERROR, NOT_LEADER, ELSEWHERE",
            _WRITE_LOST),
        _node(Method.PREPARE, "sequencer", "shard's leader", "attempt, footprint (`cluster.order.prepare`)",
            "OK: GRANT; LOCKED, NOT_LEADER",
            "sent again every few heartbeats until it is answered or given up"),
        _node(
            Method.RELEASE, "sequencer", "shard's leader", "attempt", _NOTHING, "the leader asks with QUERY"
        ),
        _node(Method.QUERY, "shard's leader", "sequencer", "attempt", "OK: FATE", _ASKED_AGAIN),
        _node(Method.REPORT, "shard's leader", "sequencer", "shard, index, term, count, applied order index",
            _NOTHING, "sent again every heartbeat until the feed shows it"),
        _node(Method.FEED, "node", "any host's node 0", "shard u16, first order index u64",
            "PARTIAL: FEED_HEAD + projection, for ever", "the link ends, and the feed is asked for anew"),
        _node(Method.FEED_ACK, "node", "any host's node 0", "order index applied, durable u64 each, haste u8",
            _NOTHING, "the next one says more"),
        _ask(Method.SHOWN, "sequencer", "who granted the attempt", "attempt, number of the piece u32",
            "OK: a piece of rows (`cluster.order.shown`); UNKNOWN: they are kept no more", _ASKED_AGAIN, 8),
        _ask(Method.RECONFIGURE, "sequencer", "shard's leader",
            "kind of change u8, member ID u64; from version 9 on the sequencer's term u64",
            "OK: JSON of where the group stands; NOT_LEADER", "asked again while it is due", 8),
        _ask(Method.CREDIT, "front", "node",
            "rid of an answer in parts: bytes u64 that may be sent of it, in all", _NOTHING,
            "the link ends, and the answer with it"),
        _ask(Method.FAREWELL, "front", "node that is about to end", "empty", _NOTHING,
            "the node waits an election timeout"),
        _ask(Method.TRANSFER_LEADER, "front", "shard's leader", "member ID u64", "OK, ERROR, NOT_LEADER",
            _WRITE_LOST),
    )
)


def _said(
    status: Status, body: str, lost: str = _ANSWERED_AGAIN, answer: str = "", since: int = LOWEST,
) -> tuple[Status, Kind]:
    return status, Kind(
        status.name, str(int(status)), "node", "front or node that asked", body, answer, lost, since
    )


ANSWERS: dict[Status, Kind] = dict(
    (
        _said(Status.OK, "done; the last record for its rid"),
        _said(Status.ERROR, "number u16 (`cluster.errors`) + text; nothing was changed"),
        _said(Status.NOT_LEADER, "LEADER; certainly not logged"),
        _said(Status.UNKNOWN, "number u16 + text; logged, its fate is unknown",
            "the client's time ends with the same answer"),
        _said(Status.PARTIAL, "more records for this rid follow", _LINK_ENDS),
        _said(Status.EVENTS, "events of one subscription (`cluster.wire.events`)", _LINK_ENDS),
        _said(Status.SUBSCRIBED, "SUBSCRIBED_BODY", _LINK_ENDS),
        _said(Status.STATE, "rid 0: STATE_BODY, after the hello, at every change and every few heartbeats",
            "a link that hears none for an election timeout is dead"),
        _said(Status.WATERMARK, "rid 0: revision u64, all events up to it have been sent",
            "the next one says more"),
        _said(Status.REFUSED, "rid 0: reason in UTF-8", "the link hears no STATE, and is made anew"),
        _said(Status.LOCKED, "the attempt that a prepare would have to wait for"),
        _said(
            Status.ELSEWHERE, "certainly not logged; to be sent to the sequencer as WIDE, or to the leader"
        ),
        _said(
            Status.LEAVING, "rid 0: the node is about to end", "the link ends when the node does", "FAREWELL"
        ),
        _said(Status.VERSIONS, "rid 0: lowest and highest version u16 each; in the first frame",
            "the link speaks the hello's version", since=8),
        _said(Status.AUTH, "rid 0: order index u64, enabled u8, auth revision u64, secret of simple tokens",
            "the link ends with it", since=8),
        _said(Status.MEMBERS, "rid 0: the table of members (`cluster.members.table`), of shard 0's nodes",
            _LINK_ENDS, since=8),
        _said(Status.V2_EVENTS,
            "rid 0: index of the v2 tree u64, whether there is a gap before u8, events with what each swept",
            _LINK_ENDS, since=8),
        _said(Status.LOST, "a subscription has a gap: it is to be made anew from history", _LINK_ENDS),
    )
)

LINES: tuple[Kind, ...] = (
    Kind("ready", '{"event": "ready"}', "node or front", "supervisor", "JSON line on the status pipe", "",
        "a pipe loses nothing; a process that ends is started again"),
    Kind("leader", '{"event": "leader"}', "node", "supervisor", "shard, leader, name, term", "", "as above"),
    Kind("drained", '{"event": "drained"}', "front in node 0's process", "supervisor", "nothing",
        "the signal that ends it", "as above"),
    Kind("fatal", '{"event": "fatal"}', "node", "supervisor", "shard, error: a restart would not help",
        "the host is stopped", "as above; the exit code 3 says the same"),
    Kind("control", '{"do": ...}', "`muster` on the same machine", "supervisor",
        "JSON line on the control socket", "one JSON line", "the asker's time ends, and it says so"),
    Kind("figures", "(connection)", "front", "front of the same host",
        "nothing: whoever connects to `front-<i>.sock` is told", "one JSON array, then the end",
        "that front's figures are missing from one scrape"),
)


def agreed(lowest: int, highest: int) -> int | None:
    """The version that a link speaks with a side that speaks these; None: there is none."""
    common = min(highest, HIGHEST)
    return common if common >= max(lowest, LOWEST) else None


# -- docs/design/frames.md


def _table(kinds: Iterable[Kind]) -> list[str]:
    lines = [
        "| kind | code | from | to | body | answer | when lost | since |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for k in kinds:
        cells = (
            k.name,
            f"`{k.code}`",
            k.sender,
            k.receiver,
            k.body,
            k.answer or "none",
            k.lost,
            str(k.since),
        )
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return lines


def page() -> str:
    """The documentation, in Markdown."""
    return "\n".join(
        [
            "# Frames",
            "",
            "Generated from `cluster/wire/frames.py` by `make docs`.",
            "",
            f"This program speaks versions {LOWEST} to {HIGHEST}; a link speaks the highest both know.",
            "",
            "## Between the replicas of one shard",
            "",
            "One frame per peer and turn of the loop; the first byte is the kind.",
            "",
            *_table(PEER_KINDS.values()),
            "",
            "## Requests: from a front, or from a node of another shard",
            "",
            "A frame is a sequence number and records; `cluster/wire/messages.py` has their layout.",
            "",
            *_table(REQUESTS[method] for method in Method),
            "",
            "A front adds 128 to a method's code where it says who asks: a principal stands before the body",
            "(`cluster/features/auth/principal.py`). Since version 8.",
            "",
            "## Answers",
            "",
            *_table(ANSWERS[status] for status in Status),
            "",
            "## Lines inside a host",
            "",
            *_table(LINES),
            "",
        ]
    )


if __name__ == "__main__":
    print(page(), end="")
