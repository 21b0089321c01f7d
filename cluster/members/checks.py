"""Whether a wish for members is granted, and what it makes of the table: etcd's rules, in etcd's order.

Rules of the table: no ID or peer URL twice, only a learner is promoted, not too many learners. Rules of
``--strict-reconfig-check`` keep the quorum: enough members have started, and the leader has been connected to
enough of them for a while. A host has started once it has published its name and votes in every group. It is
connected if every group's leader hears it, too. A voter of the table that does not vote yet catches up as a
learner first.

A host that is added counts as away until it comes, a learner too: the connected hosts have to be a majority
with it, as in the newest etcd 3.5 and 3.6 (its issue 21640).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace

from cluster import errors
from cluster.errors import EtcdError
from cluster.members.identity import added_member_id
from cluster.members.table import Host, Table
from cluster.members.urls import can_be_a_hosts, mistake, trimmed

HEALTHY_S = 5.0  # so long a member is connected before it counts as healthy
MOST_URLS = 100  # of a member: some 2 ms to read
_MOST_CHARACTERS = 1 << 16  # of them together
_READY = 0.9  # of the leader's log: what a learner must have to be promoted


@dataclass(slots=True)
class Facts:
    """What the leader of shard 0 knows of the hosts."""

    started: Collection[int]  # have published themselves
    # so long a member is connected; 0: it is not; the own host's is infinite
    connected_s: Callable[[int], float]
    votes: Callable[[int], bool]  # in every group, by what is committed there
    alive: Callable[[int], bool]  # every group's leader hears it
    # share of the log that a learner has in the worst group; -1: not known
    match: Callable[[int], float] = lambda member_id: -1.0
    strict: bool = True
    max_learners: int = 1
    alone: bool = False  # the host takes no peers


def add(table: Table, facts: Facts, urls: Sequence[str], learner: bool, now_s: int) -> Host:
    """The new host of a MemberAdd. EtcdError."""
    peer_urls = tuple(sorted(checked_urls(urls)))
    new = Host(added_member_id(peer_urls, now_s), "", peer_urls, learner)
    if facts.alone:
        raise EtcdError(errors.TAKES_NO_PEER)
    voters = _voters(table)
    if facts.strict:
        if not learner and not _enough_to_add(voters, facts):
            raise EtcdError(errors.MEMBER_NOT_ENOUGH_STARTED)
        if len(voters) > 1 and _connected(voters, facts) < (len(voters) + 1) // 2 + 1:
            raise EtcdError(errors.UNHEALTHY)
    if new.member_id in table.hosts:  # one that was removed never comes back
        raise EtcdError(errors.MEMBER_NOT_FOUND if table.removed(new.member_id) else errors.MEMBER_EXIST)
    _free(table, new)
    if learner and sum(host.learner for host in table.members) >= facts.max_learners:
        raise EtcdError(errors.TOO_MANY_LEARNERS)
    return new


def remove(table: Table, facts: Facts, member_id: int) -> Host:
    """The host after a MemberRemove. EtcdError."""
    host = table.hosts.get(member_id)
    voters = _voters(table)
    left = [other for other in voters if other.member_id != member_id]
    # strict or not: a voter has to be left, or the data are lost (etcd's process panics)
    if not _started(left, facts) and host in voters:
        raise EtcdError(errors.MEMBER_NOT_ENOUGH_STARTED)
    if facts.strict and not (host is not None and host.learner and not host.removed):
        if _started(left, facts) < len(left) // 2 + 1:
            raise EtcdError(errors.MEMBER_NOT_ENOUGH_STARTED)
        # a host that is down, or does not vote yet, is in no quorum
        counts = facts.connected_s(member_id) > 0 and facts.votes(member_id)
        up = counts or facts.alive(member_id)
        if up and _connected(voters, facts) - counts < 1 + (len(voters) - 1) // 2:
            raise EtcdError(errors.UNHEALTHY)
    return replace(_known(table, member_id), removed=True)


def update(table: Table, member_id: int, urls: Sequence[str]) -> Host:
    """The host after a MemberUpdate, with the URLs in the order given. EtcdError, also for malformed URLs:
    etcd takes these, and its other members end by them."""
    new = replace(_known(table, member_id), peer_urls=checked_urls(urls))
    _free(table, new)
    return new


def alike(table: Table, host: Host, secure: bool) -> Host:
    """The host of an update. ``secure``: the hosts talk over https, whatever the table says; else one
    that goes over to https would reach no other. EtcdError."""
    others = any(other.member_id != host.member_id for other in table.members)
    if others and not secure and any(url.lower().startswith("https:") for url in host.peer_urls):
        raise EtcdError(errors.PEERS_OVER_HTTP)
    return host


def promote(table: Table, facts: Facts, member_id: int) -> Host:
    """The host after a MemberPromote. EtcdError."""
    host = _known(table, member_id)
    if host.learner and facts.match(member_id) < _READY:
        raise EtcdError(errors.LEARNER_NOT_READY)
    voters = _voters(table)
    if facts.strict and 1 + _started(voters, facts) < (len(voters) + 1) // 2 + 1:
        raise EtcdError(errors.MEMBER_NOT_ENOUGH_STARTED)
    if not host.learner:
        raise EtcdError(errors.MEMBER_NOT_LEARNER)
    return replace(host, learner=False)


def checked_urls(urls: Sequence[str]) -> tuple[str, ...]:
    """Peer URLs as etcd takes them, without spaces around. EtcdError, which very many are, too."""
    if len(urls) > MOST_URLS or sum(map(len, urls)) > _MOST_CHARACTERS:
        raise EtcdError(errors.MEMBER_BAD_URLS)
    kept = tuple(map(trimmed, urls))
    if not kept or any(map(mistake, kept)) or not all(map(can_be_a_hosts, kept)):
        raise EtcdError(errors.MEMBER_BAD_URLS)
    return kept


def _known(table: Table, member_id: int) -> Host:
    host = table.hosts.get(member_id)
    if host is None or host.removed:
        raise EtcdError(errors.MEMBER_NOT_FOUND)
    return host


def _free(table: Table, new: Host) -> None:
    taken = {url for host in table.members if host.member_id != new.member_id for url in host.peer_urls}
    if not taken.isdisjoint(new.peer_urls):
        raise EtcdError(errors.PEER_URL_EXIST)


def _voters(table: Table) -> list[Host]:
    return [host for host in table.members if not host.learner]


def _connected(voters: Sequence[Host], facts: Facts) -> int:
    return sum(
        facts.connected_s(i) >= HEALTHY_S and facts.votes(i) and facts.alive(i)
        for i in (host.member_id for host in voters)
    )


def _started(hosts: Sequence[Host], facts: Facts) -> int:
    return sum(host.member_id in facts.started and facts.votes(host.member_id) for host in hosts)


def _enough_to_add(voters: Sequence[Host], facts: Facts) -> bool:
    running = _started(voters, facts)
    if running == 1 and len(voters) == 1:  # the first one that is added to a lone member
        return True
    return running >= (len(voters) + 1) // 2 + 1
