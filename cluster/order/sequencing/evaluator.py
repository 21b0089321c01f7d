"""The multi of a transaction over several shards that has all its grants."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cluster.effects import records
from cluster.errors import ErrorKind, EtcdError
from cluster.evaluate import requests as evaluate
from cluster.evaluate.overlay import Overlay
from cluster.evaluate.txns import plain_txn
from cluster.evaluate.txns.compares import Turn, Unlooked
from cluster.evaluate.view import Outcome, Version
from cluster.faults import answered
from cluster.grain import GRAIN
from cluster.order.leading.verdicts import Verdicts
from cluster.order.log import Attempt, Multi, Part, encode_multi
from cluster.order.sequencing.drafts import WideDraft
from cluster.order.sequencing.granted import GrantedView, Unread
from cluster.order.sequencing.parts import parts_of, parts_of_writes
from cluster.order.sequencing.wide import Wide
from cluster.placement import Placement
from cluster.wire.messages import Method


class Evaluator:
    def __init__(self, view: Overlay, placement: Placement, max_txn_ops: int) -> None:
        self._view = view
        self._placement = placement
        self._max_txn_ops = max_txn_ops
        # why a client's write is refused now: an alarm may have been applied since it came (I20)
        self.refusal: Callable[[int, bytes], ErrorKind | None] = lambda method, body: None

    @answered
    def multi(
        self, view: GrantedView, wide: Wide[Any], attempt: Attempt, participants: dict[int, int],
    ) -> tuple[bytes, Outcome]:
        """The item and its outcome. EtcdError, NotYet, Unlooked, Unread, Uncounted."""
        if wide.token is not None and (refusal := self.refusal(wide.method, wide.body)) is not None:
            raise EtcdError(refusal)
        if wide.leases:
            return self._revoke(view, wide, attempt, participants)
        if wide.plain is not None:
            try:
                outcome, answer = plain_txn.run(view, wide.plain, GRAIN.late_bytes)
                outcome.tail = answer(view.revision)
            except plain_txn.Large:
                outcome = evaluate.txn(view, wide.body, self._max_txn_ops, view.weigh)
        elif wide.method == Method.PUT:
            outcome = evaluate.put(view, wide.body)
        elif wide.method == Method.DELETE_RANGE:
            outcome = evaluate.delete_range(view, wide.body, view.weigh)
        elif wide.method == Method.TXN:
            outcome = self._txn(view, wide)
        else:
            raise ValueError(f"method {wide.method} is no transaction over several shards")
        if outcome.late is not None:
            if wide.ahead <= view.revision:
                raise Unread
            outcome.late, wide.fetched = view.behind(outcome.late)
        parts = wide.draft.parts if isinstance(wide.draft, WideDraft) else None
        if wide.homes:
            parts = parts_of_writes(wide.homes, outcome)
        elif parts is None:
            parts = parts_of(view, self._placement, 0, outcome.items)
        return encode_multi(Multi(attempt, int(outcome.changed), participants, parts)), outcome

    def _txn(self, view: GrantedView, wide: Wide[Any]) -> Outcome:
        if wide.draft is not None:
            if (outcome := wide.draft.outcome()) is not None:
                return outcome
            if wide.draft.fit:
                raise Unlooked
        if wide.looked is not None:
            wide.looked.look_again(self._view, self._view.applied)
        verdicts = Verdicts(self._view, self._placement, wide.asked, wide.grants, wide.looked)
        return evaluate.txn(view, wide.body, self._max_txn_ops, view.weigh, Turn(verdicts))

    def _revoke(
        self, view: GrantedView, wide: Wide[Any], attempt: Attempt, participants: dict[int, int],
    ) -> tuple[bytes, Outcome]:
        """One revision per lease that has keys, as etcd; the leases go with it. Those with which they would
        take very many bytes are left for later, and the first one, where its keys alone do, goes in parts."""
        parts: list[Part] = []
        writes: list[tuple[bytes, Version | None]] = []
        gone: list[bytes] = []
        revoked: list[int] = []
        done: set[bytes] = set()
        groups = size = 0
        wide.left = []
        for at, lease in enumerate(wide.leases):
            if not view.lease_exists(lease):
                if wide.token is not None:
                    evaluate.lease_revoke(view, wide.body)  # says LeaseNotFound
                continue
            keys = [key for key in view.lease_keys(lease) if key not in done]
            size += evaluate.size_of_deletes(keys)
            if size > GRAIN.lease_end_bytes:
                wide.left = wide.leases[at:]
                if gone:
                    break
                keys = evaluate.going_at_once(keys)
            if keys:
                done.update(keys)
                deletes = b"".join(records.delete(key) for key in keys)
                parts += parts_of(view, self._placement, groups, deletes)
                writes += [(key, None) for key in keys]
                groups += 1
            if wide.left:
                break
            gone.append(records.lease_revoke(lease, ()))
            revoked.append(lease)
        item = encode_multi(Multi(attempt, groups, participants, parts)) + b"".join(gone)
        return item, Outcome(item, groups > 0, b"", writes, view.revision + groups, revoked=revoked)
