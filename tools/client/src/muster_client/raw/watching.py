"""A watch's answers, whole."""

from __future__ import annotations

from muster_client.pb import rpc_pb2 as pb
from muster_client.wire.calls import Caller
from muster_client.wire.following import Broken, Followed, Following, OnAgain, raise_refusal
from muster_client.wire.retries import STALE_TOKEN

_DENIED = "permission denied"


class _Answered(Following[pb.WatchResponse]):
    """Stream after stream: each begins behind the last answer."""

    def __init__(self, caller: Caller, request: pb.WatchCreateRequest, on_again: OnAgain | None) -> None:
        super().__init__(caller, request.start_revision, on_again)
        self._asked = request

    async def _request(self) -> pb.WatchCreateRequest:
        request = pb.WatchCreateRequest()
        request.CopyFrom(self._asked)
        request.start_revision = self.next
        return request

    def _refused(self, answer: pb.WatchResponse, token: str) -> None:
        """It is an answer as others are, unless another token may do better."""
        reason = answer.cancel_reason
        # etcd 3.4 and 3.5 say of stale tokens that nothing is permitted
        stale = reason.endswith(tuple(STALE_TOKEN)) or (
            answer.created and bool(token) and not self._logins and reason.endswith(_DENIED))
        if stale:
            try:
                raise_refusal(answer)
            except Broken as broken:
                raise Broken(broken.error, stale=True) from None

    def _take(self, answer: pb.WatchResponse) -> None:
        at = answer.header.revision + 1
        if answer.canceled:
            self.closed = True
        elif answer.created:
            self.next = self.next or at
            return
        elif answer.events:
            # what goes on in the next fragment is told again where the stream ends before it
            self.next = answer.events[-1].kv.mod_revision + (not answer.fragment)
        elif answer.watch_id >= 0:  # told by the server's own clock
            self.next = max(self.next, at)
        self.events.append(answer)


class Answers(Followed[pb.WatchResponse]):
    """A watch's answers by ``async for``, but for those that create it: over restarts, new leaders and new
    connections none is lost or comes twice. One that has ``canceled`` is the last. MusterError."""

    def __init__(
        self, caller: Caller, request: pb.WatchCreateRequest, on_again: OnAgain | None = None
    ) -> None:
        super().__init__(_Answered(caller, request, on_again))
