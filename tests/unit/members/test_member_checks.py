"""Wishes for members are granted and refused by etcd's rules."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import pytest

from cluster import errors
from cluster.errors import ErrorKind, EtcdError
from cluster.members import checks
from cluster.members.checks import Facts
from cluster.members.table import Host, Table
from cluster.settings import Peer


def url(member: int) -> str:
    return f"http://127.0.0.1:{2000 + member}"


def cluster(voters: int, learners: int = 0) -> Table:
    """Hosts 1, 2, ...: voters first."""
    rows = [Host(voters + i + 1, "", (url(voters + i + 1),), learner=True).encode() for i in range(learners)]
    return Table([Peer(i, f"h{i}", "127.0.0.1", 2000 + i, (url(i),)) for i in range(1, voters + 1)], rows)


def facts(
    *started: int,
    down: tuple[int, ...] = (),
    strict: bool = True,
    match: float = 1.0,
    learners: int = 1,
    catch_up: tuple[int, ...] = (),
    silent: tuple[int, ...] = (),
) -> Facts:
    """``catch_up``: learners in some group; ``silent``: in some group, their links to node 0 stand."""
    return Facts(
        started,
        lambda m: math.inf if m == 1 else 0.0 if m in down else 60.0,
        lambda m: m not in catch_up,
        lambda m: m not in down and m not in silent,
        lambda m: match,
        strict,
        learners,
    )


def refusal(what: Callable[[], object]) -> ErrorKind:
    with pytest.raises(EtcdError) as found:
        what()
    return found.value.kind


def test_a_lone_member_takes_a_second_one() -> None:
    assert checks.add(cluster(1), facts(1), [url(2)], False, 1).peer_urls == (url(2),)


def test_a_host_that_takes_no_peers_adds_none() -> None:
    known = replace(facts(1, strict=False), alone=True)
    for learner in (False, True):
        assert refusal(lambda learner=learner: checks.add(cluster(1), known, [url(2)], learner, 1)) is (
            errors.TAKES_NO_PEER)


def test_one_of_several_hosts_goes_not_over_to_https_alone() -> None:
    """It would reach no other, which costs the majority as the next ones follow. etcd's do reach it."""
    https = [url(1).replace("http:", "HTTPS:"), url(1)]
    for voters in (1, 3):
        moved = checks.update(cluster(voters), 1, https)
        assert checks.alike(cluster(voters), moved, secure=True) == moved
        if voters == 1:
            assert checks.alike(cluster(1), moved, secure=False) == moved
        else:
            assert refusal(lambda moved=moved: checks.alike(cluster(3), moved, secure=False)) is (
                errors.PEERS_OVER_HTTP)
    plain = checks.update(cluster(3), 2, [url(9)])
    assert checks.alike(cluster(3), plain, secure=True) == checks.alike(cluster(3), plain, False) == plain


def test_voters_are_added_while_enough_have_started() -> None:
    assert (
        refusal(lambda: checks.add(cluster(2), facts(1), [url(3)], False, 1))
        is errors.MEMBER_NOT_ENOUGH_STARTED
    )
    assert checks.add(cluster(2), facts(1, down=(2,), strict=False), [url(3)], False, 1)
    assert checks.add(cluster(2), facts(1), [url(3)], True, 1).learner  # one that does not vote is no danger


@pytest.mark.parametrize("learner", [False, True], ids=["voter", "learner"])
@pytest.mark.parametrize(
    ("voters", "down", "added"), [(1, 0, True), (3, 1, False), (4, 1, True), (5, 1, True), (5, 2, False)]
)
def test_somebody_is_added_if_those_that_are_connected_are_a_majority_with_him(
    voters: int, down: int, added: bool, learner: bool
) -> None:
    """The cases of etcd 3.6.14's own test of it."""
    known = facts(*range(1, voters + 1), down=tuple(range(voters - down + 1, voters + 1)))
    wish = partial(checks.add, cluster(voters), known, [url(9)], learner, 1)
    if added:
        assert wish().learner == learner
    else:
        assert refusal(wish) is errors.UNHEALTHY


def test_a_voter_counts_as_connected_after_five_seconds() -> None:
    def wish(connected_s: float) -> Host:
        known = Facts((1, 2), lambda m: math.inf if m == 1 else connected_s, bool, bool)
        return checks.add(cluster(2), known, [url(9)], False, 1)

    assert refusal(partial(wish, 4.999)) is errors.UNHEALTHY
    assert wish(5.0)


