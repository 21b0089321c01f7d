"""Watches are asked for again when users and roles change."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from cluster import errors
from cluster.errors import EtcdError
from cluster.faults import faults
from cluster.pb import rpc_pb2
from proxy.auth.shown import Principals, SimpleTokens
from proxy.routing.waiting import MethodStats, Waiting
from proxy.watch.hub import WatchHub
from proxy.watch.permissions import Permissions
from proxy.watch.stream import Then, WatchStream
from tests.unit.proxy.fakes import ManualLoop

WATCHES = 5


class Watch(SimpleNamespace):
    __hash__ = object.__hash__  # as ``proxy.watch.cohort.ClientWatch``


class Stream:
    """A stream of watches."""

    closed = False

    def __init__(self, watches: int = WATCHES, user: str | None = "alice") -> None:
        self.permitted: list[tuple[int, int]] = []  # watch, and since which change
        self.call = SimpleNamespace(principal=SimpleNamespace(user=lambda: user))
        self.watches = {
            number: Watch(
                id=number,
                cohort=SimpleNamespace(
                    subscription=SimpleNamespace(key=b"k%d" % number, range_end=b""),
                    permitted=lambda change, number=number: self.permitted.append((number, change)),
                ),
            )
            for number in range(watches)
        }
        self.canceled: list[int] = []
        self.doubted: list[int] = []

    def doubt(self, change: int) -> None:
        self.doubted.append(change)

    def cancel(self, watch: Any, error: EtcdError) -> None:
        self.canceled.append(watch.id)
        del self.watches[watch.id]


class Asked:
    """A router's questions, answered by hand."""

    def __init__(self) -> None:
        self.loop = ManualLoop()
        self.limit_s = 5.0
        self.quiet = MethodStats()
        self.principals = Principals(None)
        self.read_index = self
        self.waiting: list[Waiting] = []

    def add(self, waiting: Waiting) -> None:
        self.waiting.append(waiting)

    def answer(self, *said: EtcdError | None) -> None:
        """Each question that waits, in turn; the last answer is of all that are left."""
        waiting, self.waiting = self.waiting, []
        for place, question in enumerate(waiting):
            error = said[min(place, len(said) - 1)]
            question.tell(0 if error is None else 1, b"" if error is None else error.encode())

    def at_flush(self, then: Callable[[], None]) -> None:
        self.loop.call_soon(then)

    def later(self) -> int:
        """Time passes; how much was to be done."""
        due, self.loop.later = self.loop.later, []
        for callback in due:
            callback()
        return len(due)


def test_questions_that_nobody_answers_are_asked_again_and_never_multiply() -> None:
    router, stream = Asked(), Stream()
    permissions = Permissions(router, [stream])  # type: ignore[arg-type, list-item]
    permissions.changed()
    for _ in range(4):
        assert len(router.waiting) == WATCHES
        router.answer(EtcdError(errors.TIMEOUT))
        assert router.later() == 1
    router.answer(EtcdError(errors.PERMISSION_DENIED))
    assert stream.canceled == list(range(WATCHES))
    assert not router.later()


def test_only_what_was_not_answered_is_asked_again() -> None:
    router, stream = Asked(), Stream()
    permissions = Permissions(router, [stream])  # type: ignore[arg-type, list-item]
    permissions.changed()
    router.answer(None, None, EtcdError(errors.TOO_MANY_REQUESTS))
    del stream.watches[4]  # its client has ended it meanwhile
    router.later()
    assert len(router.waiting) == WATCHES - 3
    router.answer(EtcdError(errors.PERMISSION_DENIED), None)
    assert stream.canceled == [2]
    assert not router.later()


def test_a_question_whose_answer_may_be_older_than_a_change_is_asked_again() -> None:
    """The leader tells of the change before the node that was asked has applied it."""
    router, told = Asked(), list[EtcdError | None]()
    permissions = Permissions(router, [])  # type: ignore[arg-type]
    router.principals.enabled = True
    permissions.ask(None, b"k", b"", told.append)
    permissions.changed()
    router.answer(None)
    assert not told
    router.answer(EtcdError(errors.PERMISSION_DENIED))
    assert [error and error.kind for error in told] == [errors.PERMISSION_DENIED]
    permissions.ask(None, b"k", b"", told.append)
    router.answer(None)
    assert told[1:] == [None]


