"""What a request for /v2/keys asks for, and what is wrong with it (proxy.v2.request, proxy.v2.form)."""

from __future__ import annotations

import posixpath
import re
from random import Random
from time import process_time
from urllib.parse import unquote_to_bytes

import pytest

from cluster.features.v2.refusals import V2Error
from proxy.v2.form import BadForm, form_of, media_type, unescaped
from proxy.v2.request import KeyRequest, parse_key_request
from tests.unit.v2.requests.plain_host import FORM as FORM_FIELDS
from tests.unit.v2.requests.plain_host import HOST, Host

FORM = "application/x-www-form-urlencoded"


def parsed(method: str, query: str = "", body: str = "", kind: str = FORM) -> KeyRequest:
    return parse_key_request(method, "/v2/keys/a", query, body.encode(), kind, 1_000)


@pytest.mark.parametrize(
    ("method", "query", "body", "code", "cause"),
    [
        ("GET", "x=%zz", "", 210, 'invalid URL escape "%zz"'),
        ("GET", "x=%z", "", 210, 'invalid URL escape "%z"'),
        ("GET", "x=+%+1", "", 210, 'invalid URL escape "%+1"'),
        ("PUT", "recursive=x", "v=%", 210, 'invalid URL escape "%"'),
        ("GET", "prevIndex=x&waitIndex=x&recursive=x", "", 203, 'invalid value for "prevIndex"'),
        ("GET", "waitIndex=&recursive=x", "", 203, 'invalid value for "waitIndex"'),
        ("GET", "waitIndex=18446744073709551616", "", 203, 'invalid value for "waitIndex"'),
        ("GET", "waitIndex=%2B1", "", 203, 'invalid value for "waitIndex"'),
        ("GET", "recursive=yes&sorted=x", "", 209, 'invalid value for "recursive"'),
        ("GET", "sorted=&wait=x", "", 209, 'invalid value for "sorted"'),
        ("GET", "wait=2&dir=x", "", 209, 'invalid value for "wait"'),
        ("GET", "dir=tRUE&quorum=x", "", 209, 'invalid value for "dir"'),
        ("GET", "quorum=x&stream=x", "", 209, 'invalid value for "quorum"'),
        ("GET", "stream=x", "", 209, 'invalid value for "stream"'),
        ("PUT", "wait=true&prevValue=", "", 209, '"wait" can only be used with GET requests'),
        ("HEAD", "wait=true", "", 209, '"wait" can only be used with GET requests'),
        ("PUT", "prevValue=&noValueOnSuccess=x", "", 201, '"prevValue" cannot be empty'),
        ("PUT", "noValueOnSuccess=x", "ttl=x", 209, 'invalid value for "noValueOnSuccess"'),
        ("PUT", "prevExist=x", "ttl=-1", 202, 'invalid value for "ttl"'),
        ("PUT", "refresh=x", "prevExist=", 209, "invalid value for prevExist"),
        ("PUT", "", "refresh=x", 209, "invalid value for refresh"),
        ("PUT", "", "refresh=true&value=x", 211, "A value was provided on a refresh"),
        ("PUT", "", "refresh=true&value=", 212, "No TTL value set"),
    ],
)
def test_a_wrong_parameter_is_refused_in_the_order_of_etcd(
    method: str, query: str, body: str, code: int, cause: str
) -> None:
    with pytest.raises(V2Error) as refused:
        parsed(method, query, body)
    assert (refused.value.code, refused.value.cause.decode()) == (code, cause)


def test_the_body_wins_over_the_query_and_the_first_value_over_others() -> None:
    found = parsed("PUT", "value=query&ttl=1&value=other", "value=body&value=again")
    assert (found.value, found.expiration_ns) == ("body", 1_000_001_000)


@pytest.mark.parametrize(("query", "waits"), [("wait=true&quorum=true", False), ("wait=1&quorum=0", True)])
def test_a_wait_through_the_log_is_a_read(query: str, waits: bool) -> None:
    assert parsed("GET", query).wait is waits


def test_only_post_and_put_have_a_body_and_only_a_form() -> None:
    assert parsed("DELETE", "", "prevValue=x").prev_value == ""
    assert parsed("PUT", "", "value=x", "application/json").value == ""
    assert parsed("PUT", "", "value=x", "multipart/form-data; boundary=a").value == ""
    assert parsed("PUT", "", "value=x", "").value == ""
    assert parsed("POST", "", "value=x", "Application/X-WWW-form-urlencoded; charset=utf-8").value == "x"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x y", "mime: expected slash after first token"),
        (";", "mime: no media type"),
        ("a/", "mime: expected token after slash"),
        ("a/b c", "mime: unexpected content after media subtype"),
        ("a/b; c", "mime: invalid media parameter"),
        ("a/b; c=d; C=e", "mime: duplicate parameter name"),
    ],
)
def test_a_content_type_that_is_none_is_refused_in_words_of_go(text: str, said: str) -> None:
    with pytest.raises(BadForm) as refused:
        media_type(text)
    assert refused.value.args[0] == said


def test_the_first_mistake_counts() -> None:
    with pytest.raises(BadForm, match="mime: invalid media parameter"):
        form_of("PUT", "", b"value=%u2", FORM + "; x")


