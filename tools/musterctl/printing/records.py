"""Findings of the endpoint commands, one record per endpoint."""

from __future__ import annotations

from dataclasses import dataclass

from muster_client.pb import rpc_pb2


@dataclass(slots=True, frozen=True)
class EndpointHealth:
    """Whether an endpoint served a linearizable read; ``took`` is a printed duration."""

    endpoint: str
    healthy: bool
    took: str
    error: str


@dataclass(slots=True, frozen=True)
class EndpointStatus:
    endpoint: str
    response: rpc_pb2.StatusResponse


@dataclass(slots=True, frozen=True)
class EndpointHash:
    endpoint: str
    response: rpc_pb2.HashKVResponse
