"""Clients' watch streams: one or two watches each, of every kind; what was asked and what was sent is
remembered."""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING, Any

from cluster.features.auth.principal import Principal
from cluster.pb import rpc_pb2 as pb

if TYPE_CHECKING:
    from tests.sim.clients.order_clients import Call, Clients
    from tests.sim.world.order_host import FrontProcess

SECOND_ID = 7  # of a stream's second watch; the first has the id that the front gives: 0
WHOLE_STREAM = -1  # the watch id of a progress answer
PROGRESS_S = 0.4  # how often a watch that wants it is told of its progress


@dataclass(eq=False)
class Watch:
    """One watch of one stream."""

    number: int
    front: int
    request: Any
    asked_at: float
    low: int
    stream: Stream
    responses: list[tuple[float, Any]] = field(default_factory=list)  # fragments are put together
    cancelled_at: float = 0.0  # its client cancelled it
    # every event up to it is delivered: the last event's revision, or one that a progress answer named
    cursor: int = 0
    progress_at: float = 0.0  # the last periodic progress
    fragments: list[Any] = field(default_factory=list)
    denied: str | None = None  # its user may not: asked, or watching already
    denied_at: float = 0.0

    @property
    def ended(self) -> str | None:
        """Why its stream ended, or None."""
        return self.stream.ended

    @property
    def cancelled(self) -> bool:
        """Whether the front has said that it is over."""
        return self.denied is not None or (bool(self.responses) and self.responses[-1][1].canceled)

    def __repr__(self) -> str:
        return (
            f"watch {self.number} of {str(self.request).strip()!r} by front "
            f"{self.front} at {self.asked_at:.4f}"
        )


@dataclass(eq=False)
class Stream:
    """One Watch call."""

    front: FrontProcess
    watches: dict[int, Watch] = field(default_factory=dict)  # by id
    # progress requests without an answer: what the front had told anyone by then
    asked: list[int] = field(default_factory=list)
    answered: tuple[float, int] = (0.0, 0)  # the last one: when, and with which revision
    call: Call | None = None
    ended: str | None = None
    who: Principal | None = None  # its user
    judged: bool = False  # clients are users, so it may be refused
    unknown: bool = False  # its front did not know yet that users are on: as an etcd that is behind


class WatchClients:
    """Opens streams, cancels watches, asks for progress."""

    def __init__(self, clients: Clients) -> None:
        self._clients = clients
        self._simulation = clients.simulation
        self._random = Random(f"{clients.simulation.seed}/watches")
        self.watches: list[Watch] = []
        self.streams: list[Stream] = []

    def open(self, front: FrontProcess) -> None:
        """A stream with one watch or two."""
        # the client's own generator for what every plan has always drawn: its seeds stay what they are
        r, clients, simulation = self._clients.random, self._clients, self._simulation
        key, end = clients.span()
        create = pb.WatchCreateRequest(key=key, range_end=end, prev_kv=r.random() < 0.3)
        if r.random() < 0.5:
            create.start_revision = clients.old()
        creates, r = [create], self._random
        if r.random() < 0.3:
            key, end = clients.span(r)
            creates.append(pb.WatchCreateRequest(
                key=key, range_end=end, prev_kv=r.random() < 0.3, watch_id=SECOND_ID,
                start_revision=clients.old(r) if r.random() < 0.5 else 0))
        stream = Stream(front)
        self.streams.append(stream)
        for create in creates:
            create.progress_notify = r.random() < 0.3
            create.fragment = r.random() < 0.3
            if r.random() < 0.3:
                create.filters.extend(
                    r.choice(([pb.WatchCreateRequest.NOPUT], [pb.WatchCreateRequest.NODELETE]))
                )
            watch = Watch(len(self.watches) + 1, front.host, create, simulation.now, clients.shown, stream)
            self.watches.append(watch)
            stream.watches[create.watch_id] = watch
        stream.call = clients.call(
            lambda data: self._told(stream, data), lambda status, message: self._ended(stream, message)
        )

        clients.dress_watches(stream)

        def start() -> None:
            handler = front.handlers["Watch"]
            stream.unknown = not front.router.principals.enabled
            handler.opened(stream.call)
            for create in creates:
                handler.message(stream.call, pb.WatchRequest(create_request=create).SerializeToString())

        simulation.at(0.0001, front, start)

    def ask(self) -> None:
        """A progress request on a stream by chance, or now and then the end of a watch."""
        r = self._random
        streams = [s for s in self.streams if s.ended is None and s.front.alive and not s.front.paused]
        if not streams:
            return
        stream = r.choice(streams[-10:])
        if r.random() < 0.15:
            name, watch = r.choice(sorted(stream.watches.items()))
            if watch.responses and not watch.cancelled_at:
                watch.cancelled_at = self._simulation.now
                self._send(stream, pb.WatchRequest(cancel_request=pb.WatchCancelRequest(watch_id=name)))
        else:
            self.ask_progress(stream)

    def ask_progress(self, stream: Stream) -> None:
        """A progress request."""
        stream.asked.append(stream.front.told)
        self._send(stream, pb.WatchRequest(progress_request=pb.WatchProgressRequest()))

    def _send(self, stream: Stream, request: Any) -> None:
        front = stream.front
        self._simulation.at(
            0.0001, front, lambda: front.handlers["Watch"].message(stream.call, request.SerializeToString())
        )

    def front_died(self, front: FrontProcess) -> None:
        """Its clients' connections broke."""
        for stream in self.streams:
            if stream.front is front and stream.ended is None:
                stream.ended = "the front died"

    def _ended(self, stream: Stream, message: str) -> None:
        stream.ended = message or "ended"

    def _told(self, stream: Stream, data: bytes) -> None:
        if not data:  # the stream's headers
            return
        response = pb.WatchResponse.FromString(data)
        self._simulation.checker.streamed(stream, response)
        revision = response.header.revision
        self._clients.shown = max(self._clients.shown, revision)
        stream.front.told = max(stream.front.told, revision)
