"""Keys of version 3 by which hosts find each other, as etcd's since 3.6 do: ``--discovery-token``.

The service is any cluster that speaks etcd's API. Below ``/_etcd/registry/TOKEN`` are ``_config/size`` and
``members/ID``. Unlike a directory of version 2, a host may register there again: an etcd puts its key anew.

Nothing is watched: who waits looks each second (``tools.muster.discovery.directory``).
"""

from __future__ import annotations

import contextlib
import posixpath
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import grpc

from cluster.pb import rpc_pb2 as pb
from tools.client.channels import Config, opened
from tools.client.exits import Exit
from tools.muster.discovery.service import Answer, Node, Refused, Unreachable

_NOT_FOUND = 100  # as of version 2: whoever asks looks at it
_REFUSALS = frozenset((grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.INVALID_ARGUMENT))
_NO_USERS = "authentication is not enabled"


@dataclass(slots=True, frozen=True)
class Access:
    """How the service is reached: the flags ``--discovery-...``."""

    endpoints: tuple[str, ...]
    token: str
    dial_timeout_ms: int = 2000
    request_timeout_ms: int = 5000
    keepalive_ms: int = 2000
    keepalive_timeout_ms: int = 6000
    insecure_transport: bool = True
    skip_verify: bool = False
    cert: str = ""
    key: str = ""
    cacert: str = ""
    user: str = ""
    password: str = ""


class Registry:
    """One token's keys."""

    def __init__(self, access: Access) -> None:
        user, colon, password = access.user.partition(":")
        if access.password or not colon:
            user, password = access.user, access.password
        self._config = Config(
            endpoints=access.endpoints,
            insecure_transport=access.insecure_transport,
            cert=access.cert,
            key=access.key,
            cacert=access.cacert,
            user=user,
            password=password,
            keepalive_ms=access.keepalive_ms,
            keepalive_timeout_ms=access.keepalive_timeout_ms,
            dial_timeout_ms=access.dial_timeout_ms,
            skip_verify=access.skip_verify,
        )
        self._timeout_s = access.request_timeout_ms / 1000
        self.base = ",".join(access.endpoints)
        self._at = posixpath.normpath(f"/_etcd/registry/{access.token}")
        self._members = f"{self._at}/members/"

    def get(self, name: str = "") -> Answer:
        """The size, a member, or all members. Unreachable, Refused."""
        if name and not name.startswith("_"):
            return self._one(self._members + name)
        if name:
            return self._one(f"{self._at}/{name}")
        key = self._members.encode()
        # etcd asks for all that begins with "members"
        found = self._range(pb.RangeRequest(key=key, range_end=key[:-1] + bytes((key[-1] + 1,))))
        nodes = [
            Node(kv.key[len(key) :].decode("utf-8", "replace"), _text(kv.value), kv.create_revision)
            for kv in found.kvs
        ]
        # as etcd: what is no entry does not count
        return Answer("", 0, found.header.revision, tuple(n for n in nodes if "=" in n.value))

    def create(self, name: str, value: str) -> Answer:
        """Register a member, again perhaps."""
        request = pb.PutRequest(key=(self._members + name).encode(), value=value.encode())
        revision = self._call("KV/Put", request, pb.PutResponse).header.revision
        return Answer(value, revision, revision, ())

    def wait(self, name: str, index: int) -> None:
        """Nothing: who waits looks again."""

    def _one(self, key: str) -> Answer:
        found = self._range(pb.RangeRequest(key=key.encode()))
        if not found.kvs:
            raise Refused(_NOT_FOUND, f"{key} is not there")
        (kv,) = found.kvs
        return Answer(kv.value.decode("utf-8", "replace"), kv.create_revision, found.header.revision, ())

    def _range(self, request: Any) -> Any:
        return self._call("KV/Range", request, pb.RangeResponse)

    def _call(self, method: str, request: Any, response: Any) -> Any:
        """Asked of one endpoint after the other. Unreachable, Refused."""
        reasons: list[str] = []
        for endpoint in self._config.endpoints:
            try:
                with self._channel(endpoint) as channel:
                    metadata = self._metadata(channel)
                    return _unary(channel, method, response)(
                        request, timeout=self._timeout_s, metadata=metadata
                    )
            except grpc.RpcError as e:
                if e.code() in _REFUSALS:
                    raise Refused(0, e.details() or e.code().name) from None
                reasons.append(f"{endpoint}: {e.details() or e.code().name}")
            except grpc.FutureTimeoutError:
                reasons.append(f"{endpoint}: no connection in time")
            except Exit as e:  # files of TLS
                raise Refused(0, str(e)) from None
        raise Unreachable("; ".join(reasons))

    @contextlib.contextmanager
    def _channel(self, endpoint: str) -> Iterator[grpc.Channel]:
        with opened(self._config, endpoint) as channel:
            grpc.channel_ready_future(channel).result(timeout=self._config.dial_timeout_ms / 1000)
            yield channel

    def _metadata(self, channel: grpc.Channel) -> Sequence[tuple[str, str]]:
        """A token of the user, anew each time: one may have ended."""
        if not self._config.user:
            return ()
        request = pb.AuthenticateRequest(name=self._config.user, password=self._config.password)
        try:
            answer = _unary(channel, "Auth/Authenticate", pb.AuthenticateResponse)(
                request, timeout=self._timeout_s
            )
        except grpc.RpcError as e:
            if _NO_USERS in (e.details() or ""):
                return ()
            raise
        return (("token", answer.token),)


def _unary(channel: grpc.Channel, method: str, response: Any) -> Any:
    return channel.unary_unary(
        f"/etcdserverpb.{method}",
        request_serializer=lambda message: message.SerializeToString(),
        response_deserializer=response.FromString,
    )


def _text(value: bytes) -> str:
    return value.decode("utf-8", "replace").strip()
