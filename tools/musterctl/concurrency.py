"""clientv3's ``concurrency`` for ``lock`` and ``elect``, by the library: a session is a lease that is kept
alive, and locks and candidates hang on it.
"""

from __future__ import annotations

import functools
import math
import os
import secrets
import signal
import threading
import time
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import NoReturn, TypeVar

import grpc
from muster_client.lease import Lease
from muster_client.pb import rpc_pb2
from muster_client.queueing import Leadership, Lock, Place

from tools import ending
from tools.musterctl.client import Client, RequestError
from tools.musterctl.command import Exit

Result = TypeVar("Result")
_GRANTED_IN_S = 10.0  # a server without a majority says so after 7
_REVOKED_IN_S = 10.0
_AGAIN_S = 0.05
_TWICE_IN_S = 1.0  # signals so close are one
_PERHAPS_DONE = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)  # what so failed
_ENDED = b"e"  # other bytes are signals' numbers


class Interrupted(Exception):
    """SIGINT or SIGTERM came."""


class Signals:
    """SIGINT and SIGTERM, from now on: they interrupt what :meth:`run` runs, and nothing else. What was begun
    is tidied up. While that is done, a signal ends the process, but for the one that began it. Signals within
    a second are one: ``timeout`` sends its own twice, to the process and to its group.

    Steps run in threads, for an exception that a signal raises in the middle of gRPC breaks its locks.
    """

    def __init__(self) -> None:
        self._came = self._tidies = False
        self._last = -math.inf  # when one came that is not the one before it, by time.monotonic()
        self._moved, self._move = os.pipe()
        # The kernel gives a signal to any thread: only this wakes the main one, which handles it
        os.set_blocking(self._move, False)
        signal.set_wakeup_fd(self._move, warn_on_full_buffer=False)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._take)

    def _take(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        self._came = True
        if now - self._last < _TWICE_IN_S:
            return
        self._last = now
        if self._tidies:
            ending.by(number)

    def run(self, step: Callable[[], Result]) -> Result:
        """What a step gives, or raises. Interrupted: a signal came, perhaps before; the step is left to
        itself, as the process ends soon."""
        ended: list[Callable[[], Result]] = []

        def work() -> None:
            try:
                found = step()
            except BaseException as error:
                ended.append(functools.partial(_raise, error))
            else:
                ended.append(lambda: found)
            os.write(self._move, _ENDED)

        threading.Thread(target=work, daemon=True).start()
        while True:
            if self._came:
                raise Interrupted
            if ended:
                return ended[0]()
            if os.read(self._moved, 1) != _ENDED:
                self._came = True

    def tidy(self) -> None:
        """From now on another one ends the process."""
        self._tidies = True


def _raise(error: BaseException) -> NoReturn:
    raise error


class Session:
    """A lease of this process, kept alive by the library while its block runs, and revoked behind it: what
    hangs on it is gone then, however the block ends."""

    def __init__(self, client: Client, ttl_s: int, signals: Signals) -> None:
        self.client, self.signals = client, signals
        self._ttl_s = ttl_s
        # Chosen here: a grant whose answer was not waited for can be revoked
        self._id = secrets.randbits(62) + 1
        self._asked = False  # for the lease, perhaps
        self._lease: Lease | None = None
        self._left = ""  # why it could not be revoked

    def __enter__(self) -> Session:
        try:
            self.signals.run(self._grant)
        except BaseException as error:
            if self._asked and (not isinstance(error, RequestError) or error.code in _PERHAPS_DONE):
                self._revoke()
            raise
        ending.unread.append(self._revoke)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._revoke()
        ending.unread.clear()

    def _grant(self) -> None:
        self._library = self.client.library()  # behind the wait for an endpoint
        self._asked = True
        self._lease = self.client.run(
            self._library.lease(self._ttl_s, id=self._id, timeout=_GRANTED_IN_S))

    def _revoke(self) -> None:
        """A lease that cannot be revoked in time ends by itself."""
        self.signals.tidy()
        deadline = time.monotonic() + _REVOKED_IN_S
        try:
            while not self._revoked(deadline) and self._lease is None and time.monotonic() < deadline:
                time.sleep(_AGAIN_S)  # the grant may still be on its way
        except (RequestError, Exit) as error:
            self._left = str(error)

    def check_given_up(self) -> None:
        """Behind the block. Exit: what hung on the lease stays until it ends by itself."""
        if self._left:
            raise Exit(1, self._left)

    def _revoked(self, deadline: float) -> bool:
        try:
            self.client.unary(
                "Lease/LeaseRevoke", rpc_pb2.LeaseRevokeRequest(ID=self._id), rpc_pb2.LeaseRevokeResponse,
                deadline - time.monotonic(), safe_to_repeat=True)
        except RequestError as error:
            if error.code is not grpc.StatusCode.NOT_FOUND:
                raise
            return False
        return True

    def lock(self, name: bytes) -> Lock:
        """The library's lock of this lease."""
        return self._library.lock(name, lease=self._lease)

    def candidate(self, name: bytes, proposal: bytes) -> Leadership:
        """The library's candidate of this lease."""
        return self._library.election(name).campaign(proposal, lease=self._lease)

    def wait(self) -> None:
        """Until the lease is gone."""
        assert self._lease is not None
        self.client.run(self._lease.wait_lost())

    def look(self, place: Place) -> rpc_pb2.RangeResponse:
        """The key of a lock or a candidate."""
        return self.client.unary(
            "KV/Range", rpc_pb2.RangeRequest(key=place.key), rpc_pb2.RangeResponse, safe_to_repeat=True)
