"""v3 keys by which hosts find each other (``--discovery-token``), as etcd's since 3.6.

The service is any etcd-compatible cluster. Below ``/_etcd/registry/TOKEN`` are ``_config/size`` and
``members/ID``. Unlike in a v2 directory, a host may register again. Nothing is watched: ``directory`` looks
each second.
"""

from __future__ import annotations

import contextlib
import posixpath
import time
from dataclasses import replace
from typing import Any

import grpc
from muster_client.errors import MusterError, ServerError
from muster_client.wire import engine
from muster_client.wire.calls import Caller, Method

from cluster.pb import rpc_pb2 as pb
from tools.client.channels import Channels, Config
from tools.client.exits import Exit
from tools.muster.discovery.service import Answer, Node, Refused, Unreachable

_NOT_FOUND = 100  # v2's code, which the caller checks
_REFUSALS = frozenset((grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.INVALID_ARGUMENT))


class Registry:
    """One token's keys."""

    def __init__(self, config: Config, token: str, timeout_ms: int = 5000) -> None:
        """``timeout_ms``: of a request. ``config.user`` may have the password, too: ``name:password``."""
        user, colon, password = config.user.partition(":")
        if colon and not config.password:
            config = replace(config, user=user, password=password)
        self._config = config
        self._timeout_s = timeout_ms / 1000
        self.base = ",".join(config.endpoints)
        self._at = posixpath.normpath(f"/_etcd/registry/{token}")
        self._members = f"{self._at}/members/"

    def get(self, name: str = "") -> Answer:
        """The size, a member, or all members. Unreachable, Refused."""
        if name and not name.startswith("_"):
            return self._one(self._members + name)
        if name:
            return self._one(f"{self._at}/{name}")
        key = self._members.encode()
        # etcd asks for all keys that begin with "members"
        found = self._range(pb.RangeRequest(key=key, range_end=key[:-1] + bytes((key[-1] + 1,))))
        nodes = [
            Node(kv.key[len(key) :].decode("utf-8", "replace"), _text(kv.value), kv.create_revision)
            for kv in found.kvs
        ]
        # as etcd: other keys do not count
        return Answer("", 0, found.header.revision, tuple(n for n in nodes if "=" in n.value))

    def create(self, name: str, value: str) -> Answer:
        """Register a member, maybe again."""
        request = pb.PutRequest(key=(self._members + name).encode(), value=value.encode())
        revision = self._call("KV/Put", request, pb.PutResponse).header.revision
        return Answer(value, revision, revision, ())

    def wait(self, name: str, index: int) -> None:
        """Nothing: the caller looks again."""

    def _one(self, key: str) -> Answer:
        found = self._range(pb.RangeRequest(key=key.encode()))
        if not found.kvs:
            raise Refused(_NOT_FOUND, f"{key} is not there")
        (kv,) = found.kvs
        return Answer(kv.value.decode("utf-8", "replace"), kv.create_revision, found.header.revision, ())

    def _range(self, request: Any) -> Any:
        return self._call("KV/Range", request, pb.RangeResponse)

    def _call(self, method: str, request: Any, response: Any) -> Any:
        """One endpoint after the other. Unreachable, Refused."""
        reasons: list[str] = []
        for endpoint in self._config.endpoints:
            try:
                with contextlib.closing(Channels(self._config, (endpoint,))) as channels:
                    if channels.first(time.monotonic() + self._config.limits().dial_s) is None:
                        reasons.append(f"{endpoint}: no connection in time")
                        continue
                    caller = Caller(  # with a new token each time, as one may expire
                        channels.connections, self._config.user, self._config.password, self._timeout_s)
                    call = caller.unary(Method(method, response), request, needs_leader=False)
                    return engine.submit(call).result()
            except MusterError as e:
                if isinstance(e, ServerError) and e.code in _REFUSALS:
                    raise Refused(0, str(e)) from None
                reasons.append(f"{endpoint}: {e}")
            except Exit as e:  # files of TLS
                raise Refused(0, str(e)) from None
        raise Unreachable("; ".join(reasons))


def _text(value: bytes) -> str:
    return value.decode("utf-8", "replace").strip()
