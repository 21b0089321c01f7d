"""A new host asks the cluster that it is to join for its members (``--initial-cluster-state existing``).

It asks the other hosts of ``--initial-cluster`` on their peer ports, one after the other, and takes the first
answer. While one of them listens and none answers, it asks all again: etcd waits ten seconds for each. By
etcd's rules the flags have to name as many members as the cluster, with the same peer URLs. The answer has
the IDs and the number of shards.

A member that lags behind does not know yet that this host was added, and a name may have no address yet. So
other members than the flags' end a start only when the time is over. Another number of members, which no
look-up changes, ends it as soon as all started members tell them.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterable, Sequence

from cluster.endpoints import UNIX, peer_endpoint
from cluster.members.described import Running
from cluster.members.table import Host
from cluster.settings import Peer, PeerTls
from cluster.wire.frames import PeerKind
from tools.muster.config.parse import ConfigError
from tools.muster.config.urls import dialable, parse_peer_url
from tools.muster.machine.zmtp import hint_of
from tools.muster.machine.zmtp.asking import NotOwn, Untrusted, asked_in_clear, asked_with_keys
from tools.muster.machine.zmtp.curve.keys import CurveKeys
from tools.muster.machine.zmtp.tls import PeerCredentials, asked_by_tls

QUESTION = PeerKind.JOIN.byte
_ONE_S = 2.0  # for an answer of one host
# a host may be asked that is busy, or has not heard yet what the cluster has agreed on
_AGAIN_S, _PAUSE_S = 10.0, 0.5
_SAME_S = 2.0  # for which the same members are told before all others are asked
InitialCluster = Sequence[tuple[str, tuple[str, ...]]]


class NoMember(ConfigError):
    """What listens where members should be is none, or refuses this host."""


def ask(
    addresses: Iterable[tuple[str, int]], key_file: str, tls: PeerTls | None = None, limit_s: float = _ONE_S,
    local: str = "", own_user: bool = False,
) -> Running | None:
    """What the first of these peer ports says that answers. ``local``: the address of this machine that they
    are dialled from; "": any. ``own_user``: on this machine only processes of this user count. NoMember."""
    if tls is not None:
        credentials = PeerCredentials(tls)
        return _first(addresses, lambda host, port: asked_by_tls(
            host, port, credentials, QUESTION, limit_s, local, own_user))
    keys = CurveKeys.load(key_file)
    if keys is None:
        return _first(addresses, lambda host, port: asked_in_clear(
            *_at(host, port), QUESTION, limit_s, local, own_user))
    return _first(addresses, lambda host, port: asked_with_keys(
        *_at(host, port), keys, QUESTION, limit_s, local))


def _at(host: str, port: int) -> tuple[str, int]:
    """A Unix socket's path has port 0."""
    return (peer_endpoint(host, port).removeprefix("ipc://"), 0) if host.startswith(UNIX) else (host, port)


def _first(addresses: Iterable[tuple[str, int]], ask_one: Callable[[str, int], bytes]) -> Running | None:
    """The first answer. NoMember, if there is none, and an address is known not to be a member's."""
    reasons: list[str] = []
    for host, port in addresses:
        try:
            answer = ask_one(host, port)
        except (NotOwn, Untrusted) as e:
            hint = hint_of(str(e))
            reasons.append(f"{host}:{port}: {e}" + (f": {hint}" if hint else ""))
        else:
            if (found := _told(answer)) is not None:
                return found
    if reasons:
        raise NoMember("; ".join(reasons))
    return None


def _listens(host: str, port: int) -> bool:
    if host.startswith(UNIX):
        return os.path.exists(f"{host.removeprefix(UNIX)}:{port}")
    try:
        socket.create_connection((host, port), _ONE_S).close()
    except OSError:
        return False
    return True


def _told(frame: bytes) -> Running | None:
    try:
        return Running.decode(frame[1:]) if frame[:1] == QUESTION else None
    except ValueError:
        return None


def untold(_text: str) -> None:
    """Who does not want to know why a start takes long."""


