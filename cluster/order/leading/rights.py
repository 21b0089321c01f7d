"""Which user may write at a shard's leader, and how far its applied users hold for its logged requests.

A request is judged by users and roles as applied. What was evaluated before a change of these may be ordered
behind it. So the leader reports the change as applied only once that is in order (I20).

An alarm refuses what is evaluated once it is applied, whenever that came: it may have waited for a lock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from cluster.errors import ErrorKind, EtcdError
from cluster.features.auth.judge import judge
from cluster.features.auth.permissions import Ranges
from cluster.features.auth.principal import NOBODY, Principal
from cluster.features.auth.state import AuthState
from cluster.order.leading.pending import Elsewhere
from cluster.wire.messages import Method


class KeysElsewhere:
    """A lease at one leader of several: only the sequencer sees its keys in all shards."""

    def lease_keys(self, lease: int, limit: int = 0, *, but: Ranges | None = None) -> Iterable[bytes]:
        raise Elsewhere


KEYS_ELSEWHERE = KeysElsewhere()


class Rights:
    def __init__(self, users: Callable[[], AuthState] | None) -> None:
        nobody = AuthState()
        self._users = users or (lambda: nobody)
        # why a write is refused now, whoever asks: an alarm, or no room
        self.refusal: Callable[[int, bytes], ErrorKind | None] = lambda method, body: None
        self._meta = self._users().meta
        self._serves = False
        self._batch = 0  # the last one that was begun before the last change was applied
        self._before = 0  # the order index that counts until that batch is in order
        self._held = True

    def serve(self) -> None:
        self._serves = True

    @property
    def enabled(self) -> bool:
        """Whether each request is judged, plain puts, too."""
        return self._users().enabled or self.refusal(Method.PUT, b"") is not None

    def judge(self, who: Principal | None, method: int, body: bytes) -> None:
        """EtcdError if the request is not permitted, or refused now. Elsewhere, if that depends on the keys
        of a lease."""
        users = self._users()
        if users.enabled:
            judge(users, who or NOBODY, method, body, KEYS_ELSEWHERE)
        if (refusal := self.refusal(method, body)) is not None:
            raise EtcdError(refusal)

    def applied(self, begun: int, ordered: int, order_index: int) -> None:
        """A record was applied behind ``order_index``. ``begun``, ``ordered``: the last batch with anything,
        in order."""
        meta = self._users().meta
        if meta is not self._meta:
            self._before, self._batch, self._meta = self._counts(ordered, order_index), begun, meta

    def said(self, ordered: int, order_index: int) -> tuple[int, bool]:
        """The order index that counts for all that was logged; whether it is so again since the last call."""
        held, self._held = self._held, not self._serves or ordered < self._batch
        return self._counts(ordered, order_index), held and not self._held

    def _counts(self, ordered: int, order_index: int) -> int:
        if not self._serves:
            return 0
        return self._before if ordered < self._batch else order_index
