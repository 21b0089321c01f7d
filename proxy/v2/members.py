"""``/v2/members`` and ``/v2/machines``: the cluster's members, and changes of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from cluster import errors
from cluster.errors import Code, EtcdError
from cluster.members.urls import in_order
from cluster.pb import rpc_pb2
from cluster.wire.messages import HEAD, MEMBER_ADD, MEMBER_REMOVE, MEMBER_UPDATE, MEMBERS_LAX, Method
from proxy.gateway.encode import text
from proxy.gateway.go_json import Mistake, folded, is_text, kind_of, loads, whole_text
from proxy.http.requests import JSON, TEXT, HttpRequest
from proxy.routing.reads.applied import when_applied
from proxy.routing.router import MethodStats, Waiting
from proxy.shared.context import Context
from proxy.v2.call import HttpCall, said
from proxy.v2.users.auth import Auth

PATH = "/v2/members"
_MOST_BODY_BYTES = 16_384  # read in one turn of the loop: some 20 ms
_UNREADABLE = "json: cannot unmarshal {} into Go {}"


class BadUrls(ValueError):
    ...


class Members:
    def __init__(self, context: Context, auth: Auth) -> None:
        self._context = context
        self._auth = auth
        self._router = context.router
        self._lax = 0 if context.settings.strict_reconfig_check else MEMBERS_LAX
        self._stats = MethodStats()
        self._headers = [("X-Etcd-Cluster-Id", f"{context.common.cluster_id:x}")]

    def serve(self, request: HttpRequest) -> None:
        if not request.allowed("GET", "POST", "DELETE", "PUT"):
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
            if (urls := self._urls(request)) is not None:
                self._change(request, MEMBER_ADD, rpc_pb2.MemberAddRequest(peerURLs=urls))
        elif not rest:
            request.error(405, b"Method Not Allowed\n", self._headers)
        elif (member_id := _id(rest)) is None:
            said(request, 404, f"No such member: {rest}", self._headers)
        elif request.method == "DELETE":
            self._change(request, MEMBER_REMOVE, rpc_pb2.MemberRemoveRequest(ID=member_id))
        elif (urls := self._urls(request)) is not None:
            self._change(request, MEMBER_UPDATE, rpc_pb2.MemberUpdateRequest(ID=member_id, peerURLs=urls))

    def machines(self, request: HttpRequest) -> None:
        if request.allowed("GET", "HEAD"):
            self._urls_as(request, ", ".join)

    def endpoints(self, request: HttpRequest) -> None:
        """``/v2/config/local/proxy``: client URLs of the members that a proxy serves."""
        if request.allowed("GET"):
            self._urls_as(request, lambda urls: f'{{"endpoints":{_list(urls)}}}\n')

    def _urls_as(self, request: HttpRequest, show: Callable[[list[str]], str]) -> None:
        def answer(members: Sequence[Any]) -> None:
            urls = sorted(url for member in members for url in member.clientURLs)
            request.respond(200, show(urls).encode(), content_type=TEXT)

        self._listed(request, answer)

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
        def answer(waiting: Waiting, status: int, body: bytes) -> None:
            if request.closed:
                return
            if status != 0:
                said(request, 500, "Internal Server Error", self._headers)
                return
            then(rpc_pb2.MemberListResponse.FromString(body[HEAD.size :]).members)

        # in the front's name: these are public, also while there are users
        self._context.listing.when_listed(
            lambda: self._router.local(None, Method.MEMBER_LIST, b"", 0, self._stats, answer))

    def _urls(self, request: HttpRequest) -> list[str] | None:
        kind = request.headers.get("content-type", "")
        if ";" in kind:
            kind = kind.partition(";")[0].strip().lower()
        if kind != JSON:
            said(request, 415, f"Bad Content-Type {kind}, accept application/json", self._headers)
            return None
        if len(request.body) > _MOST_BODY_BYTES:
            said(request, 500, errors.REQUEST_TOO_LARGE.text, self._headers)
            return None
        try:
            return peer_urls(request.body)
        except (BadUrls, Mistake) as wrong:
            said(request, 400, str(wrong), self._headers)
            return None

    def _change(self, request: HttpRequest, kind: int, message: Any) -> None:
        done = self._added if kind == MEMBER_ADD else self._changed

        def applied(waiting: Waiting, status: int, body: bytes) -> None:
            if not request.closed:
                done(request, body[HEAD.size :])

        def answer(waiting: Waiting, status: int, body: bytes) -> None:
            if request.closed:
                return
            if status == 0:
                when_applied(self._router, waiting.calls(applied), (0,), body)
            else:
                self._refused(request, EtcdError.decode(body), getattr(message, "ID", None))

        wish = bytes((kind | self._lax,)) + message.SerializeToString()
        self._router.write(HttpCall(request), Method.MEMBERS, wish, 0, self._stats, answer)

    def _refused(self, request: HttpRequest, error: EtcdError, member_id: int | None) -> None:
        kind = error.kind
        if kind is errors.MEMBER_NOT_FOUND and member_id is not None:
            if self._router.members.removed(member_id):
                said(request, 410, f"Member permanently removed: {member_id:x}", self._headers)
            else:
                said(request, 404, f"No such member: {member_id:x}", self._headers)
        elif kind is errors.PEER_URL_EXIST:
            said(request, 409, "membership: peerURL exists", self._headers)
        elif kind is errors.MEMBER_EXIST:
            said(request, 409, "membership: ID exists", self._headers)
        elif kind is errors.MEMBER_BAD_URLS:  # muster takes fewer than etcd: such that a host can have
            said(request, 400, error.text, self._headers)
        elif kind in (errors.TAKES_NO_PEER, errors.PEERS_OVER_HTTP):
            said(request, 409, error.text, self._headers)
        elif kind.code in (Code.PERMISSION_DENIED, Code.UNAUTHENTICATED) or kind is errors.USER_EMPTY:
            said(request, 401, "Insufficient credentials")
        else:
            said(request, 500, "Internal Server Error", self._headers)

    def _added(self, request: HttpRequest, body: bytes) -> None:
        added = rpc_pb2.MemberAddResponse.FromString(body).member
        request.respond(201, f"{_shown(added)}\n".encode(), self._headers, JSON)

    def _changed(self, request: HttpRequest, body: bytes) -> None:
        request.start(204, self._headers)
        request.end()


def peer_urls(body: bytes) -> list[str]:
    """The peer URLs that a body names, in order. BadUrls, Mistake."""
    try:
        wish = loads(body.decode("utf-8", "replace"))
    except Mistake:
        if body.isascii():
            raise
        wish = loads(body.decode("latin-1"))  # fails as well: Go's errors show bytes, not characters
    if wish is not None and not isinstance(wish, dict):
        struct = 'value of type struct { PeerURLs []string "json:\\"peerURLs\\"" }'
        raise BadUrls(_UNREADABLE.format(kind_of(wish), struct))
    named = [
        value for name, value in (wish or {}).items() if folded(name) == "peerurls" and value is not None
    ]
    found = named[-1] if named else []
    if not isinstance(found, list):
        raise BadUrls(_UNREADABLE.format(kind_of(found), "struct field .peerURLs of type []string"))
    for url in found:
        if url is not None and not is_text(url):
            raise BadUrls(_UNREADABLE.format(kind_of(url), "struct field .peerURLs of type string"))
    if not found:
        raise BadUrls("no valid URLs given")
    try:
        return in_order(whole_text(url or "") for url in found)
    except ValueError as wrong:
        raise BadUrls(str(wrong)) from None


def _id(shown: str) -> int | None:
    try:
        found = int(shown, 16)
    except ValueError:
        return None
    valid = shown.isalnum() and shown.isascii() and shown[:2] not in ("0x", "0X") and found < 1 << 64
    return found if valid else None


def _shown(member: Any) -> str:
    return (
        f'{{"id":"{member.ID:x}","name":{text(member.name)},"peerURLs":{_list(member.peerURLs)},'
        f'"clientURLs":{_list(member.clientURLs)}}}'
    )


def _list(urls: Sequence[str]) -> str:
    return "[" + ",".join(map(text, urls)) + "]"