def join(
    initial: InitialCluster, name: str, key_file: str, tls: PeerTls | None, resolved: Callable[[str], str],
    local: str = "", own_user: bool = False, tell: Callable[[str], None] = untold,
) -> tuple[Running, tuple[Peer, ...], int]:
    """The running cluster, its hosts with the flags' names, and this host's ID. ConfigError. ``tell`` hears
    how the flags and the cluster differ, as soon as they do, and why no member has answered yet."""

    def ask_at(addresses: Iterable[tuple[str, int]]) -> Running | None:
        return ask(addresses, key_file, tls, local=local, own_user=own_user)

    others = [
        (at.host, at.port)
        for other, urls in initial
        if other != name
        for at in map(parse_peer_url, urls)
    ]
    deadline = time.monotonic() + _AGAIN_S
    no_member: NoMember | None = None  # of the last look that knows a reason
    unlike: tuple[_Table, float] | None = None  # what differs from the flags, and since when it does
    while True:
        try:
            running = ask_at(others)
        except NoMember as e:  # like no answer: a member may answer yet
            if no_member is None:
                tell(f"cannot fetch cluster info from peer urls, asking again: {e}")
            running, no_member = None, e
        if running is None:
            if time.monotonic() < deadline and any(_listens(*address) for address in others):
                time.sleep(_PAUSE_S)
                continue
            raise ConfigError(
                "cannot fetch cluster info from peer urls: "
                "could not retrieve cluster information from the given URLs"
                + (f": {no_member}" if no_member else ""))
        try:
            peers = assigned(initial, running, resolved)
        except ConfigError as e:
            now, table = time.monotonic(), _table(running)
            if unlike is None or unlike[0] != table:
                unlike = table, now
                tell(f"--initial-cluster does not match the cluster's members, asking again: {e}")
            lasting = len(initial) != len(running.members) and now - unlike[1] >= _SAME_S
            if now >= deadline or (lasting and _all_tell(running, ask_at)):
                raise
            time.sleep(_PAUSE_S)
            continue
        return running, peers, next(p.member_id for p in peers if p.name == name)


_Table = frozenset[tuple[int, tuple[str, ...]]]


def _table(running: Running) -> _Table:
    return frozenset((member.member_id, member.peer_urls) for member in running.members)


def _all_tell(running: Running, ask_at: Callable[[Iterable[tuple[str, int]]], Running | None]) -> bool:
    """Whether all members that have started tell these members."""
    started = [member for member in running.members if member.name]
    for member in started:
        found = [(at.host, at.port) for at in map(dialable, member.peer_urls) if at is not None]
        try:
            told = ask_at(found)
        except NoMember:
            return False
        if told is None or _table(told) != _table(running):
            return False
    return bool(started)


def assigned(initial: InitialCluster, running: Running, resolved: Callable[[str], str]) -> tuple[Peer, ...]:
    """The hosts of the flags with the IDs of the cluster, ordered by ID. ConfigError if they differ."""
    try:
        if len(initial) != len(running.members):
            raise ConfigError("member count is unequal")
        matched = _matched(initial, running.members, resolved)
        peers = []
        for member in running.members:
            found = matched.get(member.member_id)
            if found is None:
                urls = ", ".join(f'"{url}"' for url in member.peer_urls)
                raise ConfigError(
                    f"PeerURLs: no match found for existing member ({member.member_id:x}, [{urls}]), "
                    f"last resolver error ({_unequal(member, initial)})")
            first = parse_peer_url(found[1][0])
            own = tuple(sorted(found[1]))
            peers.append(Peer(member.member_id, found[0], first.host, first.port, own, member.learner))
    except ConfigError as e:
        raise ConfigError(f"error validating peerURLs {running}: {e}") from None
    return tuple(sorted(peers, key=lambda p: p.member_id))


def _matched(
    initial: InitialCluster, members: Sequence[Host], resolved: Callable[[str], str]
) -> dict[int, tuple[str, tuple[str, ...]]]:
    """The flags' host of each member, as far as there is one. The same URLs match as they are: two look-ups
    of a name may differ, and two names may have one address."""
    look: Callable[[str], str]
    found: dict[int, tuple[str, tuple[str, ...]]] = {}
    left = list(initial)
    for look in (str, resolved):
        by_urls = {tuple(sorted(map(look, urls))): (name, urls) for name, urls in left}
        for member in members:
            if member.member_id not in found:
                same = by_urls.pop(tuple(sorted(map(look, member.peer_urls))), None)
                if same is not None:
                    found[member.member_id] = same
                    left.remove(same)
    return found


def _unequal(member: Host, initial: InitialCluster) -> str:
    """etcd's word for the last compared host."""
    urls = initial[-1][1]
    if len(urls) != len(member.peer_urls):
        return f"len({[*member.peer_urls]}) != len({[*urls]})"
    a, b = sorted(member.peer_urls), sorted(urls)
    return next((f'resolved urls: "{x}" != "{y}"' for x, y in zip(a, b, strict=True) if x != y), "<nil>")
