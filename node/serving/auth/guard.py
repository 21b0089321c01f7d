"""Users and roles as this replica has applied them; ``node.serving.auth.admission`` brings requests to their
judge."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from cluster.features.auth.judge import judge
from cluster.features.auth.principal import NOBODY, SAID, news, split
from cluster.features.auth.reads import show
from cluster.features.auth.state import AuthState
from cluster.features.rows import Row, RowsOf
from cluster.wire.messages import Status
from node.links.fronts import FrontLink, Fronts
from node.storage import StateStore


class Guard:
    def __init__(self, store: StateStore, fronts: Fronts, order_index: Callable[[], int]) -> None:
        self._store = store
        self._fronts = fronts
        self._order_index = order_index
        self.state = AuthState(store.feature_rows(RowsOf.AUTH))

    def copy(self) -> AuthState:
        """Users and roles as applied, for a leader to go on from."""
        return self.state.copy()

    def question(self, link: FrontLink, method: int, body: bytes) -> tuple[int, bytes]:
        """A question without its principal. EtcdError if that has no right to the answer. One that came
        without a principal has no user, though users were not enabled here when it came."""
        if not (method & SAID or (self.state.enabled and link.watches)):  # no users, or another shard's node
            return method, body
        principal, body = split(body) if method & SAID else (NOBODY, body)
        judge(self.state, principal, method & ~SAID, body, self._store)
        return method & ~SAID, body

    # -- what is shown

    def shown(self, body: bytes) -> bytes:
        return show(self.state, body)

    def _news(self) -> bytes:
        state = self.state
        return news(self._order_index(), state.enabled, state.revision, state.secret)

    def greet(self, link: FrontLink) -> None:
        if link.watches and (self.state.enabled or self.state.revision > 1):  # a restored file says either
            link.answer(0, Status.AUTH, self._news())

    # -- changes

    def applied(self, rows: Mapping[int, list[Row]]) -> None:
        if RowsOf.AUTH in rows:
            self.state.take(rows[RowsOf.AUTH])
            self._tell()

    def replaced(self) -> None:
        self.state = AuthState(self._store.feature_rows(RowsOf.AUTH))
        self._tell()

    def _tell(self) -> None:
        for link in self._fronts.links.values():
            if link.watches:
                link.answer(0, Status.AUTH, self._news())
                self._fronts.dirty.add(link)
