"""What fronts keep of tokens."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from cluster.features.auth.principal import INVALID, Kind, Principal, split
from proxy.auth.jwt import WebTokens
from proxy.auth.shown import Principals, SimpleTokens

TTL_S = 300.0


class Clock:
    """Told by hand."""

    now_s = 1_000_000.0

    def __call__(self) -> float:
        return self.now_s


def simple() -> tuple[Clock, Principals]:
    clock = Clock()
    tokens = SimpleTokens(TTL_S, clock)
    tokens.secret = b"s" * 32
    return clock, Principals(tokens, clock)


def test_a_watch_stays_its_users_when_the_token_has_not_been_used_for_long() -> None:
    clock, known = simple()
    shown = known.of(known.tokens.give("u", 5).encode(), None)
    assert shown is not None
    assert split(shown.said())[0].user == "u"
    clock.now_s += TTL_S + 1
    assert shown.said() == INVALID.encode()
    assert shown.user() == "u"


def test_a_certificate_without_a_common_name_is_shown() -> None:
    _clock, known = simple()
    shown = known.of(None, "")
    assert shown is not None
    assert split(shown.said())[0] == Principal(Kind.CERTIFICATE)
    assert known.of(None, None) is None


def test_a_watch_stays_its_users_when_a_web_token_ends(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_bytes(b"k" * 64)
    clock = Clock()
    tokens = WebTokens({"sign-method": "HS256", "priv-key": str(key), "ttl": "60s"}, clock)
    known = Principals(tokens, clock)
    shown = known.of(tokens.give("u", 5).encode(), None)
    assert shown is not None
    assert split(shown.said())[0].kind == Kind.JWT
    clock.now_s += 61
    assert split(shown.said())[0].kind == Kind.INVALID
    assert shown.user() == "u"


def test_a_token_that_was_taken_unverified_tells_its_user_once_the_secret_is_known() -> None:
    clock, known = simple()
    text = known.tokens.give("u", 5)
    late = Principals(SimpleTokens(TTL_S, clock), clock)
    shown = late.of(text.encode(), None)
    assert shown is not None
    assert split(shown.said())[0].kind == Kind.UNVERIFIED
    late.heard(9, True, 5, b"s" * 32)
    assert shown.user() == "u"


def test_made_up_tokens_name_nobody_and_push_no_other_out() -> None:
    _clock, known = simple()
    text = known.tokens.give("u", 5).encode()
    shown = known.of(text, None)
    assert shown is not None
    shown.said()
    for number in range(10_001):
        made_up = known.of(b"made.up%d" % number, None)
        assert made_up is not None
        assert made_up.said() == INVALID.encode()
        assert made_up.user() == ""
    assert known.of(text, None) is shown


def test_a_token_in_use_is_valid_on_new_connections_whatever_was_given_since() -> None:
    """A probe that logged in every 10 s ended it within 28 hours."""
    clock, known = simple()
    text = known.tokens.give("u", 5).encode()
    shown = known.of(text, None)
    assert shown is not None
    for _ in range(10_001):
        assert split(shown.said())[0].user == "u"
        clock.now_s += 10
        probe = known.of(known.tokens.give("probe", 5).encode(), None)
        assert probe is not None
        probe.said()
    anew = known.of(text, None)
    assert anew is not None
    assert split(anew.said())[0].user == "u"
    assert len(known._shown) < 3 * TTL_S / 10, "those that have ended are dropped"


@pytest.mark.parametrize(("slides", "most"), [(True, 20), (False, 10)])
def test_a_bounded_number_of_valid_tokens_is_kept(
    slides: bool, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proxy.auth.shown._KNOWN", 10)
    monkeypatch.setattr("proxy.auth.shown._SLIDING", 20)
    _clock, known = simple()
    known.slides = slides
    for number in range(100):
        shown = known.of(known.tokens.give(f"u{number}", 5).encode(), None)
        assert shown is not None
        assert split(shown.said())[0].user == f"u{number}"
    assert len(known._shown) == most


def test_a_token_that_is_long_is_valid_and_not_kept() -> None:
    _clock, known = simple()
    name = "u" * 5_000
    text = known.tokens.give(name, 5).encode()
    shown = known.of(text, None)
    assert shown is not None
    assert split(shown.said())[0].user == name
    assert known.of(text, None) is not shown


def test_steps_of_the_wall_clock_end_no_token_that_is_used() -> None:
    """NTP, or a machine that slept."""
    wall, clock = Clock(), Clock()
    tokens = SimpleTokens(TTL_S, wall)
    tokens.secret = b"s" * 32
    known = Principals(tokens, clock)
    shown = known.of(tokens.give("u", 5).encode(), None)
    assert shown is not None
    for step_s in (0, 3600, -7200):
        wall.now_s += step_s
        clock.now_s += TTL_S - 1
        assert split(shown.said())[0].user == "u"
    clock.now_s += TTL_S
    assert shown.said() == INVALID.encode(), "whatever the wall clock says"


@pytest.mark.parametrize("looked_at", [True, False])
def test_a_login_gives_a_valid_token_after_the_wall_clock_was_set_back(looked_at: bool) -> None:
    """In a second in which the user had logged in before: the two have the same text."""
    wall, clock = Clock(), Clock()
    tokens = SimpleTokens(TTL_S, wall)
    tokens.secret = b"s" * 32
    known = Principals(tokens, clock)
    text = known.tokens.give("u", 5)
    old = known.of(text.encode(), None)
    assert old is not None
    assert split(old.said())[0].user == "u"
    clock.now_s += 3600
    if looked_at:
        assert old.said() == INVALID.encode()
    assert known.give("u", 5) == text
    for shown in (known.of(text.encode(), None), old):
        assert shown is not None
        assert split(shown.said())[0] == Principal(Kind.SIMPLE, "u", 5)


def test_simple_tokens_count_by_the_monotonic_clock_and_web_tokens_by_the_wall_clock() -> None:
    assert Principals(SimpleTokens(TTL_S)).now_s is time.monotonic
    assert Principals(None).now_s is time.time


def test_a_token_lasts_from_its_first_use_on() -> None:
    clock, known = simple()
    shown = known.of(known.tokens.give("u", 5).encode(), None)
    assert shown is not None
    for _ in range(3):
        clock.now_s += TTL_S - 1
        assert split(shown.said())[0].user == "u"


def test_an_old_token_is_refused_where_it_was_never_used() -> None:
    """By this host's wall clock. One from the future is as one that was just given."""
    clock, known = simple()
    old = known.tokens.give("u", 5)
    clock.now_s += TTL_S
    ahead = SimpleTokens(TTL_S, lambda: clock.now_s + 3600)
    ahead.secret = b"s" * 32
    text = ahead.give("u", 5)
    refused, taken = (known.of(one.encode(), None) for one in (old, text))
    assert refused is not None
    assert taken is not None
    assert refused.said() == INVALID.encode()
    assert split(taken.said())[0].user == "u"
    clock.now_s += TTL_S
    assert taken.said() == INVALID.encode()
    for number in range(100):
        shown = known.of(known.tokens.give(f"u{number}", 5).encode(), None)
        assert shown is not None
        shown.said()
    assert known.of(text.encode(), None) is taken, "it does not count anew"


