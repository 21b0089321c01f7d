"""``/v2/members`` and ``/v2/machines``: who belongs to the cluster, and wishes to change that."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import urlsplit

from cluster import errors
from cluster.errors import Code, EtcdError
from cluster.pb import rpc_pb2
from cluster.wire.messages import (
    HEAD,
    MEMBER_ADD,
    MEMBER_REMOVE,
    MEMBER_UPDATE,
    MEMBERS_LAX,
    Method,
)
from proxy.gateway.encode import text
from proxy.gateway.go_json import Mistake, loads
from proxy.http.requests import HttpRequest
from proxy.routing.router import MethodStats, Waiting
from proxy.shared.context import Context
from proxy.v2.call import JSON, TEXT, HttpCall, allowed, said
from proxy.v2.users.auth import Auth

PATH = "/v2/members"
_SCHEMES = ("http", "https", "unix", "unixs")
_BEHIND_S, _AGAIN_S = 0.5, 0.01
_UNREADABLE = "json: cannot unmarshal {} into Go {}"


class BadUrls(ValueError):
    """etcd's words for peer URLs that cannot be."""


class Members:
    """Of one front."""

    def __init__(self, context: Context, auth: Auth) -> None:
        self._context = context
        self._auth = auth
        self._router = context.router
        self._lax = 0 if context.settings.strict_reconfig_check else MEMBERS_LAX
        self._stats = MethodStats()
        self._headers = [("X-Etcd-Cluster-Id", f"{context.common.cluster_id:x}")]

    def serve(self, request: HttpRequest) -> None:
        """``/v2/members`` and what is below it."""
        if not allowed(request, "GET", "POST", "DELETE", "PUT"):
            return
        rest = request.path.removeprefix(PATH).removeprefix("/")
        if request.method == "GET":
            self._get(request, rest)
        else:
            self._auth.if_root(request, lambda: self._wished(request, rest))

    def _wished(self, request: HttpRequest, rest: str) -> None:
        if request.closed:
            return
        if request.method == "POST":
            self._with_urls(
                request,
                lambda urls: self._change(
                    request, MEMBER_ADD, rpc_pb2.MemberAddRequest(peerURLs=urls), "", self._added
                ),
            )
        elif not rest:
            request.respond(
                405, b"Method Not Allowed\n", [*self._headers, ("X-Content-Type-Options", "nosniff")], TEXT
            )
        elif (member_id := _id(rest)) is None:
            said(request, 404, f"No such member: {rest}", self._headers)
        elif request.method == "PUT":
            self._with_urls(
                request,
                lambda urls: self._change(
                    request,
                    MEMBER_UPDATE,
                    rpc_pb2.MemberUpdateRequest(ID=member_id, peerURLs=urls),
                    f"{member_id:x}",
                    self._changed,
                ),
            )
        else:
            self._change(
                request,
                MEMBER_REMOVE,
                rpc_pb2.MemberRemoveRequest(ID=member_id),
                f"{member_id:x}",
                self._changed,
            )

    def machines(self, request: HttpRequest) -> None:
        """All client URLs, in order."""
        if allowed(request, "GET", "HEAD"):

            def answer(members: Sequence[Any]) -> None:
                request.respond(200, ", ".join(_client_urls(members)).encode(), content_type=TEXT)

            self._listed(request, answer)

    def endpoints(self, request: HttpRequest) -> None:
        """``/v2/config/local/proxy``: whom a proxy serves, by their client URLs."""
        if allowed(request, "GET"):

            def answer(members: Sequence[Any]) -> None:
                shown = f'{{"endpoints":{_list(_client_urls(members))}}}\n'
                request.respond(200, shown.encode(), content_type=TEXT)

            self._listed(request, answer)

    # -- reads

    def _get(self, request: HttpRequest, rest: str) -> None:
        if rest not in ("", "leader"):
            said(request, 404, "Not found", self._headers)
            return

        def answer(members: Sequence[Any]) -> None:
            leader = self._router.routes[0].leader
            if not rest:
                shown = ",".join(_shown(member) for member in sorted(members, key=lambda member: member.ID))
                body = f'{{"members":[{shown}]}}\n'
            elif (found := next((m for m in members if leader == m.ID), None)) is None:
                said(request, 503, "During election", self._headers)
                return
            else:
                body = _shown(found) + "\n"
            request.respond(200, body.encode(), self._headers, JSON)

        self._listed(request, answer)

    def _listed(self, request: HttpRequest, then: Callable[[Sequence[Any]], None]) -> None:
        """The members as this host knows them."""

        def answer(waiting: Waiting, status: int, body: bytes) -> None:
            if request.closed:
                return
            if status != 0:
                said(request, 500, "Internal Server Error", self._headers)
                return
            then(rpc_pb2.MemberListResponse.FromString(body[HEAD.size :]).members)

        # as the front itself: everybody may see them, also while there are users
        self._context.listing.when_listed(
            lambda: self._router.local(None, Method.MEMBER_LIST, b"", 0, self._stats, answer)
        )

    # -- changes

    def _with_urls(self, request: HttpRequest, then: Callable[[list[str]], None]) -> None:
        kind = request.headers.get("content-type", "")
        if ";" in kind:
            kind = kind.partition(";")[0].strip().lower()
        if kind != JSON:
            said(request, 415, f"Bad Content-Type {kind}, accept application/json", self._headers)
            return
        try:
            urls = peer_urls(request.body)
        except (BadUrls, Mistake) as wrong:
            said(request, 400, str(wrong), self._headers)
        else:
            then(urls)

    def _change(
        self,
        request: HttpRequest,
        kind: int,
        message: Any,
        shown: str,
        then: Callable[[HttpRequest, bytes], None],
    ) -> None:
        def answer(waiting: Waiting, status: int, body: bytes) -> None:
            if request.closed:
                return
            if status == 0:
                then(request, body[HEAD.size :])
            else:
                self._refused(request, EtcdError.decode(body), message, shown)

        self._router.write(
            HttpCall(request),
            Method.MEMBERS,
            bytes((kind | self._lax,)) + message.SerializeToString(),
            0,
            self._stats,
            answer,
        )

    def _refused(self, request: HttpRequest, error: EtcdError, message: Any, shown: str) -> None:
        kind = error.kind
        if kind is errors.MEMBER_NOT_FOUND and shown:
            if self._router.members.removed(message.ID):
                said(request, 410, f"Member permanently removed: {shown}", self._headers)
            else:
                said(request, 404, f"No such member: {shown}", self._headers)
        elif kind is errors.PEER_URL_EXIST:
            said(request, 409, "membership: peerURL exists", self._headers)
        elif kind is errors.MEMBER_EXIST:
            said(request, 409, "membership: ID exists", self._headers)
        elif kind.code in (Code.PERMISSION_DENIED, Code.UNAUTHENTICATED) or kind is errors.USER_EMPTY:
            said(request, 401, "Insufficient credentials")
        else:
            said(request, 500, "Internal Server Error", self._headers)

    def _added(self, request: HttpRequest, body: bytes) -> None:
        answer = rpc_pb2.MemberAddResponse.FromString(body)

        def respond() -> None:
            request.respond(201, f"{_shown(answer.member)}\n".encode(), self._headers, JSON)

        self._once_listed(request, answer.members, respond)

    def _changed(self, request: HttpRequest, body: bytes) -> None:
        def respond() -> None:
            request.start(204, self._headers)
            request.end()

        # the answers to an update and to a removal list the members in the same place
        self._once_listed(request, rpc_pb2.MemberUpdateResponse.FromString(body).members, respond)

    def _once_listed(self, request: HttpRequest, wanted: Sequence[Any], then: Callable[[], None]) -> None:
        """Answer when this host lists the members as they were changed, half a second later at most: clients
        read what they wrote, and a host that is behind still answers."""
        loop = self._router.loop
        end = loop.time() + _BEHIND_S
        ids = {member.ID: list(member.peerURLs) for member in wanted}

        def look() -> None:
            self._router.local(None, Method.MEMBER_LIST, b"", 0, self._stats, answer)

        def answer(waiting: Waiting, status: int, body: bytes) -> None:
            if request.closed:
                return
            if status == 0 and loop.time() < end:
                found = rpc_pb2.MemberListResponse.FromString(body[HEAD.size :]).members
                if {member.ID: list(member.peerURLs) for member in found} != ids:
                    loop.call_later(_AGAIN_S, look)
                    return
            then()

        look()