def test_a_peer_url_belongs_to_one_member() -> None:
    assert refusal(lambda: checks.add(cluster(2), facts(1, 2), [url(2)], False, 1)) is errors.PEER_URL_EXIST
    assert refusal(lambda: checks.update(cluster(2), 1, [url(2)])) is errors.PEER_URL_EXIST
    assert checks.update(cluster(2), 1, [url(1)]).peer_urls == (url(1),)
    assert refusal(lambda: checks.update(cluster(2), 1, ["bad"])) is errors.MEMBER_BAD_URLS
    assert refusal(lambda: checks.update(cluster(2), 9, ["bad"])) is errors.MEMBER_NOT_FOUND


@pytest.mark.parametrize(
    "urls",
    [[], ["foo"], ["http://h"], ["ftp://h:1"], ["http://h:1/path"], ["http://h:1", "x"],
     *([f"http://{host}:1"] for host in (
         "a\0b", "a\tb", "a\x7fb", "a b", " ", "a\\b", "a^b", "a{b}", "a|b", "a`b", "a%41", "a%zz", "a#b",
         "[fe80::1%eth9]", "[::1", "::1")),
     ["unix://a b:1"], ["unix://../a:1"], ["unix://a"], ["http://<@a:1"], ["http://u:p%@a:1"]],
)  # fmt: skip
def test_peer_urls_are_checked(urls: list[str]) -> None:
    """As an etcd 3.5 answers each of them."""
    assert refusal(lambda: checks.add(cluster(1), facts(1), urls, False, 1)) is errors.MEMBER_BAD_URLS
    assert refusal(lambda: checks.update(cluster(1), 1, urls)) is errors.MEMBER_BAD_URLS


@pytest.mark.parametrize(
    "url",
    ["http://a..b:1", "http://äö.☃:1", "http://[::1%25zz]:1", "http://*:1", "http://a;tcp:1", "http://u:p@b:1",
     "http://a%c3%a4:1", 'http://a<b>"c:1', "http://:1", "http://a!$&'()*+,;=~_-.b:1", "unixs://a:1",
     " http://a:1 ", "http://a:1?x", f"http://{'x' * 300}:1"],
)  # fmt: skip
def test_odd_peer_urls_are_taken_that_an_etcd_takes(url: str) -> None:
    assert checks.add(cluster(1), facts(1), [url], False, 1).peer_urls == (url.strip(),)


@pytest.mark.parametrize("urls", [[f"http://a{i}:1" for i in range(101)], [f"http://{'x' * 70_000}:1"]])
def test_a_member_has_no_more_peer_urls_than_are_read_in_a_moment(urls: list[str]) -> None:
    """120,000, which fit a request, held the leader and the front for a second."""
    assert refusal(lambda: checks.add(cluster(1), facts(1), urls, False, 1)) is errors.MEMBER_BAD_URLS
    assert refusal(lambda: checks.update(cluster(1), 1, urls)) is errors.MEMBER_BAD_URLS
    most = urls[:100] if len(urls) > 1 else [urls[0].replace("x" * 10_000, "x")]
    assert len(checks.update(cluster(1), 1, most).peer_urls) == len(most)


def test_an_update_keeps_the_order_of_peer_urls_and_an_addition_sorts_them() -> None:
    """As in etcd, where lists of members show it."""
    two, one = url(2), url(1)
    assert checks.add(cluster(1), facts(1), [url(9), two], False, 1).peer_urls == (two, url(9))
    host = checks.update(cluster(1), 1, [two, one])
    assert host.peer_urls == (two, one)
    table = cluster(1)
    table.take([host.encode()])
    assert list(table.listed({})[0].peerURLs) == [two, one]


@pytest.mark.parametrize("spaces", [" {} ", "{}\n", "\t{}"])
def test_spaces_around_a_peer_url_are_not_of_it(spaces: str) -> None:
    own = spaces.format(url(2))
    assert refusal(lambda: checks.add(cluster(2), facts(1, 2), [own], False, 1)) is errors.PEER_URL_EXIST
    assert checks.update(cluster(2), 2, [own]).peer_urls == (url(2),)


def test_there_are_few_learners() -> None:
    assert refusal(lambda: checks.add(cluster(1, 1), facts(1), [url(9)], True, 1)) is errors.TOO_MANY_LEARNERS
    assert checks.add(cluster(1, 1), facts(1, learners=2), [url(9)], True, 1)