def test_a_new_watch_is_asked_for_until_a_node_has_judged() -> None:
    """Its client takes a refusal for the watch's end: all that resumed without a leader ended for good."""
    router, told = Asked(), list[EtcdError | None]()
    permissions = Permissions(router, [])  # type: ignore[arg-type]
    call = SimpleNamespace(closed=False, principal=None)
    router.principals.enabled = True
    for last in (None, EtcdError(errors.PERMISSION_DENIED), EtcdError(errors.INVALID_AUTH_TOKEN)):
        assert permissions.may_watch(call, [(b"k", b"")], told.extend)
        for error in (errors.TIMEOUT, errors.TIMEOUT_DUE_TO_LEADER_FAIL, errors.TOO_MANY_REQUESTS):
            router.answer(EtcdError(error))
            assert not told
            assert router.later() == 1
        router.answer(last)
        (error_told,) = told
        assert (error_told and error_told.kind) == (last and last.kind)
        told.clear()
        assert not router.later()
    permissions.may_watch(call, [(b"k", b"")], told.extend)
    router.answer(EtcdError(errors.TIMEOUT))
    router.principals.enabled = False
    router.later()
    assert told == [None]
    router.principals.enabled = True
    permissions.may_watch(call, [(b"k", b"")], told.extend)
    router.answer(EtcdError(errors.TIMEOUT))
    call.closed = True
    router.later()
    assert not router.waiting
    assert told == [None]


def test_a_client_with_a_certificate_waits_for_nobody_while_users_are_not_enabled() -> None:
    """Its watches were not created without a leader; its stream's cancels and progress requests waited."""
    router = Asked()
    permissions = Permissions(router, [])  # type: ignore[arg-type]
    call = SimpleNamespace(closed=False, principal=router.principals.of(None, "anna"))
    never: Any = None
    assert not permissions.may_watch(call, [(b"k", b"")], never)
    assert not permissions.ask(call, b"k", b"", never)
    assert not router.waiting


def test_a_watch_of_before_users_is_its_users_though_the_token_has_ended() -> None:
    router, now_s = Asked(), [0.0]
    tokens = SimpleTokens(300.0, lambda: now_s[0])
    tokens.secret = b"s" * 32
    router.principals = Principals(tokens, lambda: now_s[0])
    permissions = Permissions(router, [])  # type: ignore[arg-type]
    shown = router.principals.of(tokens.give("anna", 5).encode(), None)
    never: Any = None
    permissions.may_watch(SimpleNamespace(principal=shown), [(b"k", b"")], never)
    now_s[0] = 400.0
    assert shown is not None
    assert shown.user() == "anna"


def test_changes_while_questions_are_under_way_do_not_multiply_them() -> None:
    router, stream = Asked(), Stream()
    permissions = Permissions(router, [stream])  # type: ignore[arg-type, list-item]
    for _ in range(3):
        permissions.changed()
    assert len(router.waiting) == WATCHES
    router.answer(None)
    router.loop.run()
    assert len(router.waiting) == WATCHES, "once more: the first may have been asked before the last change"
    router.answer(None)
    router.loop.run()
    assert not router.waiting


def test_a_change_asks_for_very_many_watches_portion_by_portion() -> None:
    """5,000 at once held up logins and puts for seconds."""
    router, stream = Asked(), Stream(1_000)
    permissions = Permissions(router, [stream])  # type: ignore[arg-type, list-item]
    permissions.changed()
    asked = 0
    while router.waiting:
        assert len(router.waiting) <= 200
        asked += len(router.waiting)
        router.answer(EtcdError(errors.PERMISSION_DENIED))
        router.loop.run()
    assert asked == 1_000
    assert not stream.watches


def test_a_user_with_very_many_watches_holds_up_no_other_user() -> None:
    """In doubt they get nothing; 20,000 watches of one user took seconds."""
    router, many, few = Asked(), Stream(1_000), Stream(2, "bob")
    permissions = Permissions(router, [many, few])  # type: ignore[arg-type, list-item]
    for change in (1, 2):
        permissions.changed()
        for _ in range(2):  # one was under way
            router.answer(None)
            router.loop.run()
        assert [change for number, change in few.permitted][-2:] == [change, change]
        assert few.doubted[-1] == change
        assert router.waiting
    while router.waiting:
        router.answer(None)
        router.loop.run()
    assert many.doubted == few.doubted == [1, 2, 0]
    assert {number for number, change in many.permitted if change == 2} == set(range(1_000))


