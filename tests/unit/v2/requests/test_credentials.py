"""Who a request says that he is, and what bodies of /v2/auth say (proxy.v2.users)."""

from __future__ import annotations

import base64
import contextlib
import json
from collections.abc import Callable
from random import Random
from typing import Any

import pytest

from cluster import errors
from cluster.errors import EtcdError
from cluster.features.v2.requests import Who
from cluster.features.v2.users import Permissions, fingerprint
from proxy.http.requests import HttpRequest
from proxy.v2.members import peer_urls
from proxy.v2.users.bodies import BadBody, role_of, user_of
from proxy.v2.users.credentials import Credentials, basic


class Passwords:
    """Every password is right that the hash ends with."""

    def __init__(self) -> None:
        self.compared: list[bytes] = []

    def check(
        self, asks: HttpRequest, password: bytes, known: bytes, then: Callable[[bool], None]
    ) -> None:
        self.compared.append(password)
        then(known.endswith(password))


def request(header: str | None = None, name: str | None = None) -> HttpRequest:
    made = HttpRequest("GET", "/v2/keys/a", "", {} if header is None else {"authorization": header}, b"", "")
    made.peer_name = name
    return made


def shown(name: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()


def test_names_are_those_of_go() -> None:
    plain = base64.b64encode(b"a:b:c").decode()
    assert basic(f"Basic {plain}") == basic(f"bASIC {plain}") == (b"a", b"b:c")
    assert basic(shown("", "")) == (b"", b"")
    assert basic("Basic YTpjZP==") == (b"a", b"cd")
    for header in (
        "",
        "Basic",
        "Basic ",
        f"Bearer {plain}",
        f"Basic  {plain}",
        f"Basic {plain}x",
        "Basic eA==",
        "Basic \xff",
        "Basic YTpj=",
        "Basic YTpj====",
    ):
        assert basic(header) is None
    assert basic(shown("a/b", "x")) is None
    assert basic(shown("a" * 5000, "x")) is None


def test_who_says_nothing_is_his_certificates_name_or_nobody_known() -> None:
    credentials: Any = Credentials(Passwords())  # type: ignore[arg-type]
    assert credentials.of(request()) is None
    assert credentials.of(request("")) is None
    assert credentials.of(request(name="cn")) == Who(b"cn", 0, True)
    assert credentials.of(request("Bearer x", "cn")) == Who(b"")


def test_a_password_is_compared_once_for_a_hash() -> None:
    passwords = Passwords()
    credentials: Any = Credentials(passwords)  # type: ignore[arg-type]
    asked = request(shown("a", "pw"))
    assert credentials.of(asked) == Who(b"a", 0)
    told: list[Who] = []
    refused: list[EtcdError] = []
    credentials.prove(asked, b"hash-pw", 0, told.append, refused.append)
    assert told == [Who(b"a", fingerprint(b"hash-pw"))]
    assert credentials.of(asked) == told[0]
    for other in (shown("a", "pw2"), shown("b", "pw"), shown("ap", "w")):
        assert credentials.of(request(other)).proof == 0
    credentials.prove(request(shown("a", "x")), b"hash-pw", 0, told.append, refused.append)
    assert len(told) == 1
    assert [error.kind for error in refused] == [errors.PERMISSION_DENIED]
    assert passwords.compared == [b"pw", b"x"]


def test_a_password_that_changes_again_and_again_is_compared_three_times() -> None:
    passwords = Passwords()
    credentials: Any = Credentials(passwords)  # type: ignore[arg-type]
    told: list[Who] = []
    refused: list[EtcdError] = []
    for before in range(5):
        credentials.prove(request(shown("a", "pw")), b"hash-pw", before, told.append, refused.append)
    assert told == [Who(b"a", fingerprint(b"hash-pw"))] * 3
    assert [error.kind for error in refused] == [errors.PERMISSION_DENIED] * 2
    assert passwords.compared == [b"pw"] * 3


def test_bodies_are_read_as_by_go() -> None:
    body = b'{"USER":"a","password":"p","roles":null,"Grant":["x",null],"revoke":[]} {'
    assert user_of(body) == ("a", "p", None, ("x", ""), ())
    assert user_of(b"null") == ("", "", None, None, None)
    assert user_of(b'{"user":"\\ud800\xff"}')[0] == "\ufffd\ufffd"
    name, wish = role_of(b'{"role":"r","permissions":{"kv":{"read":["/a"]}},"grant":{},"revoke":null}')
    assert (name, wish.permissions, wish.grant, wish.revoke) == (
        "r",
        Permissions(("/a",)),
        Permissions(),
        None,
    )


def test_a_repeated_object_is_read_into_the_same_one_as_by_go() -> None:
    body = b"""{"role":"q","role":"r","permissions":{"KV":{"read":["/a"]},"kv":{"write":["/b"]}},
               "grant":{"kv":{"read":["/a"]}},"Gr\\u0041nt":{"kv":{"read":["/c"],"write":["/d"]}},
               "Permi\\u017f\\u017fions":{"kv":{"read":["/e"]}}}"""
    name, wish = role_of(body)
    assert (name, wish.permissions, wish.grant) == (
        "r", Permissions(("/e",), ("/b",)), Permissions(("/c",), ("/d",)))
    name, wish = role_of(b'''{"role":"r","role":null,
        "permissions":{"kv":{"read":["/a"],"write":["/b"],"write":null},"kv":null},"permissions":null,
        "grant":{"kv":{"read":["/a"]}},"grant":null,
        "revoke":{"kv":{"read":["/a"]}},"revoke":null,"revoke":{"kv":{"write":["/c"]}}}''')
    assert (name, wish.permissions, wish.grant, wish.revoke) == (
        "r", Permissions(("/a",)), None, Permissions(None, ("/c",))), "null leaves a struct and a string"
    assert user_of(b'{"user":"a","password":"p","user":null,"password":null,"roles":["r"],"roles":null}') == (
        "a", "p", None, None, None)
    assert peer_urls(b'{"peerUrl\\u017f":["http://a:1"]}') == ["http://a:1"]


@pytest.mark.parametrize(("lists", "roles"), [
    ('["a","b"] [null]', "a"), ('["a","b"] ["c"] [null,null]', "cb"), ('["a"] [null,null]', ("a", "")),
    ('["a"] ["b","c","d"] [null] [null,null,null,null]', ("b", "c", "d", "")),
    ('["a","b"] [] [null]', ("",)), ('["a","b"] null [null]', ("",)), ('["a","b"] ["c",null]', "cb"),
])  # fmt: skip
def test_null_in_a_repeated_list_leaves_what_stands_there(lists: str, roles: tuple[str, ...]) -> None:
    body = ",".join(f'"roles":{each}' for each in lists.split())
    assert user_of(f'{{"user":"u",{body}}}'.encode())[2] == tuple(roles)
    body = ",".join(f'"permissions":{{"kv":{{"read":{each}}}}}' for each in lists.split())
    assert role_of(f'{{"role":"r",{body}}}'.encode())[1].permissions == Permissions(tuple(roles))


def test_a_list_of_what_has_gone_leaves_nothing() -> None:
    grants = ['{"kv":{"read":["a"]}}', 'null', '{"kv":{"read":[null]}}']
    body = ",".join(f'"grant":{each}' for each in grants)
    _, wish = role_of(f'{{"role":"r",{body}}}'.encode())
    assert wish.grant == Permissions(("",))


@pytest.mark.parametrize("body", [
    b'{"role":5,"role":"r","user":5,"user":"r"}', b'{"grant":7,"grant":null}',
    b'{"permissions":{"kv":3},"permissions":{"kv":{}},"roles":{},"roles":[]}',
    b'{"permissions":[],"permissions":{},"revoke":{},"revoke":null}',
])  # fmt: skip
def test_of_what_repeats_each_value_has_to_be_of_its_kind(body: bytes) -> None:
    for read in (user_of, role_of):
        with pytest.raises(BadBody):
            read(body)


@pytest.mark.parametrize("seed", range(5))
def test_no_body_ends_more_than_its_request(seed: int) -> None:
    chance = Random(seed)
    pieces = [b"{", b"}", b"[", b"]", b'"user"', b'"role"', b'"grant"', b'"kv"', b'"permissions"', b":", b",",
              b"1", b"null", b'"\\ud800"', b"\xff", b"true", b" ", b'"', b"1e999", b"-"]  # fmt: skip
    good = json.dumps({"user": "a", "role": "b", "grant": {"kv": {"read": ["x"]}}, "roles": ["r"]}).encode()
    for _ in range(2000):
        if chance.random() < 0.5:
            body = b"".join(chance.choices(pieces, k=chance.randint(0, 12)))
        else:
            at = chance.randrange(len(good))
            body = good[:at] + bytes(chance.choices(range(256), k=2)) + good[at + chance.randint(0, 3) :]
        for read in (user_of, role_of):
            with contextlib.suppress(BadBody):
                read(body)
    with pytest.raises(BadBody):
        user_of(b"[" * 200_000)