def test_a_removal_leaves_enough_that_have_started() -> None:
    assert checks.remove(cluster(3), facts(1, 2, 3), 3).removed
    assert refusal(lambda: checks.remove(cluster(1), facts(1), 1)) is errors.MEMBER_NOT_ENOUGH_STARTED
    assert refusal(lambda: checks.remove(cluster(3), facts(1, 3), 3)) is errors.MEMBER_NOT_ENOUGH_STARTED
    assert checks.remove(cluster(2, 1), facts(1), 3).removed  # a learner may always go


def test_the_last_one_that_has_started_stays_whether_checks_are_strict_or_not() -> None:
    for members in (cluster(1), cluster(3)):
        wish = partial(checks.remove, members, facts(1, strict=False), 1)
        assert refusal(wish) is errors.MEMBER_NOT_ENOUGH_STARTED
    assert checks.remove(cluster(3), facts(1, strict=False), 2).removed


def test_one_that_is_down_may_go_and_one_that_is_needed_may_not() -> None:
    assert checks.remove(cluster(3), facts(1, 2, 3, down=(3,)), 3).removed
    assert refusal(lambda: checks.remove(cluster(3), facts(1, 2, 3, down=(3,)), 2)) is errors.UNHEALTHY


def test_one_that_catches_up_is_nobody_to_count_on() -> None:
    """Hosts 4 and 5 are voters of the table, and learners in a group. 3 is down: the group is 1 and 2."""
    known = facts(1, 2, 3, 4, 5, down=(3,), catch_up=(4, 5))
    assert refusal(lambda: checks.remove(cluster(5), known, 2)) is errors.MEMBER_NOT_ENOUGH_STARTED
    assert refusal(lambda: checks.add(cluster(5), known, [url(9)], False, 1)) in (
        errors.MEMBER_NOT_ENOUGH_STARTED, errors.UNHEALTHY)
    caught_up = facts(1, 2, 3, 4, 5, down=(3,))
    assert checks.remove(cluster(5), caught_up, 2).removed
    # it may go itself, up or not
    assert checks.remove(cluster(4), facts(1, 2, 3, 4, catch_up=(4,)), 4).removed
    assert checks.remove(cluster(2), facts(1, 2, catch_up=(2,)), 2).removed


@pytest.mark.parametrize("strict", [True, False], ids=["strict", "lax"])
def test_the_only_one_that_votes_stays_whether_checks_are_strict_or_not(strict: bool) -> None:
    wish = partial(checks.remove, cluster(2), facts(1, 2, catch_up=(2,), strict=strict), 1)
    assert refusal(wish) is errors.MEMBER_NOT_ENOUGH_STARTED
    assert checks.remove(cluster(2), facts(1, 2, strict=strict), 1).removed


def test_one_that_a_group_does_not_hear_is_nobody_to_count_on() -> None:
    known = facts(1, 2, 3, silent=(3,))
    assert refusal(lambda: checks.remove(cluster(3), known, 2)) is errors.UNHEALTHY
    assert refusal(lambda: checks.add(cluster(3), known, [url(9)], True, 1)) is errors.UNHEALTHY
    assert checks.remove(cluster(3), facts(1, 2, 3, down=(3,)), 3).removed


def test_nobody_is_changed_who_is_not_there() -> None:
    gone = cluster(3)
    gone.take([Host(3, "", (url(3),), removed=True).encode()])
    for table in (cluster(2), gone):
        members, known = table, facts(1, 2)
        assert refusal(partial(checks.remove, members, known, 3)) is errors.MEMBER_NOT_FOUND
        assert refusal(partial(checks.update, members, 3, [url(7)])) is errors.MEMBER_NOT_FOUND
        assert refusal(partial(checks.update, members, 3, ["foo"])) is errors.MEMBER_NOT_FOUND
        assert refusal(partial(checks.promote, members, known, 3)) is errors.MEMBER_NOT_FOUND


def test_a_learner_is_promoted_once_it_has_caught_up() -> None:
    assert refusal(lambda: checks.promote(cluster(1, 1), facts(1, match=0.89), 2)) is errors.LEARNER_NOT_READY
    assert not checks.promote(cluster(1, 1), facts(1, match=0.9), 2).learner
    assert refusal(lambda: checks.promote(cluster(2), facts(1, 2), 2)) is errors.MEMBER_NOT_LEARNER
    assert (
        refusal(lambda: checks.promote(cluster(3, 1), facts(1, match=1.0), 4))
        is errors.MEMBER_NOT_ENOUGH_STARTED
    )
