"""Clients that are somebody, users and roles that change meanwhile, and what must hold of every answer.

What a user may is told by the plainest code (``order_needs``), in each state that users and roles have been
in: they are folded once more out of the committed order. A change of users counts from when it is committed,
and for certain once it is acknowledged. So for every request there are the states that it may have been
judged in, and

* P1: what was answered was allowed in one of them, each part of it;
* P2: what was refused was refused so in one of them;
* P3: what came into effect, whether anybody was told or not, was allowed likewise; where the order itself
  says in which state it stood, in that one;
* P4: all replicas know the same users, as they have stored them;
* P5: a watch is confirmed or denied as one of the states says, is shown what one since that write allows, and
  none stands that the last one forbids.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter
from random import Random
from typing import TYPE_CHECKING, Any

from cluster.features.auth.principal import Kind, Principal
from cluster.features.auth.state import AuthState
from cluster.features.rows import RowsOf, decode
from cluster.pb import auth_pb2
from cluster.pb import rpc_pb2 as pb
from proxy.auth.shown import Shown
from tests.sim.clients import order_clients
from tests.sim.clients.order_clients import Call, Clients, Operation
from tests.sim.clients.order_needs import BOTH, PERMISSION, READ, WRITE, State, needs_of
from tests.sim.world.order_world import Violation

if TYPE_CHECKING:
    from tests.sim.checks.order_replay import Replay
    from tests.sim.clients.order_streams import Stream, Watch
    from tests.sim.world.order_host import FrontProcess
    from tests.sim.world.order_sim import Simulation

CHANGES: dict[str, Any] = {
    name: getattr(pb, f"Auth{name.removeprefix('Auth')}Response")
    for name in (
        "AuthEnable",
        "AuthDisable",
        "UserAdd",
        "UserDelete",
        "UserChangePassword",
        "UserGrantRole",
        "UserRevokeRole",
        "RoleAdd",
        "RoleDelete",
        "RoleGrantPermission",
        "RoleRevokePermission",
    )
}
order_clients.RESPONSES.update(CHANGES)
USERS, ROLES = ("ann", "bob"), ("reads", "writes")
_MANAGED = ("already", "not found", "not granted", "root user", "invalid auth management", "user role")
_ROOT = Principal(Kind.CERTIFICATE, "root")


class UserClients(Clients):
    """Clients of a simulation, each request somebody's; one change of users and roles at a time."""

    def __init__(self, simulation: Simulation, *args: Any) -> None:
        super().__init__(simulation, *args)
        self._r = Random(f"{simulation.seed}/users")
        self._watchers = Random(f"{simulation.seed}/watchers")
        self.who: dict[int, Principal | None] = {}  # by number of the request
        self.permissions = Permissions(simulation, self)
        self._setup = _setup(self._r, simulation.keys)
        self._change: Operation | None = None

    def go_on(self, before: Clients, left: list[Operation]) -> None:
        super().go_on(before, left)
        assert isinstance(before, UserClients)
        self.who.update(before.who)

    def _next(self) -> None:
        if not self.stopped and (self._change is None or self._change.number not in self.waiting):
            change = self._change
            if change is not None and change.ok and self._setup and change.request == self._setup[0][1]:
                self._setup.pop(0)
            elif change is not None and change.refused and self._setup:
                self._setup.pop(0)  # it was done, and nobody was told
            fronts = [f for f in self.simulation.fronts.values() if f.alive and not f.paused]
            if fronts and (self._setup or self._r.random() < 0.2):
                method, request = self._setup[0] if self._setup else _change(self._r, self.simulation.keys)
                self._change = self.ask(self._r.choice(fronts), method, request)
                return
        super()._next()

    def dress(self, operation: Operation, call: Call, front: FrontProcess) -> None:
        """Who asks is settled as the request leaves."""
        who: Principal | None = _ROOT
        if operation.method not in CHANGES and not self.stopped:
            who = self._somebody()
        self.who[operation.number] = who
        call.principal = None if who is None else Shown(front.router.principals, "", who)

    def dress_watches(self, stream: Stream) -> None:
        stream.judged, stream.who = True, self._somebody(self._watchers)
        assert stream.call is not None
        principal = None if stream.who is None else Shown(stream.front.router.principals, "", stream.who)
        stream.call.principal = principal

    def _somebody(self, r: Random | None = None) -> Principal | None:
        r = r or self._r
        name = r.choice((*USERS, *USERS, *USERS, "root", "root", "nobody's", ""))
        if not name:
            return r.choice((None, None, Principal(Kind.INVALID)))
        kind = r.choice((Kind.CERTIFICATE, Kind.SIMPLE, Kind.SIMPLE, Kind.JWT))
        newest = self.permissions.states()[-1].revision
        revision = 0 if kind == Kind.CERTIFICATE else max(1, newest - r.choice((0, 0, 0, 0, 1, 4)))
        return Principal(kind, name, revision)