def test_a_content_type_of_many_parameters_takes_no_square_of_their_number() -> None:
    def took(parameters: int) -> float:
        text = "a/b" + "".join(f"; a{number} = b" for number in range(parameters)) + " ; "
        began = process_time()
        assert media_type(text) == "a/b"
        return process_time() - began

    took(3_000)
    assert min(took(60_000) for _ in range(3)) < 60 * min(took(3_000) for _ in range(3))


def test_a_form_is_read_up_to_ten_megabytes() -> None:
    with pytest.raises(BadForm, match="http: POST too large"):
        form_of("PUT", "", b"value=" + b"x" * (10 << 20), FORM)
    assert len(form_of("PUT", "", b"value=" + b"x" * ((10 << 20) - 6), FORM)["value"]) == (10 << 20) - 6


def test_bytes_that_are_no_text_survive() -> None:
    assert parsed("PUT", "", "value=%ff%00+%2B").value.encode("utf-8", "surrogateescape") == b"\xff\x00 +"


@pytest.mark.parametrize(
    ("ttl", "expiration"), [("0", 1_000), ("5", 5_000_001_000), ("18446744073709551615", -999_999_000)]
)
def test_a_ttl_becomes_a_time_in_the_arithmetic_of_go(ttl: str, expiration: int) -> None:
    assert parsed("PUT", f"ttl={ttl}").expiration_ns == expiration


def test_an_empty_ttl_is_none() -> None:
    assert parsed("PUT", "ttl=").expiration_ns == 0


def test_nul_ends_no_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """It does with ``normpath`` before Python 3.11.5: another directory was deleted."""
    normpath = posixpath.normpath
    monkeypatch.setattr(posixpath, "normpath", lambda path: normpath(path.partition("\0")[0]))
    answer = Host().send(b"DELETE /v2/keys/dir%00x/?recursive=true HTTP/1.1\r\n" + HOST + b"\r\n")
    assert answer.startswith(b"HTTP/1.1 404 ")
    assert b'"cause":"/dir\\u0000x"' in answer


def test_a_key_that_a_post_makes_has_a_path_that_requests_may_name() -> None:
    """Its name adds 21 characters to the path. None could read a longer key, refresh it or delete it."""
    host = Host()
    line, most, value = b"%b /v2/keys%b HTTP/1.1\r\n", 4096, b"Content-Length: 7\r\n\r\nvalue=1"
    for length in (most - 20, most):
        answer = host.send(line % (b"POST", b"/" + b"q" * (length - 1)) + FORM_FIELDS + value)
        assert answer.startswith(b"HTTP/1.1 500 ")
        assert b"etcdserver: request is too large" in answer
    answer = host.send(line % (b"POST", b"/" + b"q" * (most - 22)) + FORM_FIELDS + value)
    assert answer.startswith(b"HTTP/1.1 201 ")
    made = re.search(rb'"key":"([^"]+)"', answer)
    assert made is not None
    assert len(made[1]) == most
    for method in (b"GET", b"DELETE"):
        assert host.send(line % (method, made[1]) + HOST + b"\r\n").startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("seed", range(3))
def test_escapes_become_the_octets_that_they_name(seed: int) -> None:
    chance = Random(seed)
    pieces = [b"%0a", b"%0D", b"\r\n", b"\n", b"\r", b" ", b"\t", b"=", b"==", b"=3D", b"_", b"a", b"%25",
              b"%3d", b"%3D%3d", b"\xff", b"%ff", b" \r\n", b"=\n", b"\0", b"%00", b" \n",
              b"x" * 80]  # fmt: skip
    for _ in range(5000):
        data = b"".join(chance.choices(pieces, k=chance.randint(0, 8)))
        assert unescaped(data) == unquote_to_bytes(data)


def test_a_broken_escape_is_seen_wherever_it_is() -> None:
    chance = Random(7)
    pieces = [b"%", b"=", b"4", b"1", b"F", b"g", b"\n", b"\r", b"_", b" ", b"%41", b"%fF", b"=\n", b"\xff"]
    broken = 0
    for _ in range(5000):
        data = b"".join(chance.choices(pieces, k=chance.randint(0, 8)))
        wrong = re.search(rb"%(?![0-9A-Fa-f]{2})", data)
        broken += wrong is not None
        assert unescaped(data) == (None if wrong else unquote_to_bytes(data)), data
    assert 500 < broken < 4500


def test_a_long_escaped_value_is_read_by_no_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("urllib.parse._hextobyte", {})  # what the slow way looks an octet up in
    assert form_of("PUT", "", b"value=" + b"%fF" * 1_000_000, FORM)["value"] == "\udcff" * 1_000_000


def test_a_form_of_very_many_parameters_is_refused_at_once() -> None:
    with pytest.raises(BadForm, match="too many parameters"):
        form_of("PUT", "", b"a&" * 10_001, FORM)
    assert form_of("PUT", "", b"a&" * 9_000 + b"value=x", FORM)["value"] == "x"


@pytest.mark.parametrize(("method", "lax"), [("GET", False), ("HEAD", True)])
def test_head_reads_at_the_host_itself(monkeypatch: pytest.MonkeyPatch, method: str, lax: bool) -> None:
    """As in etcd. Without a majority it was answered by an error, after seconds."""
    host, asked = Host(plain=False), list[object]()
    monkeypatch.setattr(host.net.router, "read", lambda *read: asked.append(read[4]))
    host.send(f"{method} /v2/keys/k?quorum=true HTTP/1.1\r\n".encode() + HOST + b"\r\n")
    assert asked == [lax]