def test_a_token_lasts_its_ttl_wherever_in_a_second_it_was_given() -> None:
    clock, known = simple()
    clock.now_s += 0.9
    shown = known.of(known.tokens.give("u", 5).encode(), None)
    clock.now_s += TTL_S - 0.1
    assert shown is not None
    assert split(shown.said())[0].user == "u"


@pytest.mark.parametrize("kind", ["simple", "jwt"])
def test_a_token_that_does_not_count_is_read_once_a_second(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """20,000 requests with a made-up web token, sent on in one turn, took a front 2 to 6 s."""
    clock, known = simple()
    if kind == "jwt":
        key = tmp_path / "key"
        key.write_bytes(b"k" * 64)
        known = Principals(WebTokens({"sign-method": "HS256", "priv-key": str(key)}, clock), clock)
    reads: list[str] = []
    read = known.tokens.read

    def counted(text: str, now_s: float) -> tuple[Principal, float]:
        reads.append(text)
        return read(text, now_s)

    monkeypatch.setattr(known.tokens, "read", counted)
    shown = known.of(b"made.up", None)
    assert shown is not None
    for seconds in (1, 2):
        assert {shown.said() for _ in range(100)} == {INVALID.encode()}
        assert len(reads) == seconds
        clock.now_s += 1


def test_a_web_token_counts_again_once_the_wall_clock_is_set_back(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_bytes(b"k" * 64)
    clock = Clock()
    tokens = WebTokens({"sign-method": "HS256", "priv-key": str(key), "ttl": "60s"}, clock)
    shown = Principals(tokens, clock).of(tokens.give("u", 5).encode(), None)
    assert shown is not None
    clock.now_s += 61
    assert shown.said() == INVALID.encode()
    clock.now_s -= 61
    assert split(shown.said())[0].kind == Kind.JWT


def test_a_token_has_one_time_whoever_uses_it() -> None:
    """Five connections that a client opened at once each had their own. The first one's was kept: once that
    was closed, and the TTL over, new connections were refused, though the others used the token."""
    clock, known = simple()
    text = known.tokens.give("u", 5).encode()
    first, second = known.of(text, None), known.of(text, None)
    assert first is not None
    assert second is not None
    assert split(first.said())[0].user == second.user() == "u"
    for _ in range(3):
        clock.now_s += TTL_S - 1
        assert split(second.said())[0].user == "u"
        anew = known.of(text, None)
        assert anew is not None
    assert anew is first
    assert split(anew.said())[0] == split(first.said())[0] == Principal(Kind.SIMPLE, "u", 5)
    clock.now_s += TTL_S - 1
    assert split(anew.said())[0].user == "u"
    clock.now_s += TTL_S - 1
    assert split(second.said())[0].user == "u", "the other one used it"
    clock.now_s += TTL_S
    assert first.said() == second.said() == INVALID.encode()
    assert second.user() == "u"
