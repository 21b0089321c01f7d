"""Visitors who log in by a certificate, on muster and etcd; the console's own lets nobody in."""

from __future__ import annotations

import asyncio
import re
import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import muster_client as m
import pytest

from proxy.tls.certified import Certificate, read
from tests.authority import Authority, Pair
from tests.interop.console.certified import ALICE, MALLORY, Certified, certified
from tests.interop.console.chromium.browser import served
from tools.console.certificates import Certificates
from tools.console.sessions import Sessions, Target


@pytest.fixture(scope="module", params=["muster", "etcd"])
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Certified]:
    """Each in turn."""
    with certified(request.param, tmp_path_factory.mktemp("certified")) as found:
        yield found


def shown(pair: Pair) -> list[Certificate]:
    """What the console sees of a browser that shows it."""
    (first, *_) = pair.cert.read_text().partition("-----END CERTIFICATE-----")
    return [read(ssl.PEM_cert_to_DER_cert(f"{first}-----END CERTIFICATE-----"))]


def browser_with(store: Certified, base: str, pair: Pair | None) -> httpx.Client:
    """A client that shows a certificate."""
    context = ssl.create_default_context(cafile=str(store.authority.file))
    if pair is not None:
        context.load_cert_chain(pair.cert, pair.key)
    return httpx.Client(base_url=base, verify=context, timeout=60)


def test_who_shows_a_certificate_acts_as_its_user_alone(store: Certified) -> None:
    alice, mallory = (store.authority.issue(name, name) for name in (ALICE, MALLORY))
    with served([store.url], *store.flags, scheme="https") as base:
        with browser_with(store, base, None) as nobody:
            page = nobody.get("/keys/open/key").text
            assert "This cluster has users" in page, "the console's own certificate is root's"
            assert "by certificate" not in page
            assert nobody.get("/certificate").status_code == 403
        with browser_with(store, base, mallory) as other:
            page = other.get("/").text
            assert MALLORY in page
            assert "by certificate" not in page
            assert other.get("/certificate").status_code == 403
            assert not other.cookies
        with browser_with(store, base, alice) as own:
            assert f"Sign in as {ALICE} by certificate" in own.get("/").text
            led = own.get("/certificate", headers={"sec-fetch-site": "cross-site"})
            assert led.status_code == 403, "another site begins no session"
            answer = own.get("/certificate", params={"to": "/users"})
            assert (answer.status_code, answer.headers["location"]) == (303, "/users")
            assert f"Signed in as {ALICE}" in own.get("/users").text
            own.get("/leave")
            assert f"Sign in as {ALICE} by certificate" in own.get("/").text


def test_a_revoked_certificate_opens_no_page(store: Certified) -> None:
    alice, revoked = (store.authority.issue(name, name) for name in (ALICE, "revoked"))
    crl = store.authority.revoke(revoked.serial, name="browsers")
    flags = [one for one in store.flags if not one.startswith("--user-certs")]
    flags += ["--client-cert-auth", f"--client-crl-file={crl}"]
    with served([store.url], *flags, scheme="https") as base:
        with browser_with(store, base, alice) as one:
            assert one.get("/").status_code == 200
        with browser_with(store, base, revoked) as other, pytest.raises(httpx.TransportError):
            other.get("/")


def test_visitors_act_as_the_users_of_the_console_where_they_are_told_to(store: Certified) -> None:
    with (
        served([store.url], *store.flags, "--log-in=false", scheme="https") as base,
        browser_with(store, base, None) as nobody,
    ):
        assert "This cluster has users" not in nobody.get("/").text


def test_they_need_no_login_where_that_user_may_not_do_everything(store: Certified) -> None:
    alice = store.authority.issue("alice-of-the-console", ALICE, common_name=ALICE)
    flags = [one for one in store.flags if not one.startswith(("--cert=", "--key="))]
    flags += [f"--cert={alice.cert}", f"--key={alice.key}", "--log-in=false"]
    with (
        served([store.url], *flags, scheme="https") as base,
        browser_with(store, base, None) as nobody,
    ):
        assert "This cluster has users" not in nobody.get("/keys/open/key").text


