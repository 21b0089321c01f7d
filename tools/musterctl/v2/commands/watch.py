"""watch and exec-watch."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

from tools.musterctl import programs
from tools.musterctl.v2.client import BAD_ARGS, SERVER_ERROR, Refused, connect, fail
from tools.musterctl.v2.commands.kv import key_of
from tools.musterctl.v2.exchange import RequestError
from tools.musterctl.v2.keys import Change, Keys
from tools.musterctl.v2.output import end_at_interrupt, show
from tools.musterctl.v2.start import Run


class _Events:
    """The events of a key, one after the other."""

    def __init__(self, run: Run, key: str) -> None:
        after = run.options.number("after-index")
        self._keys = Keys(connect(run.globals))
        self._key = key
        self._recursive = run.options.switch("recursive")
        self._index = after + 1 if after > 0 else 0
        end_at_interrupt()

    def next(self) -> Change:
        try:
            change = self._keys.wait(self._key, self._index, self._recursive)
        except (RequestError, Refused) as error:
            fail(SERVER_ERROR, error)
        self._index = change.node.modified + 1
        return change


def watch(run: Run) -> None:
    """Print the next change, or all of them."""
    events = _Events(run, key_of(run))
    form, recursive = run.globals.string("output"), run.options.switch("recursive")
    while True:
        change = events.next()
        if change.node.dir:
            continue
        if recursive:
            sys.stdout.write(f"[{change.action}] {change.node.key}\n")
        show(change, form)
        if not run.options.switch("forever"):
            return


def exec_watch(run: Run) -> None:
    """Run a command for every change."""
    words = [word for at, word in enumerate(run.args) if word != "--" or at != 1]
    if len(words) < 2:
        fail(BAD_ARGS, "key and command to exec required")
    events = _Events(run, words[0])
    while True:
        change = events.next()
        if change.node.dir:
            print(f"Ignored dir {change.node.key} change", file=sys.stderr)
            continue
        _start(words[1:], change)


def _start(words: list[str], change: Change) -> None:
    environment = os.environ | {
        "ETCD_WATCH_ACTION": change.action,
        "ETCD_WATCH_MODIFIED_INDEX": str(change.node.modified),
        "ETCD_WATCH_KEY": change.node.key,
        "ETCD_WATCH_VALUE": change.node.value.replace("\0", ""),
    }
    try:
        process = subprocess.Popen(words, env=environment, stdin=subprocess.DEVNULL)
    except (OSError, ValueError) as error:
        sys.stderr.write(programs.not_started(words, error))
        sys.stderr.flush()
        os._exit(1)
    threading.Thread(target=process.wait, daemon=True).start()