def _setup(r: Random, keys: list[bytes]) -> list[tuple[str, Any]]:
    """Users and roles, and users are enabled."""
    found: list[tuple[str, Any]] = [
        ("UserAdd", _user("root")),
        ("RoleAdd", pb.AuthRoleAddRequest(name="root")),
        ("UserGrantRole", pb.AuthUserGrantRoleRequest(user="root", role="root")),
    ]
    for name in USERS:
        found.append(("UserAdd", _user(name)))
    for name in ROLES:
        found.append(("RoleAdd", pb.AuthRoleAddRequest(name=name)))
    for name in ROLES:
        found.append(_grant(r, keys, name))
    found += [
        ("UserGrantRole", pb.AuthUserGrantRoleRequest(user="ann", role="writes")),
        ("UserGrantRole", pb.AuthUserGrantRoleRequest(user="bob", role="reads")),
        ("AuthEnable", pb.AuthEnableRequest()),
    ]
    return found


def _user(name: str) -> Any:
    return pb.AuthUserAddRequest(name=name, options=auth_pb2.UserAddOptions(no_password=True))


def _range(r: Random, keys: list[bytes]) -> tuple[bytes, bytes]:
    """One of few, so that what is granted is revoked now and then."""
    key = r.choice(keys)
    prefix = key.rpartition(b"/")[0]
    return r.choice(
        ((key, b""), (prefix + b"/", prefix + b"0"), (prefix + b"/", prefix + b"0"), (b"\0", b"\0"))
    )


def _grant(r: Random, keys: list[bytes], role: str) -> tuple[str, Any]:
    key, end = _range(r, keys)
    kind = r.choice((BOTH, WRITE) if role == "writes" else (READ, BOTH))
    return "RoleGrantPermission", pb.AuthRoleGrantPermissionRequest(
        name=role, perm=auth_pb2.Permission(permType=kind, key=key, range_end=end)
    )


def _change(r: Random, keys: list[bytes]) -> tuple[str, Any]:
    user, role = r.choice(USERS), r.choice(ROLES)
    what = r.random()
    if what < 0.3:
        return "UserGrantRole", pb.AuthUserGrantRoleRequest(user=user, role=role)
    if what < 0.5:
        return "UserRevokeRole", pb.AuthUserRevokeRoleRequest(name=user, role=role)
    if what < 0.7:
        return _grant(r, keys, role)
    if what < 0.85:
        key, end = _range(r, keys)
        return "RoleRevokePermission", pb.AuthRoleRevokePermissionRequest(role=role, key=key, range_end=end)
    return r.choice(
        (
            ("UserChangePassword", pb.AuthUserChangePasswordRequest(name=user)),
            ("UserDelete", pb.AuthUserDeleteRequest(name=user)),
            ("UserAdd", _user(user)),
            ("UserAdd", _user(user)),
            ("RoleDelete", pb.AuthRoleDeleteRequest(role=role)),
            ("RoleAdd", pb.AuthRoleAddRequest(name=role)),
            ("RoleAdd", pb.AuthRoleAddRequest(name=role)),
            ("AuthDisable", pb.AuthDisableRequest()),
            ("AuthEnable", pb.AuthEnableRequest()),
            ("AuthEnable", pb.AuthEnableRequest()),
        )
    )


def _touched(method: str, request: Any) -> set[bytes]:
    """The rows that a change is known to write; more may go with it. Empty: nothing is known of it."""
    if method.startswith("User"):
        return {b"u" + (request.user if method == "UserGrantRole" else request.name).encode()}
    if method in ("RoleDelete", "RoleRevokePermission"):
        return {b"r" + request.role.encode()}
    return {b"r" + request.name.encode()} if method.startswith("Role") else {b"m"}