def test_a_fault_in_ending_one_watch_leaves_the_others_of_its_question_in_doubt() -> None:
    router, stream, broken = Asked(), Stream(1), Stream(1)
    broken.cancel = lambda watch, error: [][0]  # type: ignore[method-assign]
    permissions = Permissions(router, [broken, stream])  # type: ignore[arg-type, list-item]
    permissions.changed()
    router.answer(EtcdError(errors.PERMISSION_DENIED))
    assert [where for where, _ in faults.take()] == ["answering AUTH_SHOW"]
    assert (stream.canceled, stream.doubted) == ([], [1])
    broken.closed = True
    assert router.later() == 1
    router.answer(EtcdError(errors.PERMISSION_DENIED))
    assert stream.canceled == [0]


def test_one_question_stands_for_all_watches_without_a_user() -> None:
    router, stream = Asked(), Stream(150, None)
    permissions = Permissions(router, [stream])  # type: ignore[arg-type, list-item]
    permissions.changed()
    assert len(router.waiting) == 1
    router.answer(EtcdError(errors.USER_EMPTY))
    assert not stream.watches


@pytest.mark.parametrize("newest_first", [False, True])
def test_every_watch_of_a_question_that_failed_twice_is_asked_for_again(newest_first: bool) -> None:
    """The second question stands for a watch that came after the first one was sent."""
    router, stream = Asked(), Stream()
    permissions = Permissions(router, [stream])  # type: ignore[arg-type, list-item]
    late = stream.watches.pop(WATCHES - 1)
    late.cohort.subscription.key = b"k0"
    permissions.changed()
    stream.watches[late.id] = late
    permissions.changed()
    if newest_first:
        router.waiting.reverse()
    router.answer(EtcdError(errors.TIMEOUT))
    assert router.later() == 1
    router.loop.run()
    assert len(router.waiting) == WATCHES - 1
    router.answer(EtcdError(errors.PERMISSION_DENIED))
    assert sorted(stream.canceled) == list(range(WATCHES))


class Refusing:
    """A hub that must not be asked, and the call of its one stream."""

    fragment_bytes = 1 << 20

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.on_drain: Any = None

    def store_revision(self) -> int:
        return 7

    def header(self, revision: int) -> bytes:
        return b""

    def send(self, *parts: bytes) -> None:
        self.sent.append(b"".join(parts))

    def pending_bytes(self) -> int:
        return 0

    def backlog_bytes(self) -> int:
        return 1


def test_a_watch_from_a_negative_revision_is_refused_before_anybody_is_judged() -> None:
    hub = Refusing()  # whoever asks it for a permission fails
    create = rpc_pb2.WatchCreateRequest(key=b"secret", start_revision=-1)
    WatchStream(hub, hub, MethodStats()).request(rpc_pb2.WatchRequest(create_request=create))  # type: ignore[arg-type]
    (answer,) = map(rpc_pb2.WatchResponse.FromString, hub.sent)
    assert (answer.watch_id, answer.created, answer.canceled) == (-1, True, True)
    assert answer.cancel_reason == errors.WATCH_NEGATIVE_START


class Asking(Refusing):
    """A hub that asks for watches, refused at once while ``full``."""

    def __init__(self) -> None:
        super().__init__()
        self.full = self.paused = False
        self.asked: list[tuple[int, Then]] = []
        self.later: list[WatchStream] = []

    def may_watch(self, call: Any, ranges: Sequence[tuple[bytes, bytes]], then: Then) -> bool:
        if self.full:
            then([EtcdError(errors.TOO_MANY_REQUESTS)] * len(ranges))
        else:
            self.asked.append((len(ranges), then))
        return True

    def pause(self) -> None:
        self.paused = True

    def read_on(self) -> None:
        self.paused = False

    def resume_later(self, stream: WatchStream) -> None:
        self.later.append(stream)

    def turns(self) -> list[int]:
        """How many answers each further turn brings."""
        found = []
        while self.later:
            before = len(self.sent)
            self.later.pop().resume_deferred()
            found.append(len(self.sent) - before)
        return found


CREATE = rpc_pb2.WatchRequest(create_request=rpc_pb2.WatchCreateRequest(key=b"k"))


def test_a_stream_goes_on_after_a_question_that_was_refused_at_once() -> None:
    hub = Asking()
    stream = WatchStream(hub, hub, MethodStats())  # type: ignore[arg-type]
    hub.full = True
    stream.request(CREATE)
    assert len(hub.sent) == 1
    hub.full = False
    stream.request(CREATE)
    ((_, judged),) = hub.asked
    for _ in range(2000):
        stream.request(CREATE)
    hub.full = True
    judged([EtcdError(errors.PERMISSION_DENIED)])
    assert hub.turns() == [200] * 9  # in one turn 25,000 would hold all other clients up for 0.8 s
    assert len(hub.sent) == 2002
    assert not stream.deferred


