"""What may come to the peer port: bytes, greetings of ZMTP, hellos, and frames of one whom a node takes for
its peer or front."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from cluster.order.log import Attempt
from cluster.order.prepare import Prepare, Touch
from cluster.pb import rpc_pb2 as pb
from cluster.raft import Message, encode_messages
from cluster.wire.frames import LOWEST
from cluster.wire.messages import HELLO_BODY, READ, REQUEST, SEQUENCE, Method
from node.links.peers import HELLO
from tests.faults.fuzz import messages
from tools.muster.machine.zmtp.codec import GREETING, frame_head, ready
from tools.muster.machine.zmtp.port.preamble import wants

KINDS = b"RSPADVLNG?XHFZ\0"


@dataclass(frozen=True)
class Impostor:
    """Whom the frames claim to come from, so that they are taken."""

    cluster_id: int
    member_id: int
    incarnation: int
    to: int
    shards: int
    depth: int


def preamble(r: Random, shard: int) -> bytes:
    """What goes before it, or half, or nothing: then the first shard's node is meant."""
    whole = messages.mutated(r, wants(shard)) if r.random() < 0.3 else wants(shard)
    return r.choice((b"", whole, whole, whole[: r.randrange(len(whole) + 1)]))


def stranger(r: Random) -> bytes:
    """Bytes of a connection that does not know how to talk to a node, or half."""
    greeting = messages.mutated(r, GREETING) if r.random() < 0.4 else GREETING
    command = ready(
        r.choice((b"DEALER", b"DEALER", b"ROUTER", b"PUB", b"")), r.randbytes(r.choice((0, 5, 13, 200)))
    )
    if r.random() < 0.4:
        command = messages.mutated(r, command)
    rest = r.choice(
        (
            b"", r.randbytes(50), b"\2\xff\xff\xff\xff\xff\xff\xff\xff", b"\4\0", b"\4\x05\x04PING", b"\0\0",
            b"\1\1x" * 100,
        )
    )
    return (greeting + command + rest) if r.random() < 0.8 else r.randbytes(r.choice((1, 20, 64, 300)))


def frames(r: Random, who: Impostor, shard: int) -> bytes:
    """A connection that says hello as a peer, or as a front, and then what it likes."""
    out = bytearray(GREETING + ready(b"DEALER", b"p" + r.randbytes(12)))
    if r.random() < 0.5:
        hello = b"H" + HELLO.pack(LOWEST, who.cluster_id, who.member_id, who.incarnation, shard)
        sent = [messages.mutated(r, hello) if r.random() < 0.1 else hello]
        sent += [bytes((r.choice(KINDS),)) + _peer_body(r, who) for _ in range(r.randint(1, 8))]
        if r.random() < 0.3:
            sent.insert(r.randint(0, len(sent)), b"")
    else:
        sent = [b"F" + data for data in _front_frames(r, who)]
    for frame in sent:
        out += frame_head(len(frame), False) + frame
    return bytes(out)


def _peer_body(r: Random, who: Impostor) -> bytes:
    """Anything but what a healthy peer sends: a sound message of Raft is to be believed, whatever it says."""
    what = r.random()
    if what < 0.3:
        message = Message(r.randint(0, 12), r.choice((who.member_id, 7)), who.to, 1, r.randrange(9), 1)
        return messages.mutated(r, encode_messages([message]))[:-1]
    if what < 0.5:
        _, bodies = messages.requests(r)
        return b"".join(bodies)[:2000]
    return r.randbytes(r.choice((0, 1, 2, 7, 8, 9, 16, 17, 24, 25, 100)))


def _front_frames(r: Random, who: Impostor) -> list[bytes]:
    hello = HELLO_BODY.pack(
        LOWEST, who.cluster_id, who.member_id, r.getrandbits(60), who.shards, who.depth
    )
    if r.random() < 0.1:
        hello = messages.mutated(r, hello)
    found = [SEQUENCE.pack(1) + _request(0, Method.HELLO, hello)]
    rid = 0
    for sequence in range(2, r.randint(3, 8)):
        records = []
        for _ in range(r.randint(1, 5)):
            rid += 1
            method = r.choice((*Method, *Method, *Method, 99, 255))
            if method in (Method.TRANSFER_LEADER, Method.REPORT, Method.FEED_ACK, Method.RELEASE):
                continue  # what these say is to be believed
            records.append(_request(rid, method, _front_body(r, method)))
        data = SEQUENCE.pack(sequence) + b"".join(records)
        found.append(messages.mutated(r, data) if r.random() < 0.1 else data)
    return found


def _request(rid: int, method: int, body: bytes) -> bytes:
    return REQUEST.pack(rid, method, 1000, len(body)) + body


def _front_body(r: Random, method: int) -> bytes:
    if method == Method.PREPARE and r.random() < 0.7:
        touches = [
            Touch(
                r.choice((b"", b"a", b"k1")), r.choice((b"", b"\0", b"b")), r.random() < 0.5,
                r.choice((0, 1, 1 << 63)),
            )
        ]
        compares = [
            pb.Compare(key=b"a", range_end=r.choice((b"", b"\0", b"b")),
                       target=r.choice((0, 2, 3, 9)))  # type: ignore[arg-type]
            for _ in range(r.choice((0, 1, 3)))
        ]
        return messages.mutated(r, Prepare(
            Attempt(r.choice((0, 1, 2)), r.randrange(5)), 0, 0, touches, [-1, 5], [], compares).encode())
    if r.random() < 0.2:
        return r.randbytes(r.choice((0, 1, 7, 8, 9, 17, 25, 60)))
    _, bodies = messages.requests(r)
    body = b"".join(bodies)
    return (
        READ.pack(r.choice((0, 1, 1 << 40)), r.choice((0, 1, 1 << 63))) + body if r.random() < 0.6 else body
    )
