"""``make-mirror`` and ``import``: copy one cluster's keys into another, and follow its changes.

``import`` copies leases too. Revisions and versions are the target's own: only a restored backup keeps them.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from dataclasses import replace

from muster_client.errors import COMPACTED

from cluster.gotext import prefix_end
from tools.client.channels import Config
from tools.musterctl.client import Client, RequestError, credentials, failing_with, session
from tools.musterctl.command import Exit, Invocation
from tools.musterctl.commands.data.copied_leases import Leases, is_same
from tools.musterctl.commands.data.copier import Copier
from tools.musterctl.commands.data.telling import now_and_then, say

_MIRROR_TELLS_S = 30.0
_EVERYTHING = (b"\0", b"\0")


def _span(prefix: str) -> tuple[bytes, bytes]:
    key = prefix.encode(errors="surrogateescape")
    return (key, prefix_end(key)) if key else _EVERYTHING


def _of_no_cluster(config: Config) -> Config:
    """The times and sizes of the global flags. Their credentials are not for another cluster, and their other
    files say nothing of it."""
    return replace(
        config, endpoints=(), insecure_transport=True, cert="", key="", cacert="", user="", password="",
        token="", skip_verify=False, server_name="")


def make_mirror(invocation: Invocation) -> None:
    """Until it fails or is interrupted."""
    flags = invocation.flags
    if len(invocation.args) != 1:
        raise Exit(128, "make-mirror takes one destination argument")
    prefix, renamed = flags.string("prefix"), flags.string("dest-prefix")
    if renamed and flags.switch("no-dest-prefix"):
        raise Exit(128, "`--dest-prefix` and `--no-dest-prefix` cannot be set at the same time, choose one")
    user, password = credentials(
        flags.string("dest-user"), flags.string("dest-password"), "Destination Password: ")
    s = session(invocation)
    target = replace(
        _of_no_cluster(s.config), endpoints=(invocation.args[0],), cert=flags.string("dest-cert"),
        key=flags.string("dest-key"), cacert=flags.string("dest-cacert"),
        insecure_transport=flags.switch("dest-insecure-transport"), user=user, password=password)
    old = prefix.encode(errors="surrogateescape")
    # with --rev, too: etcdctl drops the prefix there (etcd's issue 22421)
    new = renamed.encode(errors="surrogateescape") if renamed or flags.switch("no-dest-prefix") else old
    copier = Copier(s.client(), Client(target, target.endpoints), _span(prefix), flags.number("max-txn-ops"),
                    lambda key: key.replace(old, new, 1))
    threading.Thread(target=_print_totals, args=(copier,), daemon=True).start()
    with failing_with():
        if flags.number("rev") > 1:  # as etcdctl: the others mean all
            copier.revision = flags.number("rev") - 1
        else:
            copier.base()
        copier.follow()


def _print_totals(copier: Copier) -> None:
    while True:
        time.sleep(_MIRROR_TELLS_S)
        print(copier.copied, flush=True)


def import_(invocation: Invocation) -> None:
    """Keys and leases; with ``--follow`` until interrupted."""
    flags = invocation.flags
    if invocation.args or not flags.strings("from-etcd"):
        raise Exit(128, "import needs --from-etcd and takes no arguments")
    if flags.number("since") and not flags.switch("follow"):
        raise Exit(128, "--since needs --follow")
    if flags.number("since") < 0:
        raise Exit(128, "--since must not be negative")
    s = session(invocation)
    user, _, password = flags.string("from-user").partition(":")
    cacert, cert, key = (flags.string(f"from-{name}") for name in ("cacert", "cert", "key"))
    origin = replace(
        _of_no_cluster(s.config), endpoints=tuple(flags.strings("from-etcd")), cert=cert, key=key,
        cacert=cacert, insecure_transport=not (cacert or cert or key), user=user, password=password)
    source, target = Client(origin, origin.endpoints), s.client()
    with failing_with():
        if is_same(source, target):
            raise Exit(128, "--from-etcd names this cluster itself")
    leases = Leases(source, target)
    copier = Copier(source, target, _span(flags.string("prefix")), flags.number("max-txn-ops"),
                    lambda key: key, leases)
    copier.on_progress = now_and_then(
        lambda: f"copied {copier.copied} keys and changes, {leases.granted} leases, "
                f"revision {copier.revision}")
    say("this cluster assigns new revisions; to keep etcd's, restore a snapshot instead")
    with failing_with():
        try:
            _copy(copier, leases, flags.number("since"), follow=flags.switch("follow"))
        except RequestError as error:
            if copier.revision and str(error) == COMPACTED:  # nothing could go on from there
                say("the source compacted what is copied: stop its compaction, and begin with an empty store")
            elif copier.revision:
                say(f"to go on, add --follow --since {copier.revision + 1}")
            raise
        finally:
            _tell_unanswered(copier)


def _copy(copier: Copier, leases: Leases, since: int, *, follow: bool) -> None:
    copier.base(since)
    if not follow:
        copier.settle()
    say(f"copied {copier.copied} keys and {leases.granted} leases of revision {copier.revision}")
    if follow:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: _end(copier))
        copier.follow()


def _end(copier: Copier) -> None:
    """End the program, wherever it waits."""
    _tell_unanswered(copier)
    if not copier.is_whole:
        say(f"ended: keys are missing; to go on, add --follow --since {copier.revision + 1}")
        os._exit(1)
    say(f"ended: all is copied up to revision {copier.revision}")
    os._exit(0)


def _tell_unanswered(copier: Copier) -> None:
    for endpoint in copier.late.unanswered:
        say(f"{endpoint} left changes unanswered, and may still do them: compare the keys once it is back")
