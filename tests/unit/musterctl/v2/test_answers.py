"""Answers that ``musterctl --api 2`` cannot read."""

from __future__ import annotations

import pytest

from tools.musterctl.v2.client import Refused, parsed


@pytest.mark.parametrize(("body", "said"), [
    (b"404 page not found\n", "invalid character 'p' after top-level value"),
    (b'{"a":1} x', "invalid character 'x' after top-level value"),
    (b'{"a" 1}', "invalid character '1' after object key"),
    (b"<html>", "invalid character '<' looking for beginning of value"),
    (b"\xc3\xa9", "invalid character 'Ã' looking for beginning of value"),
    (b'{"a":', "unexpected end of JSON input"),
    (b" ", "unexpected end of JSON input"),
    (b"", "unexpected end of JSON input"),
])  # fmt: skip
def test_what_is_no_json_is_refused_in_words_of_go(body: bytes, said: str) -> None:
    with pytest.raises(Refused) as refused:
        parsed(body)
    assert str(refused.value) == said


def test_an_answer_has_any_length() -> None:
    users = ["x" * 100] * 1000
    assert parsed(b'{"users":["' + '","'.join(users).encode() + b'"]}') == {"users": users}
