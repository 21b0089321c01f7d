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
        self._told_of = 0  # events of the next revision that were told, where its last fragment is to come
        self._skipped = 0  # of these, such as this stream has sent again

    async def _request(self) -> pb.WatchCreateRequest:
        request = pb.WatchCreateRequest()
        request.CopyFrom(self._asked)
        request.start_revision = self.next
        self._skipped = 0
        return request

    def _refused(self, answer: pb.WatchResponse, token: str) -> None:
        """It is an answer as others are, unless another token may do better."""
        reason = answer.cancel_reason
        # etcd 3.4 and 3.5 say of stale tokens that nothing is permitted
        stale = reason.endswith(tuple(STALE_TOKEN)) or (
            answer.created and bool(token) and not self._logins and reason.endswith(_DENIED))
        if stale and self._caller.user:
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
            self._skip(answer)
            if answer.fragment and not answer.events:
                return
        elif answer.watch_id >= 0:  # told by the server's own clock
            self.next = max(self.next, at)
        self.events.append(answer)

    def _skip(self, answer: pb.WatchResponse) -> None:
        """Leave out what was told before the stream began, and remember what is told now."""
        revisions = [event.kv.mod_revision for event in answer.events]
        again = min(self._told_of - self._skipped, revisions.count(self.next))
        self._skipped += again
        del answer.events[:again]
        if not answer.fragment:
            self.next, self._told_of, self._skipped = revisions[-1] + 1, 0, 0
        elif revisions[-1] == self.next:
            self._told_of += revisions.count(self.next) - again
            self._skipped += revisions.count(self.next) - again
        else:
            self.next = revisions[-1]
            self._told_of = self._skipped = revisions.count(self.next)


class Answers(Followed[pb.WatchResponse]):
    """A watch's answers by ``async for``, but for those that create it: over restarts, new leaders and new
    connections none is lost or comes twice. One that has ``canceled`` is the last. MusterError."""

    def __init__(
        self, caller: Caller, request: pb.WatchCreateRequest, on_again: OnAgain | None = None
    ) -> None:
        super().__init__(_Answered(caller, request, on_again))
