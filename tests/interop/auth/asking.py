"""A client that tells what it was answered, for calls on muster and on a real etcd."""

from __future__ import annotations

import queue
from typing import Any

import grpc

from cluster.pb import auth_pb2
from cluster.pb import rpc_pb2 as pb

LIMIT_S = 30.0
PERM = auth_pb2.Permission


class Client:
    """One server, and the tokens of those who have logged in."""

    def __init__(self, *endpoints: str) -> None:
        self.channels = [grpc.insecure_channel(endpoint) for endpoint in endpoints]
        self.tokens: dict[str, str] = {}

    def ask(self, method: str, request: Any, who: str = "", host: int = 0) -> Any:
        """The response without its header, or the error as text."""
        answer = getattr(pb, type(request).__name__.removesuffix("Request") + "Response")
        call = self.channels[host].unary_unary(
            f"/etcdserverpb.{method}",
            request_serializer=type(request).SerializeToString,
            response_deserializer=answer.FromString,
        )
        try:
            found = call(request, timeout=LIMIT_S, metadata=self.metadata(who), wait_for_ready=True)
        except grpc.RpcError as error:
            return f"{error.code().name}: {error.details()}"
        found.ClearField("header")
        return found

    def metadata(self, who: str) -> tuple[tuple[str, str], ...]:
        """What says who asks; ``?``: a token that nobody gave."""
        return (("token", "nobody.1" if who == "?" else self.tokens[who]),) if who else ()

    def login(self, name: str, password: str, host: int = 0) -> str:
        """Keeps the token; what went wrong, or nothing."""
        found = self.ask("Auth/Authenticate", pb.AuthenticateRequest(name=name, password=password), host=host)
        if isinstance(found, str):
            return found
        self.tokens[name] = found.token
        return ""

    def put(self, key: bytes, who: str = "", **rest: Any) -> Any:
        return self.ask("KV/Put", pb.PutRequest(key=key, value=b"v", **rest), who)

    def get(self, key: bytes, who: str = "", range_end: bytes = b"", host: int = 0, **rest: Any) -> Any:
        return self.ask(
            "KV/Range", pb.RangeRequest(key=key, range_end=range_end, count_only=True, **rest), who, host
        )

    def grant(self, role: str, key: bytes, range_end: bytes = b"", kind: int = 2, who: str = "") -> Any:
        perm = PERM(key=key, range_end=range_end)
        perm.permType = kind  # type: ignore[assignment]
        return self.ask(
            "Auth/RoleGrantPermission", pb.AuthRoleGrantPermissionRequest(name=role, perm=perm), who
        )

    def add(self, name: str, password: str, *roles: str, who: str = "") -> None:
        assert not isinstance(
            self.ask("Auth/UserAdd", pb.AuthUserAddRequest(name=name, password=password), who), str
        )
        for role in roles:
            granted = self.ask("Auth/UserGrantRole", pb.AuthUserGrantRoleRequest(user=name, role=role), who)
            assert not isinstance(granted, str)

    def watch(self, key: bytes, who: str = "", range_end: bytes = b"") -> Watch:
        return Watch(self.channels[0], key, range_end, self.metadata(who))

    def peer_urls(self) -> list[str]:
        members = self.ask("Cluster/MemberList", pb.MemberListRequest(), "root").members
        return [url for member in members for url in member.peerURLs]

    def arrange(self) -> None:
        """Auth is on; ``root`` may everything, ``u`` what begins with ``/d/u/`` and the key ``/d/k``."""
        self.ask("Auth/RoleAdd", pb.AuthRoleAddRequest(name="r"))
        self.grant("r", b"/d/u/", b"/d/u0")
        self.grant("r", b"/d/k")
        self.add("root", "r", "root")
        self.add("u", "u", "r")
        assert not isinstance(self.ask("Auth/AuthEnable", pb.AuthEnableRequest()), str)
        assert not self.login("root", "r")
        assert not self.login("u", "u")

    def disarrange(self) -> None:
        """As it was before."""
        self.login("root", "r")
        self.ask("KV/DeleteRange", pb.DeleteRangeRequest(key=b"\0", range_end=b"\0"), "root")
        self.ask("Auth/AuthDisable", pb.AuthDisableRequest(), "root")
        for user in self.ask("Auth/UserList", pb.AuthUserListRequest()).users:
            self.ask("Auth/UserDelete", pb.AuthUserDeleteRequest(name=user))
        for role in self.ask("Auth/RoleList", pb.AuthRoleListRequest()).roles:
            self.ask("Auth/RoleDelete", pb.AuthRoleDeleteRequest(role=role))


class Watch:
    """One watch."""

    def __init__(
        self, channel: grpc.Channel, key: bytes, range_end: bytes, metadata: tuple[tuple[str, str], ...]
    ) -> None:
        self._asked: queue.Queue[Any] = queue.Queue()
        self._asked.put(pb.WatchRequest(create_request=pb.WatchCreateRequest(key=key, range_end=range_end)))
        self.answers = channel.stream_stream(
            "/etcdserverpb.Watch/Watch",
            request_serializer=pb.WatchRequest.SerializeToString,
            response_deserializer=pb.WatchResponse.FromString,
        )(iter(self._asked.get, None), metadata=metadata, timeout=120)

    def next(self) -> Any:
        return next(self.answers)

    def close(self) -> None:
        self.answers.cancel()
        self._asked.put(None)


def txn(
    compare: bytes = b"", success: bytes = b"", failure: bytes = b"", gone: bytes = b""
) -> pb.TxnRequest:
    return pb.TxnRequest(
        compare=[pb.Compare(key=compare)] if compare else [],
        success=[pb.RequestOp(request_put=pb.PutRequest(key=success))] if success else [],
        failure=[pb.RequestOp(request_range=pb.RangeRequest(key=key)) for key in (failure,) if key]
        + [
            pb.RequestOp(request_delete_range=pb.DeleteRangeRequest(key=key, prev_kv=True))
            for key in (gone,)
            if key
        ],
    )


def of_values(answers: list[Any]) -> list[str]:
    """Without revisions: servers that have been through other tests have others."""
    for answer in answers:
        if isinstance(answer, pb.TxnResponse):
            for response in answer.responses:
                inner = getattr(response, response.WhichOneof("response"))
                inner.ClearField("header")
                for kv in [*getattr(inner, "kvs", ()), *getattr(inner, "prev_kvs", ())]:
                    kv.create_revision = kv.mod_revision = 0
    return [f"{at}: {answer}" for at, answer in enumerate(answers)]
