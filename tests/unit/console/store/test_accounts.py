"""Permissions of version 2, as the console names them."""

from __future__ import annotations

import pytest

from tools.console.store.access.model import Permission
from tools.console.store.v2.accounts import keys_of, pattern_of


@pytest.mark.parametrize(("pattern", "scope"), [
    ("*", "all"), ("/*", "all"), ("/a", "key"), ("/a*", "prefix"), ("/a/*", "prefix"), ("a*b", "key"),
])  # fmt: skip
def test_a_pattern_is_taken_away_as_the_role_has_it(pattern: str, scope: str) -> None:
    keys = keys_of(pattern)
    assert (pattern_of(keys), Permission("read", keys).scope) == (pattern, scope)
