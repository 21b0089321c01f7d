"""Simple tokens: what their signature holds."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cluster.features.auth.tokens import Token, sign, verify

_SECRET = b"s" * 32


@given(st.text(max_size=40), st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1))
def test_a_token_says_what_it_was_made_of(user: str, revision: int, given_s: int) -> None:
    token = Token(user, revision, given_s)
    assert verify(_SECRET, sign(_SECRET, token)) == token


def test_a_token_of_another_cluster_is_none() -> None:
    assert verify(b"t" * 32, sign(_SECRET, Token("root", 1, 2))) is None


def test_without_a_secret_nothing_is_a_token() -> None:
    assert verify(b"", sign(b"", Token("root", 1, 2))) is None


def test_a_token_that_was_changed_is_none() -> None:
    text = sign(_SECRET, Token("root", 1, 2))
    for at in range(len(text)):
        for other in "Ab.":
            changed = text[:at] + other + text[at + 1 :]
            assert verify(_SECRET, changed) is None or changed == text
    for spelt in (text + "!", text + "=", "!" * 60_000 + text, text.replace(".", "!.")):
        assert verify(_SECRET, spelt) is None, "each spelling would be kept as another token"


@given(st.text(max_size=60))
def test_no_text_is_a_fault(text: str) -> None:
    assert verify(_SECRET, text) is None
