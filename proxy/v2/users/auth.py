"""``/v2/auth``: users, roles and whether they count. Nodes judge requests, change users and roles, and show
them (``cluster.features.v2``)."""

from __future__ import annotations

import time
from collections.abc import Callable

from cluster import errors
from cluster.errors import EtcdError
from cluster.features.v2.requests import MOST_NAME_BYTES, PROVE, Answer, Kind, Who, read_body
from cluster.features.v2.user_changes import UserChange, UserOp, UserWish
from cluster.features.v2.users import Show, What, message
from cluster.gotext import clean_path
from cluster.wire.messages import HEAD, Method
from proxy.auth.passwords import MOST_BYTES
from proxy.http.requests import JSON, HttpRequest
from proxy.routing.router import MethodStats, Waiting
from proxy.shared.context import Context
from proxy.v2.call import HttpCall
from proxy.v2.users.bodies import BadBody, role_of, user_of
from proxy.v2.users.credentials import Credentials
from proxy.v2.waiting.feed import Feed

PREFIX = "/v2/auth"
_MOST_BODY_BYTES = 65_536  # read in one turn of the loop: some 20 ms

Answered = Callable[[Answer], None]
Send = Callable[[Who | None, Callable[[Waiting, int, bytes], None]], None]


class Auth:
    def __init__(self, context: Context, credentials: Credentials, feed: Feed) -> None:
        self._context = context
        self._router = context.router
        self._credentials = credentials
        self._feed = feed
        self._stats = MethodStats()
        self._headers = [("X-Etcd-Cluster-Id", f"{context.common.cluster_id:x}")]

    def enable(self, request: HttpRequest) -> None:
        if not request.allowed("GET", "PUT", "DELETE"):
            return
        if request.method == "GET":
            self._show(request, What.ENABLED)
        else:
            op = UserOp.ENABLE if request.method == "PUT" else UserOp.DISABLE
            self._change(request, op)

    def users(self, request: HttpRequest) -> None:
        self._serve(request, What.USERS, What.USER, UserOp.DELETE_USER, self._put_user)

    def roles(self, request: HttpRequest) -> None:
        self._serve(request, What.ROLES, What.ROLE, UserOp.DELETE_ROLE, self._put_role)

    def _serve(self, request: HttpRequest, everything: What, one: What, delete: UserOp,
               put: Callable[[HttpRequest, bytes], None]) -> None:
        name = self._name(request, everything)
        if name is None or not request.allowed("GET", "PUT", "DELETE"):
            return
        if request.method == "GET":
            self._show(request, one, name)
        elif request.method == "DELETE":
            self._change(request, delete, name)
        else:
            self.if_root(request, lambda: self._put(request, name, put))

    def _put(self, request: HttpRequest, name: bytes, put: Callable[[HttpRequest, bytes], None]) -> None:
        if len(request.body) > _MOST_BODY_BYTES:
            self._refuse(request, 500, errors.REQUEST_TOO_LARGE.text)
        else:
            put(request, name)

    def _name(self, request: HttpRequest, everything: What) -> bytes | None:
        pieces = clean_path(request.path.removeprefix(PREFIX)).split("/")
        name = pieces[-1].encode("utf-8", "surrogateescape")
        if len(pieces) == 2:
            if request.allowed("GET"):
                self._show(request, everything)
        elif len(pieces) != 3 or len(name) > MOST_NAME_BYTES:
            request.respond(400, message("Invalid path"), (), JSON)
        else:
            return name
        return None

    def _put_user(self, request: HttpRequest, name: bytes) -> None:
        try:
            user, password, roles, grant, revoke = user_of(request.body)
        except BadBody:
            self._refuse(request, 400, "Invalid JSON in request body.")
            return
        if user.encode() != name:
            self._refuse(request, 400, "User JSON name does not match the name in the URL")
            return

        def hashed(known: bytes) -> None:
            if request.closed:
                return
            if password and not known:
                self._refuse(request, 500, "Internal Server Error")
                return
            wish = UserWish(known.decode(), roles, grant, revoke)
            self._change(request, UserOp.PUT_USER, name, wish.encode())

        if not password:
            hashed(b"")
            return
        try:
            self._context.passwords.hash(request, password.encode()[:MOST_BYTES], hashed)
        except EtcdError:
            self._refuse(request, 500, "Internal Server Error")

    def _put_role(self, request: HttpRequest, name: bytes) -> None:
        try:
            role, wish = role_of(request.body)
        except BadBody:
            self._refuse(request, 400, "Invalid JSON in request body.")
            return
        if role.encode() != name:
            self._refuse(request, 400, "Role JSON name does not match the name in the URL")
        else:
            self._change(request, UserOp.PUT_ROLE, name, wish.encode())

    def if_root(self, request: HttpRequest, then: Callable[[], None]) -> None:
        """Go on if the client has the role root, or users do not count; else it is answered."""
        self._ask(request, self._shows(request, What.MAY, b""), lambda answer: then())

    def _show(self, request: HttpRequest, what: What, name: bytes = b"") -> None:
        self._ask(request, self._shows(request, what, name), lambda answer: self._respond(request, answer))

    def _shows(self, request: HttpRequest, what: What, name: bytes) -> Send:
        def send(who: Who | None, then: Callable[[Waiting, int, bytes], None]) -> None:
            body = read_body(Kind.USERS, self._feed.needed(), Show(what, who, name).encode())
            self._router.read(HttpCall(request), Method.V2_READ, body, 0, True, self._stats, then)

        return send

    def _change(self, request: HttpRequest, op: UserOp, name: bytes = b"", wish: bytes = b"") -> None:
        if len(wish) > self._context.common.max_request_bytes:
            self._refuse(request, 500, errors.REQUEST_TOO_LARGE.text)
            return

        def send(who: Who | None, then: Callable[[Waiting, int, bytes], None]) -> None:
            body = UserChange(op, name, wish, who, time.time_ns()).encode()
            self._router.write(HttpCall(request), Method.V2_WRITE, body, 0, self._stats, then)

        self._ask(request, send, lambda answer: self._respond(request, answer))

    def _ask(self, request: HttpRequest, send: Send, then: Answered) -> None:
        if self._context.principals.enabled:  # these users are none of version 2's
            self.denied(request)
            return
        _Asked(self, request, send, then).proven(self._credentials.of(request))

    def told(self, asked: _Asked, status: int, body: bytes) -> None:
        """A node's answer to what a request asks."""
        request = asked.request
        if request.closed:
            return
        if status != 0:
            self.failed(request, EtcdError.decode(body))
            return
        answer = Answer.decode(body, HEAD.size)
        self._feed.shown(answer.index)
        if answer.code == PROVE:
            asked.proofs += 1
            self._credentials.prove(request, answer.body, asked.proofs - 1, asked.proven, asked.refused)
        elif answer.code == 401:
            self._credentials.tell_denied(request, "a user does not have root role for resource")
            self.denied(request)
        else:
            asked.then(answer)

    def _respond(self, request: HttpRequest, answer: Answer) -> None:
        if not request.closed:
            request.respond(answer.code, answer.body, self._headers, JSON)

    def _refuse(self, request: HttpRequest, status: int, text: str) -> None:
        if not request.closed:
            request.respond(status, message(text), self._headers, JSON)

    def failed(self, request: HttpRequest, error: EtcdError) -> None:
        if error.kind is errors.PERMISSION_DENIED:  # or by users of version 3 that this front did not know
            self.denied(request)
        else:
            self._refuse(request, 500, "Internal Server Error")

    def denied(self, request: HttpRequest) -> None:
        if not request.closed:
            request.respond(401, message("Insufficient credentials"), (), JSON)


class _Asked:
    """What a request asks of a node, once more with each password that is found right. It refers to itself by
    nothing that stays: a body of megabytes would wait for the garbage collector."""

    __slots__ = ("_auth", "_send", "proofs", "request", "then")

    def __init__(self, auth: Auth, request: HttpRequest, send: Send, then: Answered) -> None:
        self._auth, self.request, self._send, self.then = auth, request, send, then
        self.proofs = 0

    def refused(self, error: EtcdError) -> None:
        self._auth.failed(self.request, error)

    def proven(self, who: Who | None) -> None:
        """``who``: None if the client named nobody."""
        self._send(who, lambda waiting, status, body: self._auth.told(self, status, body))
