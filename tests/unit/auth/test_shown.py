"""What fronts keep of tokens."""

from __future__ import annotations

from pathlib import Path

from cluster.features.auth.principal import INVALID, Kind, split
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


def test_a_token_that_is_long_is_valid_and_not_kept() -> None:
    _clock, known = simple()
    name = "u" * 5_000
    text = known.tokens.give(name, 5).encode()
    shown = known.of(text, None)
    assert shown is not None
    assert split(shown.said())[0].user == name
    assert known.of(text, None) is not shown
