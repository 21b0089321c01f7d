"""``/new?size=N``, as of the public service of etcd's project: a new directory with a random name below
``_etcd/registry``, in which the hosts of a cluster find each other; the answer is its URL at the address
asked, ``/TOKEN``, which stands for ``/v2/keys/_etcd/registry/TOKEN``. It is judged as a write: where users of
version 2 count, a guest needs the right to it."""

from __future__ import annotations

import re
import time
from collections.abc import Callable

from cluster import errors
from cluster.errors import EtcdError
from cluster.features.v2.refusals import Code
from cluster.features.v2.requests import PROVE, Answer, Op, Who, Write
from cluster.features.v2.tree import KEYS
from cluster.wire.messages import HEAD, Method
from proxy.http.requests import TEXT, HttpHandler, HttpRequest, parameters
from proxy.routing.router import MethodStats, Waiting
from proxy.shared.context import Context
from proxy.v2.call import HttpCall
from proxy.v2.request import PREFIX
from proxy.v2.users.credentials import Credentials
from proxy.v2.waiting.feed import Feed

_REGISTRY = "/_etcd/registry/"
_TOKEN_BYTES = 16
_AT_TOKEN = re.compile(r"/([0-9a-f]{32}|[0-9a-f]{40})(/.*)?", re.DOTALL)  # the public one's had 40 digits
_SIZE = 3  # by default
_MOST = 1000  # hosts; no cluster has so many
_HOST = re.compile(r"[A-Za-z0-9.:\[\]_-]{1,255}")
_UNABLE = b"Unable to generate token\n"


class Directories:
    def __init__(self, context: Context, credentials: Credentials, feed: Feed,
                 random_bytes: Callable[[int], bytes], now_ns: Callable[[], int] = time.time_ns) -> None:
        self._context = context
        self._credentials = credentials
        self._feed = feed
        self._random_bytes = random_bytes
        self._now_ns = now_ns
        self._stats = MethodStats()

    def new(self, request: HttpRequest) -> None:
        if not request.allowed("GET", "PUT", "POST"):
            return
        text = parameters(request).get("size", [""])[0] or str(_SIZE)  # the first counts
        if not (text.isascii() and text.isdigit() and len(text) < 5 and 0 < int(text) <= _MOST):
            request.error(400, f"size must be a number of hosts, 1 to {_MOST}\n".encode())
            return
        host = request.headers.get("host", "")
        if _HOST.fullmatch(host) is None:
            request.error(400, b"the request does not say which host it asks\n")
        elif self._context.principals.enabled:  # these users are none of version 2's
            request.error(401, _UNABLE)
        else:
            self._make(request, str(int(text)), host)

    def _make(self, request: HttpRequest, size: str, host: str) -> None:
        token = self._random_bytes(_TOKEN_BYTES).hex()
        url = f"{'https' if request.secure else 'http'}://{host}/{token}"
        wish = Write(
            op=Op.CREATE, path=KEYS + f"{_REGISTRY}{token}/_config/size".encode(), value=size.encode(),
            directory=False, prev_value=b"", prev_index=0, expires_ns=0, refresh=False, recursive=False,
            now_ns=self._now_ns(), who=self._credentials.of(request), slash=False)

        self._ask(request, wish, url, 0)

    def _ask(self, request: HttpRequest, wish: Write, url: str, proofs: int) -> None:
        """``proofs``: how often the request's password was compared before."""

        def answer(waiting: Waiting, status: int, body: bytes) -> None:
            if request.closed:
                return
            if status != 0:
                request.error(503, _UNABLE)
                return
            found = Answer.decode(body, HEAD.size)
            self._feed.shown(found.index)  # reads here find it
            if found.code == PROVE:
                self._prove(request, wish, url, found.body, proofs)
            elif found.code:
                request.error(401 if found.code == Code.UNAUTHORIZED else 503, _UNABLE)
            else:
                request.respond(200, url.encode(), content_type=TEXT)

        self._context.router.write(HttpCall(request), Method.V2_WRITE, wish.encode(), 0, self._stats, answer)

    def _prove(self, request: HttpRequest, wish: Write, url: str, known: bytes, proofs: int) -> None:
        def proven(who: Who) -> None:
            wish.who = who
            self._ask(request, wish, url, proofs + 1)

        def refused(error: EtcdError) -> None:
            request.error(401 if error.kind is errors.PERMISSION_DENIED else 503, _UNABLE)

        self._credentials.prove(request, known, proofs, proven, refused)


def by_token(keys: HttpHandler) -> Callable[[str], HttpHandler | None]:
    """What finds the handler of a path: of one below a token it asks ``keys`` for the directory."""

    def serve(request: HttpRequest) -> None:
        request.path = f"{PREFIX}{_REGISTRY}{request.path[1:]}"
        keys(request)

    return lambda path: serve if _AT_TOKEN.fullmatch(path) is not None else None
