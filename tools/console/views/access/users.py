"""Users and roles, and what each may do. ``/users`` shows version 3, ``/users?api=2`` version 2."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from muster_client import MusterError, PermissionDenied
from muster_client.v2 import NotServed, Unauthorized
from nicegui import ui

from tools.console.names import address
from tools.console.store.access.model import ROOT, Access, Accounts, Permission, Role, User
from tools.console.store.access.version3 import Version3
from tools.console.store.v2.accounts import Accounts2
from tools.console.views.access import dialogs
from tools.console.views.page import Page
from tools.console.views.parts import button, chip, div, empty, heading, sure, tag, tag_text

_KIND_ICONS = {"read": "visibility", "write": "edit", "readwrite": "edit_note"}
_KIND_LOOKS = {"read": "mc-info", "write": "mc-warn", "readwrite": "mc-warn"}


async def build(page: Page) -> None:
    """The users of the version in the address."""
    view = UsersView(page)
    view.draw()
    await view.fill()


class UsersView:
    """Both tables of one browser."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.old = page.where[2].get("api") == "2"
        self.access = Access(False, (), ())

    @property
    def accounts(self) -> Accounts:
        """The version that is shown, asked as this user."""
        identity = self.page.identity
        return Accounts2(self.page.version2) if self.old else Version3(identity.client, identity.user)

    @property
    def may_manage(self) -> bool:
        """Whether changes are offered: to users that see everything."""
        return self.page.may_change and self.access.whole

    def draw(self) -> None:
        """What does not change."""
        page = self.page
        with div("mc-heading-row"):
            with div(""):
                heading(page.t("view.users"), page.t("users.text2" if self.old else "users.text"))
            div("mc-grow")
            self.tools = div("mc-tools")
        with div("mc-forms", role="tablist"):
            for name, old in (("users.version3", False), ("users.version2", True)):
                where = address("users", api=2 if old else 0)
                tab = button(page.t(name), lambda where=where: page.go(where)).classes("mc-tab")
                tab.classes("on" if old == self.old else "")
                tab.props["role"] = "tab"
                tab.props["aria-selected"] = str(old == self.old).lower()
        self.box = div("mc-cards-column")

    async def fill(self) -> None:
        """Read, and show what is there. MusterError."""
        page = self.page
        trouble: tuple[str, str, str] | None = None
        try:
            self.access = await self.accounts.read()
        except NotServed as error:
            trouble = "layers_clear", page.t("v2.none"), page.why(error)
        except Unauthorized as error:
            trouble = "lock", page.t("v2.denied"), str(error)
        except PermissionDenied as error:
            if not page.identity.user and "user name is empty" in str(error):
                page.browser.open(page.path)  # users were enabled meanwhile: ask for a name
                return
            raise
        self.box.clear()
        self.tools.clear()
        if trouble:
            with self.box:
                empty(*trouble)
                if trouble[0] == "lock":
                    with div("mc-center"):
                        button(page.t("login.do"), lambda: log_in2(page), icon="login", kind="primary")
            return
        with self.tools:
            self._head()
        with self.box:
            if not self.access.whole:
                with div("mc-banner", role="status"):
                    ui.icon("info")
                    ui.label(page.t("users.part"))
            self._users()
            self._roles()

    def _head(self) -> None:
        page, on = self.page, self.access.enabled
        chip(
            page.t("users.on" if on else "users.off"),
            "mc-good" if on else "mc-warn",
            "lock" if on else "lock_open",
        )
        if self.old:
            button("", lambda: log_in2(page), icon="login", kind="quiet", label=page.t("v2.log_in"))
        if self.may_manage:
            button(page.t("users.disable" if on else "users.enable"), self._switch, icon="shield")

    def _switch(self) -> None:
        page, on = self.page, self.access.enabled
        text = page.t("users.disable_text" if on else "users.enable_text")
        ready = any(one.name == ROOT and (self.old or ROOT in one.roles) for one in self.access.users)
        if not on and not ready:
            text += " " + page.t("users.needs_root")

        async def step() -> None:
            if on:
                await self.accounts.disable()
            else:
                await self.accounts.enable()
                if not self.old and not page.identity.user:
                    page.browser.open(page.path)  # it asks for a name now

        sure(
            page,
            page.t("users.disable" if on else "users.enable"),
            "",
            text,
            step,
            self.done,
            typed="disable" if on else "enable",
        )

    async def done(self, step: Awaitable[None]) -> None:
        """Do a step, tell what the cluster refuses, and look again."""
        try:
            await step
            await self.fill()
        except MusterError as error:
            self.page.complain(str(error))
        except ValueError as error:
            self.page.complain(str(error))

    def _section(self, title: str, text: str) -> ui.element:
        with div("mc-heading-row"):
            tag_text("h2", title)
            div("mc-grow")
            right = div("mc-tools")
        if text:
            ui.label(text).classes("mc-sub")
        return right

    def _users(self) -> None:
        page, users = self.page, self.access.users
        with self._section(page.t("users.count", count=len(users)), ""):
            if self.may_manage:
                button(page.t("users.new"), self._new_user, icon="person_add", kind="primary")
        if not users:
            ui.label(page.t("users.none")).classes("mc-sub")
            return
        with div("mc-table", role="table", aria_label=page.t("users.user")):
            self._titles("users.user", "users.roles")
            for user in users:
                self._user(user)

    def _new_user(self) -> None:
        page = self.page
        text = page.t("users.new_text2" if self.old else "users.new_text")
        dialogs.name_and_password(page, page.t("users.new"), text, self.accounts.add_user, self.done)

    def _titles(self, *names: str) -> None:
        with div("mc-tr mc-th mc-access", role="row"):
            for name in (*names, ""):
                ui.label(self.page.t(name) if name else "").props("role=columnheader")

    def _user(self, user: User) -> None:
        page = self.page
        with div("mc-tr mc-access", role="row"):
            with div("mc-facts", role="rowheader"):
                ui.icon("person")
                ui.label(user.name).classes("mc-mono mc-strong")
                if user.name == page.identity.user and not self.old:
                    chip(page.t("users.you"), "mc-good")
            with div("mc-facts", role="cell"):
                for role in user.roles:
                    self._granted(user, role)
                if self.may_manage:
                    button(
                        "",
                        lambda: dialogs.grant(page, user, self.access, self.accounts.grant, self.done),
                        icon="add",
                        kind="quiet",
                        label=page.t("users.grant"),
                    )
            with div("mc-tools", role="cell"):
                if self.may_manage:
                    button(
                        "",
                        lambda: dialogs.new_password(page, user, self.accounts.set_password, self.done),
                        icon="key",
                        kind="quiet",
                        label=page.t("users.password"),
                    )
                    self._delete("users.delete", user.name, self.accounts.delete_user)

    def _granted(self, user: User, role: str) -> None:
        page = self.page
        with tag("span", "mc-chip" + (" mc-warn" if role == ROOT else "")):
            tag_text("span", role)
            if self.may_manage:
                self._cross(
                    page.t("users.revoke", role=role),
                    lambda: sure(
                        page,
                        page.t("users.revoke", role=role),
                        user.name,
                        page.t("users.revoke_text"),
                        lambda: self.accounts.revoke(user.name, role),
                        self.done,
                    ),
                )

    def _delete(self, words: str, name: str, delete: Callable[[str], Awaitable[None]]) -> None:
        """A button that asks first; ``words`` names its text, and that of its dialog."""
        page = self.page
        button(
            "",
            lambda: sure(page, page.t(words), name, page.t(f"{words}_text"), lambda: delete(name), self.done),
            icon="delete",
            kind="quiet",
            label=page.t(words),
        )

    def _cross(self, label: str, do: object) -> None:
        made = button("", do, icon="close", kind="quiet", label=label)  # type: ignore[arg-type]
        made.classes("mc-cross")

    def _roles(self) -> None:
        page, roles = self.page, self.access.roles
        with self._section(page.t("users.role_count", count=len(roles)), page.t("users.roles_text")):
            if self.may_manage:
                button(
                    page.t("users.new_role"),
                    lambda: dialogs.new_role(page, self.accounts.add_role, self.done),
                    icon="add",
                    kind="primary",
                )
        if not roles:
            return
        with div("mc-table", role="table", aria_label=page.t("users.roles")):
            self._titles("users.role", "users.permissions")
            for role in roles:
                self._role(role)

    def _role(self, role: Role) -> None:
        page = self.page
        with div("mc-tr mc-access", role="row"):
            with div("mc-facts", role="rowheader"):
                ui.icon("badge")
                ui.label(role.name).classes("mc-mono mc-strong")
            with div("mc-facts", role="cell"):
                if role.name == ROOT:
                    chip(page.t("users.everything"), "mc-warn", "shield")
                else:
                    for permission in role.permissions:
                        self._permission(role, permission)
                    if self.may_manage:
                        button(
                            "",
                            lambda: dialogs.allow(
                                page, role, self.accounts.scopes, self.accounts.allow, self.done
                            ),
                            icon="add",
                            kind="quiet",
                            label=page.t("users.allow"),
                        )
            with div("mc-tools", role="cell"):
                if self.may_manage and not (self.old and role.name in (ROOT, "guest")):
                    self._delete("users.delete_role", role.name, self.accounts.delete_role)

    def _permission(self, role: Role, permission: Permission) -> None:
        page = self.page
        keys = dialogs.keys_text(page, permission)
        with tag("span", f"mc-chip {_KIND_LOOKS[permission.kind]}"):
            ui.icon(_KIND_ICONS[permission.kind])
            tag_text("span", page.t(f"users.kind.{permission.kind}"))
            tag_text("span", keys, "mc-mono")
            if self.may_manage:
                self._cross(
                    page.t("users.forbid", keys=keys),
                    lambda: sure(
                        page,
                        page.t("users.forbid", keys=keys),
                        role.name,
                        page.t("users.forbid_text"),
                        lambda: self.accounts.forbid(role.name, permission),
                        self.done,
                    ),
                )


def log_in2(page: Page) -> None:
    """Ask for a name of version 2, which has users of its own; this page alone asks as that user."""

    async def step(name: str, password: str) -> None:
        page.log_in2(name, password)

    async def do(done: Awaitable[None]) -> None:
        await done
        page.go(page.path)

    dialogs.name_and_password(page, page.t("v2.log_in"), page.t("v2.log_in_text"), step, do)