def test_very_many_watches_are_asked_for_together_and_read_no_further_meanwhile() -> None:
    """12,000, as a client sends them when it comes back, ended its stream: they were asked for one by one."""
    hub = Asking()
    stream = WatchStream(hub, hub, MethodStats())  # type: ignore[arg-type]
    for place in range(12_000):
        stream.request(CREATE)
        if place % 100 == 50:
            stream.request(rpc_pb2.WatchRequest(cancel_request=rpc_pb2.WatchCancelRequest(watch_id=7)))
    assert hub.paused, "its client is not asked for more"
    questions = 0
    while hub.asked:
        ((ranges, judged),) = hub.asked
        hub.asked.clear()
        questions += 1
        judged([EtcdError(errors.PERMISSION_DENIED)] * ranges)
    assert len(hub.sent) == 12_000
    assert questions <= 62
    assert not hub.paused


def test_each_of_several_watches_has_its_own_answer_in_order() -> None:
    router, told = Asked(), list[Sequence[EtcdError | None]]()
    permissions = Permissions(router, [])  # type: ignore[arg-type]
    router.principals.enabled = True
    call = SimpleNamespace(closed=False, principal=None)
    assert permissions.may_watch(call, [(b"a", b""), (b"b", b""), (b"c", b"")], told.append)
    router.answer(None, EtcdError(errors.PERMISSION_DENIED), EtcdError(errors.TIMEOUT))
    assert not told
    router.later()
    assert len(router.waiting) == 1, "only what no node has judged is asked for again"
    router.answer(None)
    (found,) = told
    assert [error and error.kind for error in found] == [None, errors.PERMISSION_DENIED, None]


def test_watches_that_were_judged_before_a_change_are_asked_for_again() -> None:
    router, told = Asked(), list[Sequence[EtcdError | None]]()
    permissions = Permissions(router, [])  # type: ignore[arg-type]
    router.principals.enabled = True
    call = SimpleNamespace(closed=False, principal=None)
    permissions.may_watch(call, [(b"a", b""), (b"b", b"")], told.append)
    late = router.waiting.pop()
    router.answer(None)
    permissions.changed()  # the first one is not created yet, so nobody asks for it
    router.waiting.append(late)
    router.answer(None)
    router.answer(None)
    assert not told
    router.answer(EtcdError(errors.PERMISSION_DENIED))
    (found,) = told
    assert [error and error.kind for error in found] == [errors.PERMISSION_DENIED] * 2


def test_changes_one_after_the_other_put_off_no_watch() -> None:
    """Each began with the first ones again: the last ones of 60,000 were asked for once changes ended."""
    router, stream = Asked(), Stream(1_000)
    permissions = Permissions(router, [stream])  # type: ignore[arg-type, list-item]
    asked = set()
    for _ in range(6):
        permissions.changed()
        asked.update(waiting.body for waiting in router.waiting)
        router.answer(None)
        router.loop.run()
    assert len(asked) == 1_000


class Resuming(WatchHub):
    """A hub as far as it lets streams go on."""

    def __init__(self) -> None:
        self._resuming: OrderedDict[Any, None] = OrderedDict()
        self._resumes = False
        self.turns: list[Any] = []
        self._router: Any = SimpleNamespace(loop=SimpleNamespace(call_soon=self.turns.append))
        self.taken = 0


class Late:
    """A stream with so many requests that waited."""

    def __init__(self, hub: Resuming, left: int) -> None:
        self.hub, self.left = hub, left

    def resume_deferred(self) -> int:
        some = min(self.left, 200)
        self.left -= some
        self.hub.taken += some
        if self.left:
            self.hub.resume_later(self)  # type: ignore[arg-type]
        return some


@pytest.mark.parametrize(("waiting", "turns"), [
    ([1] * 500, [200, 200, 100]), ([450], [200, 200, 50]), ([450, 1, 1], [200, 202, 50]), ([0, 0, 1], [1]),
])
def test_a_front_takes_some_requests_in_a_turn_of_however_many_streams(
    waiting: list[int], turns: list[int]
) -> None:
    hub = Resuming()
    streams = [Late(hub, left) for left in waiting]
    for stream in 3 * streams:  # once for each link that comes up
        hub.resume_later(stream)  # type: ignore[arg-type]
    found = []
    while hub.turns:
        (turn,) = hub.turns
        hub.turns.clear()
        before = hub.taken
        turn()
        found.append(hub.taken - before)
    assert found == turns
