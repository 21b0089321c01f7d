"""Watches are asked for again when users and roles change."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from cluster import errors
from cluster.errors import EtcdError
from cluster.pb import rpc_pb2
from proxy.auth.shown import Principals
from proxy.routing.waiting import MethodStats, Waiting
from proxy.watch.permissions import Permissions
from proxy.watch.stream import Then, WatchStream
from tests.unit.proxy.fakes import ManualLoop

WATCHES = 5


class Watch(SimpleNamespace):
    __hash__ = object.__hash__  # as ``proxy.watch.cohort.ClientWatch``


class Stream:
    """A stream of watches that nobody shows anything for."""

    closed = False

    def __init__(self) -> None:
        self.call = None
        self.watches = {
            number: Watch(
                id=number,
                cohort=SimpleNamespace(subscription=SimpleNamespace(key=b"k%d" % number, range_end=b"")),
            )
            for number in range(WATCHES)
        }
        self.canceled: list[int] = []

    def cancel(self, watch: Any, error: EtcdError) -> None:
        self.canceled.append(watch.id)
        del self.watches[watch.id]


class Asked:
    """A router's questions, answered by hand."""

    def __init__(self) -> None:
        self.loop = ManualLoop()
        self.limit_s = 5.0
        self.quiet: Any = None
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
        assert permissions.may_watch(call, b"k", b"", told.append)
        for error in (errors.TIMEOUT, errors.TIMEOUT_DUE_TO_LEADER_FAIL, errors.TOO_MANY_REQUESTS):
            router.answer(EtcdError(error))
            assert not told
            assert router.later() == 1
        router.answer(last)
        (error_told,) = told
        assert (error_told and error_told.kind) == (last and last.kind)
        told.clear()
        assert not router.later()
    permissions.may_watch(call, b"k", b"", told.append)
    router.answer(EtcdError(errors.TIMEOUT))
    router.principals.enabled = False
    router.later()
    assert told == [None]
    router.principals.enabled = True
    permissions.may_watch(call, b"k", b"", told.append)
    router.answer(EtcdError(errors.TIMEOUT))
    call.closed = True
    router.later()
    assert not router.waiting
    assert told == [None]


def test_changes_while_questions_are_under_way_do_not_multiply_them() -> None:
    router, stream = Asked(), Stream()
    permissions = Permissions(router, [stream])  # type: ignore[arg-type, list-item]
    for _ in range(3):
        permissions.changed()
    assert len(router.waiting) == 3 * WATCHES
    router.answer(None)
    assert not router.waiting


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
    """A hub that asks for each watch, refused at once while ``full``."""

    def __init__(self) -> None:
        super().__init__()
        self.full = False
        self.asked: list[Then] = []

    def may_watch(self, call: Any, key: bytes, range_end: bytes, then: Then) -> bool:
        if self.full:
            then(EtcdError(errors.TOO_MANY_REQUESTS))
        else:
            self.asked.append(then)
        return True


def test_a_stream_goes_on_after_a_question_that_was_refused_at_once() -> None:
    hub = Asking()
    stream = WatchStream(hub, hub, MethodStats())  # type: ignore[arg-type]
    create = rpc_pb2.WatchRequest(create_request=rpc_pb2.WatchCreateRequest(key=b"k"))
    hub.full = True
    stream.request(create)
    assert len(hub.sent) == 1
    hub.full = False
    stream.request(create)
    (judged,) = hub.asked
    for _ in range(2000):
        stream.request(create)
    hub.full = True
    judged(EtcdError(errors.PERMISSION_DENIED))
    assert len(hub.sent) == 2002
    assert not stream.deferred


def test_requests_that_wait_for_a_permission_are_taken_once_each() -> None:
    hub, looks, waiting = Asking(), [0], 50

    class Request:
        create_request = rpc_pb2.WatchCreateRequest(key=b"k")

        def ByteSize(self) -> int:
            looks[0] += 1
            return 10

        def WhichOneof(self, name: str) -> str:
            return "create_request"

    stream = WatchStream(hub, hub, MethodStats())  # type: ignore[arg-type]
    for _ in range(waiting):
        stream.request(Request())
    while hub.asked:
        hub.asked.pop()(EtcdError(errors.PERMISSION_DENIED))
    assert len(hub.sent) == waiting
    assert looks[0] <= 2 * waiting
