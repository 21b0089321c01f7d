"""URLs, read as by etcd 3.5."""

from __future__ import annotations

import pytest

from cluster.members.urls import mistake, trimmed

_FORM = 'URL address does not have the form "host:port": '
_SCHEME = "URL scheme must be http, https, unix, or unixs: "


@pytest.mark.parametrize(
    "url",
    ["http://a:1", "HTTPS://A:1", "unix://a:1", "unix:///a", "http://:1", "http://a:", "http://[::1]:1",
     "http://u:p@a:1",
     "http://[fe80::1%25en0]:1", "http://a:1?x", "http://a:1#f", "http://[]:1", 'http://<ä*"%c3%a4>:1'],
)  # fmt: skip
def test_what_etcd_takes_is_taken(url: str) -> None:
    assert mistake(url) == ""


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("", _SCHEME), ("a", f"{_SCHEME}a"), ("//a:1", f"{_SCHEME}//a:1"), ("ftp://a:1", f"{_SCHEME}ftp://a:1"),
        ("a:1", f"{_SCHEME}a:1"), ("http//a:1", f"{_SCHEME}http//a:1"), ("///a:1", f"{_SCHEME}///a:1"),
        (":1", 'parse ":1": missing protocol scheme'),
        ("1a:x", 'parse "1a:x": first path segment in URL cannot contain colon'),
        ("http://a", f"{_FORM}http://a"), ("http:a:1", f"{_FORM}http:a:1"),
        ("http://::1:1", f"{_FORM}http://::1:1"), ("http://a]:1", f"{_FORM}http://a]:1"),
        ("http://[::1]", f"{_FORM}http://[::1]"),
        ("http://a:1/", "URL must not contain a path: http://a:1/"),
        ("%zz", 'parse "%zz": invalid URL escape "%zz"'), ("a:%zz", f"{_SCHEME}a:%zz"),
        ("a/%z?%", 'parse "a/%z?%": invalid URL escape "%z"'),
        ("http://a:1/%2", 'parse "http://a:1/%2": invalid URL escape "%2"'),
        ("http://a:b", 'parse "http://a:b": invalid port ":b" after host'),
        ("http://a:\uff11", 'parse "http://a:\uff11": invalid port ":\uff11" after host'),
        ("http://[a:1", "parse \"http://[a:1\": missing ']' in host"),
        ("http://a|b:1#f", 'parse "http://a|b:1": invalid character "|" in host name'),
        ("http://%41:1", 'parse "http://%41:1": invalid URL escape "%41"'),
        ("http://[a%en0]:1", 'parse "http://[a%en0]:1": invalid URL escape "%en"'),
        ("http://a%:1", 'parse "http://a%:1": invalid URL escape "%:1"'),
        ("http://u:p%@a:1", 'parse "http://u:p%@a:1": invalid URL escape "%"'),
        ("http://a:1?%z#%z", 'parse "http://a:1?%z#%z": invalid URL escape "%z"'),
        ("http://a\x7f:1", 'parse "http://a\\u007f:1": net/url: invalid control character in URL'),
        ("http://<@a:1", 'parse "http://<@a:1": net/url: invalid userinfo'),
        ("http://a\0\n:1", 'parse "http://a\\x00\\n:1": net/url: invalid control character in URL'),
    ],
)  # fmt: skip
def test_what_etcd_refuses_is_refused_in_its_words(url: str, said: str) -> None:
    assert mistake(url) == said


@pytest.mark.parametrize(("url", "kept"), [
    (" http://a:1\n", "http://a:1"), ("\u00a0HTTP://A:1\u3000", "http://A:1"), ("http://a:1\x1c", "http://a:1\x1c"),
    ("a", "a")])
def test_what_is_kept_is_trimmed_as_by_go(url: str, kept: str) -> None:
    assert trimmed(url) == kept
