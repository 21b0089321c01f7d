"""A transaction of very many operations, evaluated ahead of its turn, in steps.

The leader evaluates it in steps against its speculative state, and other writes go on beside it. In its turn
a look at what has changed since the first step is enough (:meth:`Draft.outcome`). If none of its keys has,
every step has seen the state of this turn, and only the revision is missing. Else it is evaluated again, or
waits for a delete of a range, up to ``ROUNDS`` times, and then is evaluated in one turn.

A refusal is judged again in the turn, unless it rests on what the transaction touches alone; rules that need
no state refuse in the first steps. The answer is made beside the loop, once the entry is applied (``Late``).

Cost of the turn, 18,432 operations: 25 ms, where all of them take 210.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any

from cluster import errors
from cluster.effects.records import PENDING_REVISION
from cluster.errors import EtcdError
from cluster.evaluate.overlay import NotYet
from cluster.evaluate.spans import Intervals, Span
from cluster.evaluate.steps import STEP_OPS, Steps, finish, parts
from cluster.evaluate.txns.compares import Turn, Unlooked
from cluster.evaluate.txns.pending import Pending
from cluster.evaluate.txns.plain_txn import check_revision
from cluster.evaluate.txns.transactions import Plan, check_plan, plan_of, run_plan
from cluster.evaluate.validate import checking_txn, parse
from cluster.evaluate.view import Late, Outcome, Version, View
from cluster.faults import answered
from cluster.pb import rpc_pb2 as pb
from cluster.wire.protobuf import varint

if TYPE_CHECKING:
    from cluster.evaluate.overlay import Overlay

# a version whose revision is pending: its creation (0: this revision), number, lease, and what is written
# before and behind its revision
_Cut = tuple[int, int, int, bytes, bytes]

LARGE_OPS = 512  # of a transaction, nested ones included: 6 ms in one turn
ROUNDS = 8  # so often it is evaluated ahead
_LEAST_OP_BYTES = 7  # of an operation on the wire, with a key
_LOOKS = 1024  # changes looked at in the turn: 1 ms
_FEW = 64  # changes: then the turn may come
_STEP_CHANGES = 128
_PENDING_MOD = b"\x18" + varint(PENDING_REVISION)


def large(body: bytes) -> Any | None:
    """A TxnRequest, parsed, if it has very many operations. EtcdError."""
    if len(body) < LARGE_OPS * _LEAST_OP_BYTES:
        return None
    request: Any = parse(pb.TxnRequest.FromString, body)
    return request if _left(request, LARGE_OPS) < 0 else None


def _left(request: Any, left: int) -> int:
    """What is left of so many operations; below 0, no more are counted."""
    left -= len(request.compare) + len(request.success) + len(request.failure)
    for ops in (request.success, request.failure):
        for op in ops:
            if left < 0:
                return left
            if op.HasField("request_txn"):
                left = _left(op.request_txn, left)
    return left


class Draft:
    """See the module. For one leader's term: ``view`` is what that leader evaluates on."""

    def __init__(self, view: Overlay, request: Any, max_ops: int, sees: View | None = None) -> None:
        """``sees``: what it is evaluated on, if that is more than ``view``: the rest does not change."""
        self._view = view
        self._sees: View = view if sees is None else sees
        self._request = request
        self._max_ops = max_ops
        self._checked = False
        # what it touches, both branches of each transaction
        self._keys: set[bytes] = set()
        self._spans = Intervals()
        self._around: Span | None = None  # all of its single keys
        self._leases: set[int] = set()
        self._revisions: set[int] = set()
        self._since = 0  # changes of later revisions are to be looked at,
        self._batch = 0  # and what is pending of this batch and later ones
        self._plan: Plan | None = None
        self._outcome: Outcome | None = None  # its revision pending; None: refused
        self._too_large = False  # what it touches: no change of anything else helps
        self._writes: list[tuple[bytes, _Cut | None]] = []  # of it, as far as the leader's overlay keeps them
        self._moved = True  # what it touches has changed
        self._rounds = 0
        self._waited = -1  # what was applied when it waited last for a delete of a range: no round twice
        self.fit = True  # else it is evaluated in one turn

    def steps(self) -> Steps[None]:
        """Evaluate it, or look at what has changed since. EtcdError: a refusal that needs no state."""
        if not self._checked:
            yield from checking_txn(self._request, self._max_ops)
            yield from self._touch(self._request)
            if self._keys:
                self._around = min(self._keys), max(self._keys) + b"\0"
            self._checked = True
        if self._moved:
            self._rounds += 1
            yield from self._evaluate()
        yield from self._catch_up()

    def _touch(self, request: Any) -> Steps[None]:
        for kind, part in parts(request):
            if not kind:
                yield
            elif kind == "request_put":
                self._keys.add(part.key)
                if part.lease:
                    self._leases.add(part.lease)
            elif kind != "request_range":
                self._add(part.key, part.range_end)
            elif part.revision:
                self._revisions.add(part.revision)

    def _add(self, key: bytes, range_end: bytes) -> None:
        if range_end:
            self._spans.add_span((key, range_end))
        else:
            self._keys.add(key)

    def _begin(self) -> None:
        """Note what the first step sees."""
        # what the open batch has written so far is taken for changed: which of it came before is not kept
        self._since, self._batch = self._view.revision, self._view.batch

    def _evaluate(self) -> Steps[None]:
        view = self._sees
        self._moved, self._outcome, self._too_large = False, None, False
        try:
            self._begin()
            self._plan = yield from plan_of(view, self._request, Turn())
            yield from check_plan(view, self._plan)
            pending = Pending(view)
            pending.revision = PENDING_REVISION
            yield from run_plan(pending, self._plan, shows=False, known=False)
            self._outcome = pending.outcome(b"")
            yield
            self._writes = yield from self._cut(self._outcome.writes)
        except Unlooked:  # of range compares over very many rows
            self.fit = False
        except EtcdError as e:  # judged again in the turn
            self._too_large = e.kind is errors.REQUEST_TOO_LARGE  # kept, the error would keep all frames

    def _cut(self, writes: list[tuple[bytes, Version | None]]) -> Steps[list[tuple[bytes, _Cut | None]]]:
        found: list[tuple[bytes, _Cut | None]] = []
        for place, (key, version) in enumerate(writes, 1):
            if self._is_own(key):
                found.append((key, version and _cut_of(key, version)))
            if not place % STEP_OPS:
                yield
        return found

    def _is_own(self, key: bytes) -> bool:
        """Whether it is of this leader's shard."""
        return True

    def _touches(self, key: bytes) -> bool:
        return key in self._keys or key in self._spans

    def _catch_up(self) -> Steps[None]:
        """Look at what has changed, up to what is applied now, until few changes are left."""
        store = self._view.applied
        looked = _FEW
        while looked >= _FEW and not self._moved and self._since < store.revision:
            if self._since < store.compact_revision:
                self._moved = True  # what changed is not kept any more
                return
            looked, upto = 0, store.revision
            changes = store.changes(self._since + 1)
            while some := list(islice(changes, _STEP_CHANGES)):
                looked += len(some)
                self._moved = self._moved or any(self._touches(key) for _, _, _, key in some)
                yield
            self._since = upto

    @answered
    def outcome(self) -> Outcome | None:
        """In its turn: what it does; None: evaluate it again, or in one turn if it is not ``fit``. EtcdError;
        NotYet: a range is being deleted."""
        if not self.fit or self._looks_again():
            self.fit = self.fit and self._rounds < ROUNDS
            return None
        if self._too_large:
            raise EtcdError(errors.REQUEST_TOO_LARGE)
        assert self._plan is not None, "it was evaluated"
        if self._outcome is None or not self._allowed():
            finish(check_plan(self._sees, self._plan))
            if self._outcome is None:  # it would not be refused now
                self._moved, self.fit = True, self._rounds < ROUNDS
                return None
        view, drafted, plan = self._view, self._outcome, self._plan
        revision = view.revision + drafted.changed
        mod = varint(revision)
        later, new = b"\x18" + mod, b"\x10" + mod + b"\x18" + mod
        writes = [(key, cut and _bound(cut, revision, later, new)) for key, cut in self._writes]
        late = Late(lambda before: run_plan(Pending(before), plan, shows=True, known=True))
        return Outcome(drafted.items, drafted.changed, b"", writes, revision, drafted.ranges, late)

    def _looks_again(self) -> bool:
        """Whether anything that it touches has changed or is about to, or too much to tell in one turn."""
        view, store = self._view, self._view.applied
        if self._moved:
            return True
        try:
            view.settled(self._around, self._spans)
        except NotYet:
            if store.revision != self._waited:  # it may be asked again before anything is applied
                self._waited = store.revision
                self._rounds += 1
            if self._rounds < ROUNDS:
                raise
            self._moved = True
            return True
        if self._since < store.revision:
            if self._since < store.compact_revision:
                self._moved = True
                return True
            changed = [key for _, _, _, key in islice(store.changes(self._since + 1), _LOOKS + 1)]
            self._moved = any(map(self._touches, changed))
            if self._moved or len(changed) > _LOOKS:
                return True
        self._moved = any(map(self._touches, view.written_since(self._batch)))
        return self._moved

    def _allowed(self) -> bool:
        """Whether all leases exist and all revisions can be read, those of other branches among them."""
        view = self._view
        try:
            for revision in self._revisions and (min(self._revisions), max(self._revisions)):
                check_revision(view, revision)
        except EtcdError:
            return False
        return all(map(view.lease_exists, self._leases))


def _cut_of(key: bytes, version: Version) -> _Cut:
    create, _, number, lease, kv = version
    head = 1 + len(varint(len(key))) + len(key)
    if create >= PENDING_REVISION:
        return 0, number, lease, kv[:head], kv[head + 2 * len(_PENDING_MOD) :]
    head += 1 + len(varint(create))
    return create, number, lease, kv[:head], kv[head + len(_PENDING_MOD) :]


def _bound(cut: _Cut, revision: int, later: bytes, new: bytes) -> Version:
    """A version whose pending revision is known now. ``later``, ``new``: the revision's fields in a version
    of an old key, and of a new one."""
    create, number, lease, head, tail = cut
    if create:
        return Version(create, revision, number, lease, head + later + tail)
    return Version(revision, revision, number, lease, head + new + tail)