class Permissions:
    """What holds of who may what, in one run."""

    def __init__(self, simulation: Simulation, clients: UserClients) -> None:
        self._simulation = simulation
        self._clients = clients
        self._folded = AuthState()
        self._states = [State(0, False, 1, 0, {}, {})]
        self._read = 0  # rows of the replay that are folded
        self._acknowledged: list[tuple[float, int]] | None = None  # when, and the place of its state
        self._one = len(simulation.shards) == 1
        self.counts: Counter[str] = Counter()

    @property
    def _replay(self) -> Replay:
        return self._simulation.checker.replay

    def states(self) -> list[State]:
        """All that are committed, in order."""
        rows = self._replay.rows
        for index, body in rows[self._read :]:
            feature, changed = decode(body, 0, len(body))
            if feature == RowsOf.AUTH:
                folded = self._folded
                folded.take(changed)
                self._states.append(
                    State(
                        index,
                        folded.enabled,
                        folded.revision,
                        folded.meta.epoch,
                        {user.name: (user.roles, user.since) for user in folded.users.values()},
                        {
                            role.name: tuple((p.key, p.range_end, p.kind) for p in role.permissions)
                            for role in folded.roles.values()
                        },
                        frozenset(name for name, _ in changed),
                    )
                )
        self._read = len(rows)
        return self._states

    # -- which states a request may have been judged in

    def _changes(self) -> list[tuple[float, int]]:
        """The acknowledged changes: when, and the place of the state that each made at the earliest."""
        if self._acknowledged is None:
            found: list[tuple[float, int]] = []
            for o in self._clients.operations:
                if o.method in CHANGES and o.ok:
                    names = _touched(o.method, o.request)
                    places = [
                        place
                        for place, state in enumerate(self.states())
                        if names <= state.names and o.asked_at <= self._committed_at(state) <= o.answered_at
                    ]
                    if places:
                        found.append((o.answered_at, max(places[0], found[-1][1] if found else 0)))
            self._acknowledged = found
        return self._acknowledged

    def _committed_at(self, state: State) -> float:
        return self._simulation.checker.committed_at[state.index] if state.index else -1.0

    def _least(self, time: float) -> int:
        """The place of the state that was known to be in force by then."""
        changes = self._changes()
        at = bisect_right(changes, (time,))
        return changes[at - 1][1] if at else 0

    def _between(self, o: Operation, until: float) -> list[State]:
        states = self.states()
        local = o.method == "HashKV" or (o.method in ("Range", "Txn") and _serializable(o))
        least = self._least(o.asked_at)
        if local:  # a replica that is behind may answer: it knew the users of the revision that it showed
            record = self._replay.record_of.get(o.response.header.revision if o.ok else 0, 0)
            least = max((at for at, state in enumerate(states) if state.index < record), default=0)
        return [state for state in states[least:] if self._committed_at(state) <= until] or [states[least]]

    def within(self, asked_at: float, answered_at: float) -> list[State]:
        """The states in which a request may have been judged that a leader judges."""
        states, least = self.states(), self._least(asked_at)
        return [s for s in states[least:] if self._committed_at(s) <= answered_at] or [states[least]]

    def _at_revision(self, revision: int) -> list[State]:
        """The states in which a write may have been judged that changed something: none that was known to be
        over when it came into effect."""
        index, states = self._replay.record_of[revision], self.states()
        first = self._least(self._simulation.checker.committed_at[index])
        moved = any(switch.revision < revision for switch in self._simulation.checker.owners.switched)
        if self._one and not moved:  # by shard 0: evaluated where it stands in the order
            first = max(first, *(at for at, state in enumerate(states) if state.index < index or not at))
        return [state for state in states[first:] if state.index <= index] or [states[first]]

    # -- what hangs on a lease

    def _keys(self, o: Operation, first: int, last: int, *, all_along: bool = True) -> list[bytes]:
        """The keys on the leases that a request names (or on any) at each of these revisions, or at some."""
        request, every = o.request, o.method == "LeaseLeases"
        leases = (
            {request.ID}
            if hasattr(request, "ID")
            else {request.lease}
            if hasattr(request, "lease")
            else set()
        )
        if o.method == "Txn":
            leases = {
                op.request_put.lease
                for ops in (request.success, request.failure)
                for op in ops
                if op.HasField("request_put")
            }
        leases -= {0}
        if not (leases or every) or (o.method == "LeaseTimeToLive" and not request.keys):
            return []
        found: set[bytes] | None = None
        for revision in range(first, last + 1):
            state = self._replay.states[revision]
            keys = {key for key, kv in state.items() if kv.lease in leases or (every and kv.lease)}
            found = keys if found is None else (found & keys if all_along else found | keys)
        return sorted(found or ())

    # -- the rules

    def answered(self, o: Operation) -> None:
        """P1. A verdict of the store counts as an answer: it tells of what is there."""
        if o.method in CHANGES:
            self._changed(o)
            return
        self.counts["answered"] += 1
        who = self._clients.who[o.number]
        states = self._between(o, o.answered_at)
        keys = self._keys(o, o.low, max(self._committed_by(o.answered_at), o.low))
        self._allowed("P1 nobody is answered what he may not ask", o, who, states, keys)

    def owned(self, o: Operation, revision: int) -> None:
        """P3: this request made that revision."""
        self.counts["applied"] += 1
        before = revision - 1
        keys = self._keys(o, before, before)
        self._allowed(
            "P3 nothing comes into effect that is forbidden",
            o,
            self._clients.who[o.number],
            self._at_revision(revision),
            keys,
        )

    def _allowed(
        self, rule: str, o: Operation, who: Principal | None, states: list[State], keys: list[bytes]
    ) -> None:
        for need in needs_of(o.method, o.request, keys):
            said = {state.says(who, need) for state in states}
            if None not in said:
                raise Violation(rule, f"{o} of {who}: {need} {said} in {states}")

    def refused(self, o: Operation) -> bool:
        """P2, if it is a refusal for who asked."""
        text = o.error or ""
        if o.method in CHANGES:
            self._changed(o)
            return True
        if text not in PERMISSION:
            # a front knows of no user's rights; below the pruning of its table it refuses by itself (G7)
            moved = self._simulation.checker.owners.switched
            told_by_front = (
                "duplicate key" in text or "future revision" in text or ("compacted" in text and moved))
            if not told_by_front and o.method not in ("LeaseRevoke", "LeaseKeepAlive"):
                self.answered(o)
            return False
        self.counts[f"refused: {text}"] += 1
        who = self._clients.who[o.number]
        states = self._between(o, o.answered_at)
        keys = self._keys(o, 1, self._replay.revision, all_along=False)
        needs = needs_of(o.method, o.request, keys)
        if not any(state.says(who, need) == text for state in states for need in needs):
            raise Violation("P2 nobody is refused what he may", f"{o} of {who} in {states}")
        return True

    def _changed(self, o: Operation) -> None:
        """Root may always; whether a change makes sense is for its own tests to say."""
        if o.error is not None and not any(text in o.error for text in _MANAGED):
            raise Violation("P2 nobody is refused what he may", f"{o}")
        self.counts["changes" if o.ok else "changes refused"] += 1

    def _committed_by(self, time: float) -> int:
        return self._replay.committed_by(time, self._simulation.checker.committed_at)

    def _watched(self, w: Watch) -> None:
        """P5. A watch that is there is judged again by its user's name alone."""
        who, need = w.stream.who, ("read", w.request.key or b"\0", w.request.range_end)
        if w.responses:
            said = {state.says(who, need) for state in self.within(w.asked_at, w.responses[0][0])}
            if None not in said and not w.stream.unknown:
                raise Violation("P5 nobody watches what he may not", f"{w} of {who}: {said}")
            who = Principal(Kind.CERTIFICATE, who.user) if who is not None and who.user else None
        if w.denied is not None:
            text = w.denied.partition(" desc = ")[2]
            self.counts[f"watch denied: {text}"] += 1
            said = {state.says(who, need) for state in self.within(w.asked_at, w.denied_at)}
            if text in PERMISSION and text not in said:
                raise Violation("P5 no watch is denied that is allowed", f"{w} of {who}: {w.denied}, {said}")
        elif w.responses and w.ended is None and not w.cancelled:
            self.counts["watches judged at the end"] += 1
            if error := self.states()[-1].says(who, need):
                raise Violation("P5 no watch stands that is forbidden", f"{w} of {who}: {error}")

    def _shown(self, w: Watch) -> None:
        """P5. A change that forbids a watch is told before what is written after it."""
        states, record_of = self.states(), self._replay.record_of
        who, need = w.stream.who, ("read", w.request.key or b"\0", w.request.range_end)
        who = Principal(Kind.CERTIFICATE, who.user) if who is not None and who.user else None
        for time, response in w.responses:
            for revision in {event.kv.mod_revision for event in response.events}:
                first = bisect_left(states, record_of[revision], key=lambda state: state.index) - 1
                since = [s for s in states[first + 1 :] if self._committed_at(s) <= time]
                self.counts["watch events judged"] += 1
                if None not in {state.says(who, need) for state in (states[max(first, 0)], *since)}:
                    raise Violation(
                        "P5 no watch shows what came after it was forbidden",
                        f"{w} of {who}: {revision} at {time:.4f}",
                    )

    def check(self) -> None:
        """P4 and P5, once all is quiet."""
        for watch in self._clients.watches:
            self._watched(watch)
        for watch in self._clients.watches:
            self._shown(watch)
        self.counts["states"] = len(self.states())
        folded = _plain(self._folded)
        for (host, shard), process in sorted(self._simulation.nodes.items()):
            node: Any = process.node
            stored = AuthState(node.store.feature_rows(RowsOf.AUTH))
            if not folded == _plain(node.guard.state) == _plain(stored):
                raise Violation(
                    "P4 all replicas know the same users",
                    f"node {host}.{shard}: {_plain(node.guard.state)}, "
                    f"stored {_plain(stored)}, committed {folded}",
                )


def _plain(state: AuthState) -> tuple[object, ...]:
    return state.meta, state.users, state.roles


def _serializable(o: Operation) -> bool:
    if o.method == "Range":
        return bool(o.request.serializable)
    ops = [op for ops in (o.request.success, o.request.failure) for op in ops]
    return bool(ops) and all(op.HasField("request_range") and op.request_range.serializable for op in ops)
