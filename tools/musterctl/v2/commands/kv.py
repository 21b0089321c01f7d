"""Commands on keys."""

from __future__ import annotations

import sys
from collections.abc import Callable

from tools.musterctl.v2.client import BAD_ARGS, SERVER_ERROR, Refused, connect, fail, refuse
from tools.musterctl.v2.exchange import RequestError
from tools.musterctl.v2.keys import NOT_A_FILE, Change, KeyRefused, Keys, Node
from tools.musterctl.v2.output import show
from tools.musterctl.v2.start import Run


def _keys(run: Run) -> Keys:
    return Keys(connect(run.globals))


def key_of(run: Run) -> str:
    if not run.args:
        fail(BAD_ARGS, "key required")
    return run.args[0]


def _value(run: Run) -> str:
    """The second argument, or all of standard input."""
    if len(run.args) > 1:
        return run.args[1]
    value = sys.stdin.buffer.read().decode("utf-8", "surrogateescape")
    if not value:
        fail(BAD_ARGS, "value required")
    return value


def _done(request: Callable[[], Change]) -> Change:
    try:
        return request()
    except (RequestError, Refused) as error:
        fail(SERVER_ERROR, error)


def _show(run: Run, change: Change, directories: bool = True) -> None:
    """Print it; directories in the longer forms only, unless told otherwise."""
    form = run.globals.string("output")
    if directories or form != "simple":
        show(change, form)


def set_(run: Run) -> None:
    keys, key, value, options = _keys(run), key_of(run), _value(run), run.options
    _show(run, _done(lambda: keys.put(
        key, value, options.number("ttl"), None,
        options.string("swap-with-value"), options.number("swap-with-index"),
    )))  # fmt: skip


def update(run: Run) -> None:
    keys, key, value, ttl = _keys(run), key_of(run), _value(run), run.options.number("ttl")
    _show(run, _done(lambda: keys.put(key, value, ttl, True)))


def mk(run: Run) -> None:
    keys, key, value, ttl = _keys(run), key_of(run), _value(run), run.options.number("ttl")
    if run.options.switch("in-order"):
        return _show(run, _done(lambda: keys.create_in_order(key, value, ttl)))
    _show(run, _done(lambda: keys.put(key, value, ttl, False)))


def mkdir(run: Run) -> None:
    keys, key, ttl = _keys(run), key_of(run), run.options.number("ttl")
    _show(run, _done(lambda: keys.put(key, None, ttl, False)), directories=False)


def setdir(run: Run) -> None:
    """Make a directory, or give an existing one a TTL: etcd only promises the latter."""
    keys, key, ttl = _keys(run), key_of(run), run.options.number("ttl")

    def made() -> Change:
        try:
            return keys.put(key, None, ttl)
        except KeyRefused as error:
            if error.code != NOT_A_FILE:
                raise
            try:
                return keys.put(key, None, ttl, True)
            except (RequestError, Refused):
                raise error from None

    _show(run, _done(made), directories=False)


def updatedir(run: Run) -> None:
    keys, key, ttl = _keys(run), key_of(run), run.options.number("ttl")
    _show(run, _done(lambda: keys.put(key, None, ttl, True)), directories=False)


def rm(run: Run) -> None:
    keys, key, options = _keys(run), key_of(run), run.options
    gone = _done(lambda: keys.delete(
        key, options.switch("dir"), options.switch("recursive"),
        options.string("with-value"), options.number("with-index"),
    ))  # fmt: skip
    _show(run, gone, directories=not gone.node.dir)


def rmdir(run: Run) -> None:
    """Delete an empty directory, or a key."""
    keys, key = _keys(run), key_of(run)
    gone = _done(lambda: keys.delete(key, directory=True))
    _show(run, gone, directories=not gone.node.dir)


def get(run: Run) -> None:
    keys, key, options = _keys(run), key_of(run), run.options
    quorum = options.switch("quorum") or options.switch("consistent")
    found = _done(lambda: keys.get(key, sort=options.switch("sort"), quorum=quorum))
    if found.node.dir:
        refuse(f"{found.node.key}: is a directory")
    _show(run, found)


def ls(run: Run) -> None:
    key, options = run.args[0] if run.args else "/", run.options
    keys = _keys(run)
    found = _done(lambda: keys.get(
        key, options.switch("recursive"), options.switch("sort"), options.switch("quorum")
    ))  # fmt: skip
    if run.globals.string("output") != "simple":
        return _show(run, found)
    if not found.node.dir:
        sys.stdout.write(f"{found.node.key}\n")
    for node in found.node.nodes or []:
        _names(node, options.switch("p"))


def _names(node: Node, slash: bool) -> None:
    sys.stdout.write(f"{node.key}{'/' if node.dir and slash else ''}\n")
    for below in node.nodes or []:
        _names(below, slash)
