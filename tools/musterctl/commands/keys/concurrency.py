"""``lock`` and ``elect``."""

from __future__ import annotations

import os
import subprocess
import sys

from tools.gotext import quote, raw
from tools.musterctl.client import Client, RequestError, failing_with, session
from tools.musterctl.client import Session as Setting
from tools.musterctl.command import Exit, Invocation
from tools.musterctl.concurrency import Interrupted, Place, Session, interruptible, observe

_SESSION_TTL_S = 60
_CANCELED = "context canceled"


def lock(invocation: Invocation) -> None:
    """Holds the lock until interrupted, or until the command ends."""
    if not invocation.args:
        raise Exit(128, "lock takes a lock name argument and an optional command to execute")
    name, *command = invocation.args
    ttl_s = invocation.flags.number("ttl")
    s = session(invocation)
    with failing_with(1):
        held = Session(s.client(), ttl_s if ttl_s > 0 else _SESSION_TTL_S)
        place = Place(held, raw(name))
        interruptible()
        try:
            _acquire(place)
        except Interrupted:
            raise Exit(1, _CANCELED) from None
        try:
            if command:
                _execute(place, command)
                return
            found = place.look()
            if not found.kvs:
                raise Exit(1, "lock lost on init")
            s.printer.get(found)
            sys.stdout.flush()
            held.wait()
        except Interrupted:
            place.leave()
            return
    raise Exit(1, "session expired")


def _acquire(place: Place) -> None:
    """RequestError: nothing is left behind then."""
    if place.take(b""):
        return
    try:
        place.wait()
        found = place.look()
    except (Interrupted, RequestError):
        place.leave()
        raise
    if not found.kvs:
        raise Exit(1, "mutex: session is expired")
    place.header = found.header


def _execute(place: Place, command: list[str]) -> None:
    """Run the command while the lock is held; its exit code is the tool's."""
    environment = {
        "ETCD_LOCK_KEY": os.fsdecode(place.key),
        "ETCD_LOCK_REV": str(place.header.revision),
        **os.environ,
    }
    code, reason = 0, ""
    try:
        with subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL) as process:
            while True:
                try:
                    code = process.wait()
                    break
                except Interrupted:  # the command decides when it ends
                    continue
        reason = f"exit status {code}" if code > 0 else f"signal: {_signal(-code)}" if code < 0 else ""
    except FileNotFoundError:
        code = 1
        where = "no such file or directory" if "/" in command[0] else "executable file not found in $PATH"
        reason = (
            f"fork/exec {command[0]}: {where}"
            if "/" in command[0]
            else f"exec: {quote(os.fsencode(command[0]))}: {where}")
    except OSError as error:
        code, reason = 1, f"fork/exec {command[0]}: {(error.strerror or '').lower()}"
    place.leave()
    if reason:
        raise Exit(code if code > 0 else 255, reason)


def _signal(number: int) -> str:
    return {
        1: "hangup",
        2: "interrupt",
        3: "quit",
        6: "aborted",
        9: "killed",
        13: "broken pipe",
        15: "terminated",
    }.get(number, f"signal {number}")


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
    Session(client, _SESSION_TTL_S)
    interruptible()
    try:
        for found in observe(client, name):
            s.printer.get(found)
            sys.stdout.flush()
    except Interrupted:
        return
    except RequestError:
        pass
    raise Exit(1, "elect: observer lost")


def _campaign(s: Setting, client: Client, name: bytes, proposal: bytes) -> None:
    held = Session(client, _SESSION_TTL_S)
    place = Place(held, name)
    interruptible()
    try:
        if not place.take(proposal):
            try:
                place.wait()
            except Interrupted:
                place.resign()
                raise
    except Interrupted:
        raise Exit(1, _CANCELED) from None
    try:
        s.printer.get(place.look())
        sys.stdout.flush()
        held.wait()
    except Interrupted:
        place.resign()
        return
    raise Exit(1, "elect: session expired")
