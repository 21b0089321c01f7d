"""Limits against abuse, and the ping rules of both directions.

The ping rules are grpc-go's, for clients without TLS: one each ``ping_min_interval_s`` while a call is open,
else one in two hours. More than two strikes end the connection. A ping after HEADERS or DATA of the server is
free, by TLS too, since clients measure bandwidth so.
"""

from __future__ import annotations

from dataclasses import dataclass

from proxy.http.http2.frames import ConnectionFault, ErrorCode

MAX_PING_STRIKES = 2
IDLE_PING_INTERVAL_S = 7200.0
_REMEMBERED_RESETS = 4_096
_FEW_RESETS, _ID_BYTES = 256, 64  # what counts, and what each takes in a dictionary


@dataclass(slots=True, frozen=True)
class Limits:
    """Every limit of the front's transports. Bytes and seconds."""

    max_message_bytes: int = 1_572_864 + 524_288  # of one request: max_request_bytes + gRPC overhead, as etcd
    max_concurrent_streams: int = 0xFFFF_FFFF  # of one connection; the largest value is not advertised
    max_connections: int = 1 << 30  # of one front; the next one is closed as it comes
    max_memory_bytes: int = 1 << 62  # what the connections of a front hold together (``proxy.http.memory``)
    stream_window_bytes: int = 1_048_576  # what a client may send on a stream before we ask for more
    connection_window_bytes: int = 4_194_304  # whole unanswered requests of a connection
    max_header_list_bytes: int = 65_536  # counted as RFC 7541 section 4.1 does; above: the stream is refused
    max_continuations: int = 32  # CONTINUATION frames of one block
    max_buffered_bytes: int = 67_108_864  # unfinished request messages of one connection
    # untaken answers: at half of it, with its socket full, a client is not read; a stream of more is reset
    max_unsent_bytes: int = 8_388_608
    max_untaken_bytes: int = 33_554_432  # untaken answers beyond which the client's next large ranges wait
    # answers that wait for windows, above which new calls are refused; a few honest ranges fit
    max_queued_bytes: int = 268_435_456
    write_high_bytes: int = 1_048_576  # socket buffer: above it streams queue, and their owners are told
    # a stream's on_drain is called when its queue falls to this; of an HTTP/1.1 connection: what its socket
    # buffer may hold before what is handed over waits
    drain_mark_bytes: int = 65_536
    control_burst: float = 1_000.0  # frames that bring nothing (SETTINGS, PRIORITY, empty DATA) at once
    control_rate: float = 100.0  # and per second
    fault_burst: float = 10_000.0  # faults of streams, refused and late ones among them, at once
    fault_rate: float = 1_000.0  # and per second
    reset_burst: float = 10_000.0  # unanswered calls a client resets, at once
    reset_rate: float = 5_000.0  # and per second
    ping_min_interval_s: float = 5.0
    ping_permit_without_stream: bool = False
    keepalive_interval_s: float = 7200.0  # silence after which the server pings
    keepalive_timeout_s: float = 20.0  # and then closes
    linger_s: float = 10.0  # what a closed connection has to take the last answers
    handshake_timeout_s: float = 20.0  # until a connection has said what it speaks, with its first request
    head_timeout_s: float = 20.0  # from a request's first field to its last
    max_body_bytes: int = 12 << 20  # HTTP/1.1 request body
    max_http1_header_bytes: int = 65_536
    http1_idle_timeout_s: float = 300.0
    stalled_s: float = 60.0  # a client that takes nothing for so long loses memory that others need


class Budget:
    """What a connection may send of one kind: ``burst`` at once, ``rate`` a second."""

    __slots__ = ("_burst", "_rate", "_since", "_tokens", "_what")

    def __init__(self, what: str, burst: float, rate: float, now: float) -> None:
        self._what = what
        self._burst = burst
        self._rate = rate
        self._tokens = burst
        self._since = now

    def pay(self, now: float) -> None:
        """One came. ConnectionFault if it is one too many."""
        self._tokens = min(self._burst, self._tokens + (now - self._since) * self._rate) - 1.0
        self._since = now
        if self._tokens < 0.0:
            raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, f"too many {self._what}")


class PingPolicy:
    """Counts strikes of a client that pings too often. ``sent`` is set whenever HEADERS or DATA leave."""

    __slots__ = ("_last", "_limits", "_strikes", "sent")

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._last = float("-inf")
        self._strikes = 0
        self.sent = False

    def is_free(self) -> bool:
        """Whether HEADERS or DATA have left since the last ping."""
        free, self.sent = self.sent, False
        return free

    def ping(self, now: float, open_streams: int) -> bool:
        """A ping came; False if it is one too many."""
        last, self._last = self._last, now
        if self.is_free():
            self._strikes = 0
            return True
        idle = open_streams < 1 and not self._limits.ping_permit_without_stream
        if last + (IDLE_PING_INTERVAL_S if idle else self._limits.ping_min_interval_s) > now:
            self._strikes += 1
        return self._strikes <= MAX_PING_STRIKES


class ResetIds:
    """Ids of streams that were reset by either side; the oldest are forgotten. Late frames on them are judged
    apart (section 5.1): every other closed stream ended by END_STREAM."""

    __slots__ = ("_by_us",)

    def __init__(self) -> None:
        self._by_us: dict[int, bool] = {}

    def add(self, stream_id: int, by_us: bool) -> None:
        self._by_us[stream_id] = by_us
        if len(self._by_us) > _REMEMBERED_RESETS:
            del self._by_us[next(iter(self._by_us))]

    def shrink(self) -> None:
        """Keep the newest few."""
        self._by_us = dict(list(self._by_us.items())[-_FEW_RESETS:])

    @property
    def size_bytes(self) -> int:
        """What they take, but for a few."""
        return max(len(self._by_us) - _FEW_RESETS, 0) * _ID_BYTES

    def by_us(self, stream_id: int) -> bool | None:
        """Whether this side reset it; None: no reset is remembered."""
        return self._by_us.get(stream_id)


class KeepAlive:
    __slots__ = ("_asked", "_interval", "_seen", "_timeout")

    def __init__(self, interval_s: float, timeout_s: float, now: float) -> None:
        self._interval = interval_s
        self._timeout = timeout_s
        self._seen = now  # last time anything was read
        self._asked = 0.0  # when the outstanding ping left; 0.0: none

    def check(self, now: float, last_read: float) -> str:
        """"" nothing to do, "ping" send one, "dead" close."""
        if last_read > self._seen:
            self._seen = last_read
            self._asked = 0.0
        if self._asked:
            return "dead" if now - self._asked >= self._timeout else ""
        if now - self._seen >= self._interval:
            self._asked = now
            return "ping"
        return ""
