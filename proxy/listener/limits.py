"""What clients may do at a front's ports, by its settings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from cluster.settings import FrontSettings
from proxy.http.http2 import Limits
from proxy.shared.context import RECEIVE_OVERHEAD_BYTES

_LEAST_BODY_BYTES = 12 << 20  # of a request over HTTP/1.1: a form of version 2 is refused from 10 MiB on
_MOST_METRICS_CONNECTIONS = 256
_GRPC_KEEPALIVE_MS = 7_200_000, 20_000  # which etcd leaves as they are where a flag is 0


def limits_of(settings: FrontSettings, descriptors: Callable[[], int]) -> Limits:
    """Those of the client port. ``descriptors``: how many connections this process's allow: storage and
    peers need some, whatever the settings say."""
    common = settings.common
    most, allowed = settings.max_client_connections, descriptors()
    max_message_bytes = common.max_request_bytes + RECEIVE_OVERHEAD_BYTES
    keepalive_ms = settings.grpc_keepalive_interval_ms, settings.grpc_keepalive_timeout_ms
    if min(keepalive_ms) <= 0:
        keepalive_ms = _GRPC_KEEPALIVE_MS
    return Limits(
        max_message_bytes=max_message_bytes,
        max_concurrent_streams=settings.max_concurrent_streams,
        max_connections=min(most, allowed) if most >= 0 else allowed,
        max_memory_bytes=settings.max_client_memory_bytes,
        connection_window_bytes=settings.max_unanswered_bytes,
        max_buffered_bytes=max(settings.max_unfinished_bytes, 2 * max_message_bytes),
        max_untaken_bytes=settings.max_untaken_bytes,
        max_queued_bytes=8 * settings.max_untaken_bytes,
        max_header_list_bytes=settings.max_header_bytes,
        max_http1_header_bytes=settings.max_header_bytes,
        # base64 has four octets for three
        max_body_bytes=max(_LEAST_BODY_BYTES, 2 * common.max_request_bytes),
        control_burst=settings.max_control_frames,
        control_rate=settings.max_control_frame_rate,
        reset_burst=settings.max_stream_resets,
        reset_rate=settings.max_stream_reset_rate,
        handshake_timeout_s=settings.client_head_timeout_ms / 1000,
        head_timeout_s=settings.client_head_timeout_ms / 1000,
        http1_idle_timeout_s=settings.http1_idle_timeout_ms / 1000,
        stalled_s=common.client_stall_timeout_ms / 1000,
        ping_min_interval_s=settings.grpc_keepalive_min_time_ms / 1000,
        keepalive_interval_s=keepalive_ms[0] / 1000,
        keepalive_timeout_s=keepalive_ms[1] / 1000,
    )


def limits_of_metrics(limits: Limits) -> Limits:
    """Those of --listen-metrics-urls. Its connections come out of what is kept for storage and peers: clients
    cannot fill it up."""
    most = max(1, min(limits.max_connections >> 3, _MOST_METRICS_CONNECTIONS))
    return replace(limits, max_connections=most)
