"""Users, roles and permissions of both versions, and the tree of version 2, on muster and etcd."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import muster_client as m
import pytest
from muster_client import Client
from muster_client.v2 import NotServed, Unauthorized, V2Error

from tests.interop.console.conftest import one_etcd, one_muster
from tests.interop.console.visitor import Visitor, secret_of, visit
from tools.console.store.access import rights
from tools.console.store.access.model import Access, Permission, Role, User
from tools.console.store.access.version3 import Version3
from tools.console.store.keys import history
from tools.console.store.raw import ReadOnly
from tools.console.store.v2 import nodes
from tools.console.store.v2.accounts import Accounts2
from tools.console.store.v2.calls import Version2


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A muster of which each test enables and disables users."""
    with one_muster(tmp_path_factory.mktemp("access"), "--bcrypt-cost=4") as address:
        yield address


@pytest.fixture(scope="module", params=["muster", "etcd"])
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Each in turn, with version 2."""
    if request.param == "muster":
        yield request.getfixturevalue("guarded")
        return
    with one_etcd(tmp_path_factory.mktemp("etcd"), "--enable-v2", "--bcrypt-cost=4") as address:
        yield address


def test_users_of_version_3_get_roles_and_permissions(store: str) -> None:
    async def main() -> None:
        async with Client(store) as client:
            accounts = Version3(client, "")
            for name in ("root", "web"):
                await accounts.add_user(name, f"secret of {name}")
                await accounts.add_role(name)
                await accounts.grant(name, name)
            await accounts.allow("web", Permission("readwrite", m.prefix("/web/")))
            await accounts.allow("web", Permission("read", m.span("a", "c")))
            await accounts.allow("web", Permission("write", m.KeyRange(b"one", b"")))
            web = Role("web", (Permission("readwrite", m.prefix("/web/")),
                               Permission("read", m.span("a", "c")),
                               Permission("write", m.KeyRange(b"one", b""))))  # fmt: skip
            assert [one.scope for one in web.permissions] == ["prefix", "range", "key"]
            found = await accounts.read()
            assert (found.enabled, found.users) == (False, (User("root", ("root",)), User("web", ("web",))))
            assert web in found.roles
            await accounts.enable()
            async with Client(store, user="web", password="secret of web") as own:
                seen = await Version3(own, "web").read()
                assert seen == Access(True, (User("web", ("web",)),), (web,), whole=False)
                with pytest.raises(m.PermissionDenied):
                    await Version3(own, "web").add_role("more")
                may = await rights.of(own, "web")
                assert [may.may_write(key) for key in (b"/web/a", b"one", b"one more", b"b")] == [
                    True, True, False, False]  # fmt: skip
                first = await own.put("/web/a", "1")
                async with Client(store, user="root", password="secret of root") as root:
                    await root.compact(first.revision)
                await own.put("/web/a", "2")
                past = await history.of_key(own, b"/web/a")
                assert [one.kv and one.kv.text for one in past.revisions] == ["2", "1"]
                assert past.oldest == first.revision
            async with Client(store, user="root", password="secret of root") as root:
                assert (await rights.of(root, "root")).everything
                accounts = Version3(root, "root")
                await accounts.forbid("web", Permission("read", m.span("a", "c")))
                await accounts.set_password("web", "another")
                await accounts.revoke("web", "web")
                await accounts.delete_role("web")
                await accounts.delete_user("web")
                left = await accounts.read()
                assert (left.enabled, [one.name for one in left.users]) == (True, ["root"])
                await accounts.disable()
            accounts = Version3(client, "")
            await accounts.delete_user("root")
            await accounts.delete_role("root")

    asyncio.run(main())


def test_users_of_version_2_get_roles_and_permissions(store: str) -> None:
    async def main() -> None:
        guest, root = Version2([store]), Version2([store], user="root", password="secret")
        accounts = Accounts2(guest)
        await accounts.add_user("root", "secret")
        await accounts.enable()
        with pytest.raises(Unauthorized):
            await Accounts2(guest).add_role("more")
        accounts = Accounts2(root)
        await accounts.add_user("web", "secret of web")
        await accounts.add_role("web")
        await accounts.grant("web", "web")
        await accounts.allow("web", Permission("readwrite", m.prefix("/web/")))
        await accounts.allow("web", Permission("read", m.KeyRange(b"/one", b"")))
        found = await accounts.read()
        web = Role("web", (Permission("read", m.KeyRange(b"/one", b"")),
                           Permission("readwrite", m.prefix("/web/"))))  # fmt: skip
        assert found.enabled
        assert User("web", ("web",)) in found.users
        assert web in found.roles
        await accounts.forbid("guest", Permission("readwrite", m.EVERYTHING))
        with pytest.raises(Unauthorized):
            await nodes.create(guest, "/web/a", "", None)
        user = Version2([store], user="web", password="secret of web")
        await nodes.create(user, "/web/a", "", None)
        await accounts.forbid("web", Permission("readwrite", m.prefix("/web/")))
        await accounts.set_password("web", "another")
        await accounts.revoke("web", "web")
        await accounts.delete_role("web")
        await accounts.delete_user("web")
        await accounts.disable()
        assert not (await accounts.read()).enabled
        await Accounts2(guest).delete_user("root")
        for one in (guest, root, user):
            one.close()

    asyncio.run(main())


def test_the_tree_of_version_2_is_read_and_changed(store: str, directory: str) -> None:
    async def main() -> None:
        v2 = Version2([store])
        await nodes.make_directory(v2, directory, None)
        made = await nodes.create(v2, f"{directory}a key?", "text", 100)
        with pytest.raises(nodes.Overtaken):
            await nodes.create(v2, f"{directory}a key?", "other", None)
        await nodes.create(v2, f"{directory}_hidden", "x", None)
        first, second = [await nodes.append(v2, f"{directory}queue", text, None) for text in "ab"]
        assert first.key < second.key
        assert first.is_in_order
        found = await nodes.read(v2, directory)
        assert [(one.name, one.is_directory) for one in found.nodes] == [("a key?", False), ("queue", True)]
        assert 90 < (found.nodes[0].ttl_s or 0) <= 100
        assert (await nodes.read(v2, f"{directory}_hidden")).is_hidden
        saved = await nodes.save(v2, made, "new", None)
        assert (saved.value, saved.ttl_s) == ("new", None)
        with pytest.raises(nodes.Overtaken):
            await nodes.save(v2, made, "too late", None)
        with pytest.raises(nodes.Overtaken):
            await nodes.remove(v2, made)
        await nodes.remove(v2, saved)
        with pytest.raises(V2Error, match="Key not found"):
            await nodes.read(v2, made.key)
        await nodes.remove(v2, found)
        with pytest.raises(V2Error, match="Key not found"):
            await nodes.read(v2, directory)
        with pytest.raises(ReadOnly):
            await nodes.create(Version2([store], read_only=True), "/a", "", None)
        v2.close()
        with pytest.raises(m.MusterError, match="closed"):
            await nodes.read(v2, "/")

    asyncio.run(main())


def test_a_store_without_version_2_says_so(tmp_path_factory: pytest.TempPathFactory) -> None:
    async def main(address: str) -> None:
        v2 = Version2([address])
        with pytest.raises(NotServed):
            await nodes.read(v2, "/")
        v2.close()
        nowhere = Version2(["127.0.0.1:1"])
        with pytest.raises(m.Unreachable):
            await nodes.read(nowhere, "/")
        nowhere.close()

    with one_etcd(tmp_path_factory.mktemp("no-v2")) as address:
        asyncio.run(main(address))


async def add_user(user: Visitor, name: str, count: int) -> None:
    """By the dialog; so many are there then."""
    await user.fill("New user", {"User": name, "Password": secret_of(name)})
    await user.sees(f"Users: {count}")


def test_users_are_made_enabled_and_held_to_their_roles(guarded: str) -> None:
    async def steps(user: Visitor) -> None:
        await user.open("/users")
        await user.sees("not enabled")
        for count, name in enumerate(("root", "web"), 1):
            await add_user(user, name, count)
            await user.fill("New role", {"Role": name}, sign="Create")
            await user.sees(f"Roles: {count}")
            await user.click_in(name, "Grant a role")
            user.type("Role", name)
            await user.click("Grant a role")
            await user.sees(f"Take the role {name} back")
        await user.click_in("web", "Add a permission")
        user.type("May", "readwrite")
        user.type("Keys", "/web/")
        await user.click("Add a permission")
        await user.sees("Remove the permission for prefix /web/")
        first = await user.client.put("/web/key", "1")
        await user.client.compact(first.revision)
        await user.client.put("/web/key", "2")
        await user.client.put("/other", "1")
        await user.fill("Enable users", {"Type the word": "enable"})
        await user.until(user.console.sessions.needs_login)
        await user.open("/users")
        await user.log_in("web")
        await user.open("/users")
        await user.sees("You see yourself and your own roles.")
        for name in ("New user", "New role", "Disable users", "Grant a role", "Delete the user"):
            assert name not in user.seen()
        await user.open("/keys/web/key?search=/web/")
        await user.click("History")
        await user.sees(f"kept since revision {first.revision:,}")
        await user.click("Look into the past")
        await user.sees("back to the last compaction")
        user.user.http_client.cookies.clear()
        await user.open("/users")
        await user.log_in("root")
        await user.open("/users")
        await user.fill("Disable users", {"Type the word": "disable"})
        await user.sees("not enabled")

    visit(guarded, steps)


def test_version_2_asks_for_a_user_of_its_own(guarded: str) -> None:
    async def steps(user: Visitor) -> None:
        await user.open("/users?api=2")
        await add_user(user, "root", 1)
        await user.fill("Enable users", {"Type the word": "enable"})
        await user.sees("Version 2 asks for a user")
        root = {"User": "root", "Password": secret_of("root")}
        await user.fill("Sign in", root, sign="Sign in to version 2")
        await user.click_in("guest", "Add a permission")
        user.type("Keys", "/open/")
        await user.click("Add a permission")
        await user.sees("Remove the permission for prefix /open/")
        await user.fill("Disable users", {"Type the word": "disable"})
        await user.sees("not enabled")

    visit(guarded, steps)


def test_browsers_share_a_look_at_the_tree_of_version_2(guarded: str, directory: str) -> None:
    async def main() -> None:
        v2 = Version2([guarded])
        await nodes.create(v2, f"{directory}key", "", None)
        before = await v2.ask("GET", "/stats/store")
        await asyncio.gather(*(nodes.recent(v2, directory) for _ in range(50)))
        after = await v2.ask("GET", "/stats/store")
        assert after["getsSuccess"] - before["getsSuccess"] == 1
        with pytest.raises(V2Error, match="Key not found"):
            await nodes.recent(v2, f"{directory}none")
        v2.close()

    asyncio.run(main())


def test_the_tree_of_version_2_is_shown_and_edited(guarded: str, directory: str) -> None:
    name = directory.strip("/")

    async def steps(user: Visitor) -> None:
        v2 = Version2([guarded])
        await user.open("/v2")
        await user.sees("hidden")
        await user.fill("New directory", {"Name": name}, sign="Create")
        await user.sees(name)
        await user.open(f"/v2/{name}")
        new = {"Name": "color", "Value": "blue", "Time to live, in seconds": 300}
        await user.fill("New key", new, sign="Create")
        await user.sees("color")
        await user.sees(" min")
        await user.fill("Append in order", {"Value": "first"}, sign="Create")
        await user.sees("first")
        await user.open(f"/v2/{name}/color")
        await user.click("Edit")
        seen = await nodes.read(v2, f"{directory}color")
        await nodes.save(v2, seen, "red", None)
        user.type("Value", "green")
        await user.click("Save")
        await user.sees("Somebody was quicker")
        assert (await nodes.read(v2, f"{directory}color")).value == "red"
        await user.sees("green")
        await user.click("Review changes")
        await user.sees("red")
        await user.click("Save")
        async with asyncio.timeout(10):
            while (await nodes.read(v2, f"{directory}color")).value != "green":
                await asyncio.sleep(0.02)
        await user.open(f"/v2/{name}")
        await user.fill("Delete", {"Type the word": f"/{name}"})
        await user.sees("Key not found")
        v2.close()

    visit(guarded, steps)


def test_a_read_only_console_offers_no_change_of_users_and_of_version_2(guarded: str) -> None:
    async def steps(user: Visitor) -> None:
        for path in ("/users", "/users?api=2", "/v2"):
            await user.open(path)
            await user.sees("Read-only")
            for name in ("New user", "New role", "Enable users", "New key", "New directory", "Append"):
                assert name not in user.seen()

    visit(guarded, steps, read_only=True)