def _client_urls(members: Sequence[Any]) -> list[str]:
    return sorted(url for member in members for url in member.clientURLs)


def peer_urls(body: bytes) -> list[str]:
    """The peer URLs that a body names, in order. BadUrls, Mistake."""
    wish = loads(body.decode("utf-8", "replace"))
    if wish is not None and not isinstance(wish, dict):
        raise BadUrls(
            _UNREADABLE.format(
                _kind(wish), 'value of type struct { PeerURLs []string "json:\\"peerURLs\\"" }'
            )
        )
    named = [
        value for name, value in (wish or {}).items() if name.lower() == "peerurls" and value is not None
    ]
    found = named[-1] if named else []
    if not isinstance(found, list):
        raise BadUrls(_UNREADABLE.format(_kind(found), "struct field .peerURLs of type []string"))
    for url in found:
        if url is not None and (not isinstance(url, str) or _is_number(url)):
            raise BadUrls(_UNREADABLE.format(_kind(url), "struct field .peerURLs of type string"))
    if not found:
        raise BadUrls("no valid URLs given")
    return sorted(_checked((url or "").strip()) for url in found)


def _checked(url: str) -> str:
    scheme = url.partition(":")[0].lower() if ":" in url else ""
    if url.startswith(":"):
        raise BadUrls(f'parse "{url}": missing protocol scheme')
    if scheme not in _SCHEMES:
        if scheme and not scheme.replace("+", "").replace("-", "").replace(".", "").isalnum():
            raise BadUrls(f'parse "{url}": first path segment in URL cannot contain colon')
        if scheme and not scheme[0].isalpha():
            raise BadUrls(f'parse "{url}": first path segment in URL cannot contain colon')
        raise BadUrls(f"URL scheme must be http, https, unix, or unixs: {url}")
    if scheme in ("http", "https"):
        try:
            parts = urlsplit(url)
        except ValueError:
            raise BadUrls(f"parse \"{url}\": missing ']' in host") from None
        host = parts.netloc.rpartition("@")[2]
        name, colon, port = host.rpartition(":")
        if port and colon and not port.isdecimal() and not host.endswith("]"):
            raise BadUrls(f'parse "{url}": invalid port ":{port}" after host')
        if not colon or (":" in name and not name.startswith("[")) or host.endswith("]"):
            raise BadUrls(f'URL address does not have the form "host:port": {url}')
        if parts.path:
            raise BadUrls(f"URL must not contain a path: {url}")
    return url


def _is_number(value: str) -> bool:
    return type(value) is not str


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, str):
        return "number" if _is_number(value) else "string"
    return "array" if isinstance(value, list) else "object"


def _id(shown: str) -> int | None:
    """Hexadecimal digits that make 64 bits at most."""
    try:
        found = int(shown, 16)
    except ValueError:
        return None
    return (
        found
        if shown.isalnum() and shown.isascii() and shown[:2] not in ("0x", "0X") and found < 1 << 64
        else None
    )


def _shown(member: Any) -> str:
    return (
        f'{{"id":"{member.ID:x}","name":{text(member.name)},"peerURLs":{_list(member.peerURLs)},'
        f'"clientURLs":{_list(member.clientURLs)}}}'
    )


def _list(urls: Sequence[str]) -> str:
    return "[" + ",".join(map(text, urls)) + "]"