def test_the_store_judges_the_user(store: Certified) -> None:
    alice, root = store.authority.issue(ALICE, ALICE), shown(store.root)
    revoked = store.authority.issue("revoked", ALICE, common_name=ALICE)
    crl = store.authority.revoke(revoked.serial)
    now_s = 0.0

    async def main() -> None:
        nonlocal now_s
        certificates = Certificates(str(store.users), str(crl))
        sessions = Sessions(Target((store.url,), store.tls, certificates=certificates), lambda: now_s)
        assert await sessions.needs_login()
        for refused in (root, shown(revoked), []):
            with pytest.raises(m.AuthenticationFailed):
                await sessions.log_in_by_certificate(refused)
        secret = await sessions.redeem(await sessions.log_in_by_certificate(shown(alice)))
        identity = sessions.of(secret)
        assert identity is not None
        assert identity.user == ALICE
        assert await identity.client.get("/open/key") is not None
        for forbidden in (identity.client.put("/open/key", ""), identity.client.get("/closed")):
            with pytest.raises(m.PermissionDenied):
                await forbidden
        assert not (await identity.rights()).everything
        second = await sessions.redeem(await sessions.log_in_by_certificate(shown(alice)))
        assert sessions.of(second) is identity, "browsers of one user share connections"
        now_s = shown(alice)[0].ends - time.time() + 60
        assert sessions.of(secret) is None, "the session ends with the certificate"
        await sessions.close()

    asyncio.run(main())


def test_a_user_that_the_store_does_not_know_is_refused(store: Certified) -> None:
    users = store.folder / "others"
    users.mkdir(exist_ok=True)
    stranger = store.authority.issue("stranger", "stranger")
    for path in (stranger.cert, stranger.key):
        (users / path.name).write_bytes(path.read_bytes())

    async def main() -> None:
        sessions = Sessions(Target((store.url,), store.tls, certificates=Certificates(str(users))))
        with pytest.raises(m.MusterError):
            await sessions.log_in_by_certificate(shown(stranger))
        await sessions.close()

    asyncio.run(main())


def test_pages_of_before_the_users_do_no_more_by_the_console_s_certificate(store: Certified) -> None:
    async def main() -> None:
        sessions = Sessions(Target((store.url,), store.tls))
        before = sessions.nobody
        assert await before.client.count(m.EVERYTHING) == 1
        assert await sessions.needs_login()
        with pytest.raises(m.MusterError):
            await before.client.count(m.EVERYTHING)
        await sessions.close()

    asyncio.run(main())


def test_files_that_are_no_certificates_of_users_are_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """One of them kept the console from starting, for all users."""
    authority = Authority(tmp_path)
    users = tmp_path / "users"
    users.mkdir()
    found = Certificates(str(users))
    with pytest.raises(ValueError, match="has no certificate"):
        found.check()
    pair = authority.issue("alice", "alice")
    for name in ("a", "b"):
        (users / f"{name}.pem").write_bytes(pair.cert.read_bytes())
        (users / f"{name}-key.pem").write_bytes(pair.key.read_bytes())
    found.check()
    (users / "b-key.pem").unlink()
    found.check()
    told = [one.getMessage() for one in caplog.records]
    assert len(told) == 2
    assert re.search(r"b\.pem names the same user as .*a\.pem", told[0])
    assert re.search(r"b\.pem with b-key\.pem: No such file", told[1])
    (users / "a-key.pem").unlink()
    with pytest.raises(ValueError, match=r"a\.pem with a-key\.pem: No such file"):
        found.check()


def test_a_broken_pair_is_left_out_alone_and_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    authority = Authority(tmp_path)
    users = tmp_path / "users"
    users.mkdir()
    pairs = {name: authority.issue(name, name) for name in (ALICE, MALLORY, "carol", "dave")}
    for name, pair in pairs.items():
        (users / f"{name}.pem").write_bytes(pair.cert.read_bytes())
        (users / f"{name}-key.pem").write_bytes(pair.key.read_bytes())
    (users / f"{MALLORY}-key.pem").write_bytes(pairs[ALICE].key.read_bytes())
    (users / "carol.pem").write_bytes(b"secret words\xff")
    (users / "dave-key.pem").unlink()
    found = Certificates(str(users))

    def user_of(name: str) -> str:
        user, pair = asyncio.run(found.of(shown(pairs[name])))
        return "" if pair is None else user

    for _ in range(2):
        assert [user_of(name) for name in pairs] == [ALICE, "", "", ""]
    told = [one.getMessage() for one in caplog.records]
    assert len(told) == 3, "each once, however often somebody logs in"
    for name, line in zip(("carol", "dave", MALLORY), told, strict=True):
        assert f"{name}.pem" in line
        assert "secret words" not in line
    (users / "dave-key.pem").write_bytes(pairs["dave"].key.read_bytes())
    assert user_of("dave") == "dave"
    assert len(caplog.records) == 3
