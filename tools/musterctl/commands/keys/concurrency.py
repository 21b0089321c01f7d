"""``lock`` and ``elect``."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import NoReturn

from muster_client.errors import LeaseLost
from muster_client.queueing import Leadership, Lock

from cluster.gotext import raw
from tools.musterctl import programs
from tools.musterctl.client import Client, RequestError, failing_with, session
from tools.musterctl.client import Session as Setting
from tools.musterctl.command import Exit, Invocation
from tools.musterctl.concurrency import Interrupted, Session, Signals

_TTL_S = 60


def lock(invocation: Invocation) -> None:
    """Holds the lock until interrupted, or until the command ends."""
    if not invocation.args:
        raise Exit(128, "lock takes a lock name argument and an optional command to execute")
    name, *command = invocation.args
    ttl_s = invocation.flags.number("ttl")
    s, signals = session(invocation), Signals()
    with failing_with(1), _canceled(), Session(s.client(), ttl_s if ttl_s > 0 else _TTL_S, signals) as held:
        place = held.lock(raw(name))
        try:
            signals.run(lambda: held.client.run(place.acquire()))
        except LeaseLost:
            raise Exit(1, "mutex: session is expired") from None
        if command:
            _execute(place, command)
        else:
            with contextlib.suppress(Interrupted):
                signals.run(lambda: _hold(s, held, place))
    held.check_given_up()


def _hold(s: Setting, held: Session, place: Lock) -> NoReturn:
    """Until the lease is gone, which is an error."""
    found = held.look(place)
    if not found.kvs:
        raise Exit(1, "lock lost on init")
    s.printer.get(found)
    sys.stdout.flush()
    held.wait()
    raise Exit(1, "session expired")


@contextlib.contextmanager
def _canceled() -> Iterator[None]:
    """Interrupted before it has what it waits for."""
    try:
        yield
    except Interrupted:
        raise Exit(1, "context canceled") from None


def _execute(place: Lock, command: list[str]) -> None:
    """Run the command while the lock is held; its exit code is the tool's."""
    environment = {
        "ETCD_LOCK_KEY": os.fsdecode(place.key),
        "ETCD_LOCK_REV": str(place.revision),
        **os.environ,
    }
    try:
        with subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL) as process:
            code = process.wait()  # signals end it not: the command decides when it ends
        reason = programs.ended(code)
    except (OSError, ValueError) as error:
        code, reason = 1, programs.not_started(command, error)
    if reason:
        raise Exit(code if code > 0 else 255, reason)


def elect(invocation: Invocation) -> None:
    """Leads until interrupted, or shows the leaders."""
    args, listen = invocation.args, invocation.flags.switch("listen")
    if len(args) not in (1, 2):
        raise Exit(128, "elect takes one election name argument and an optional proposal argument")
    if len(args) == 1 and not listen:
        raise Exit(128, "no proposal argument but -l not set")
    if len(args) == 2 and listen:
        raise Exit(128, "proposal given but -l is set")
    s = session(invocation)
    with failing_with(1):
        if listen:
            _observe(s, s.client(), raw(args[0]))
        else:
            _campaign(s, s.client(), raw(args[0]), raw(args[1]))


def _observe(s: Setting, client: Client, name: bytes) -> None:
    signals = Signals()

    def follow() -> None:
        for found in client.each(client.raw().observe(name, on_again=client.again)):
            s.printer.get(found)
            sys.stdout.flush()

    try:
        with Session(client, _TTL_S, signals), contextlib.suppress(RequestError):
            signals.run(follow)
    except Interrupted:
        return
    raise Exit(1, "elect: observer lost")


def _campaign(s: Setting, client: Client, name: bytes, proposal: bytes) -> None:
    signals = Signals()
    with _canceled(), Session(client, _TTL_S, signals) as held:
        place = held.candidate(name, proposal)
        try:
            signals.run(lambda: held.client.run(place.campaign()))
        except LeaseLost:
            raise Exit(1, "elect: session expired") from None
        with contextlib.suppress(Interrupted):
            signals.run(lambda: _lead(s, held, place))
    held.check_given_up()


def _lead(s: Setting, held: Session, place: Leadership) -> NoReturn:
    s.printer.get(held.look(place))
    sys.stdout.flush()
    held.wait()
    raise Exit(1, "elect: session expired")
