"""What is asked before users, roles or permissions change."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from muster_client import KeyRange
from nicegui import ui

from tools.console.names import range_text
from tools.console.store.access.model import KINDS, ROOT, Access, Kind, Permission, Role, Scope, User
from tools.console.views.access.key_fields import key_fields, last_row
from tools.console.views.page import Page
from tools.console.views.parts import FIELD, Do, buttons, dialog

_SECRET = "outlined dense autocomplete=new-password"


def name_and_password(
    page: Page, title: str, text: str, step: Callable[[str, str], Awaitable[None]], do: Do
) -> None:
    """A new user, or a log-in."""
    with page.browser, dialog(title) as made:
        ui.label(text).classes("mc-sub")
        name = ui.input(page.t("login.user")).props(FIELD + " autofocus")
        password = ui.input(page.t("login.password"), password=True, password_toggle_button=True)
        password.props(_SECRET)

        async def go() -> None:
            made.close()
            await do(step(str(name.value or "").strip(), str(password.value or "")))

        buttons(made, page, title, go)


def new_password(page: Page, user: User, step: Callable[[str, str], Awaitable[None]], do: Do) -> None:
    """Another password of a user."""
    with page.browser, dialog(page.t("users.password")) as made:
        ui.label(user.name).classes("mc-mono mc-strong")
        password = ui.input(page.t("login.password"), password=True, password_toggle_button=True)
        password.props(_SECRET + " autofocus")

        async def go() -> None:
            made.close()
            await do(step(user.name, str(password.value or "")))

        buttons(made, page, page.t("save"), go)


def new_role(page: Page, step: Callable[[str], Awaitable[None]], do: Do) -> None:
    """A role, by its name."""
    with page.browser, dialog(page.t("users.new_role")) as made:
        ui.label(page.t("users.new_role_text")).classes("mc-sub")
        name = ui.input(page.t("users.role")).props(FIELD + " autofocus")

        async def go() -> None:
            made.close()
            await do(step(str(name.value or "").strip()))

        buttons(made, page, page.t("create"), go)


def grant(
    page: Page, user: User, access: Access, step: Callable[[str, str], Awaitable[None]], do: Do
) -> None:
    """A role that a user has not got. The role ``root`` may exist without being listed."""
    names = sorted({*(role.name for role in access.roles), ROOT} - set(user.roles))
    with page.browser, dialog(page.t("users.grant")) as made:
        ui.label(user.name).classes("mc-mono mc-strong")
        if not names:
            ui.label(page.t("users.has_all")).classes("mc-sub")
            return
        role = ui.select(names, label=page.t("users.role"), value=names[0]).props("outlined dense")

        async def go() -> None:
            made.close()
            await do(step(user.name, str(role.value)))

        buttons(made, page, page.t("users.grant"), go)


def allow(
    page: Page,
    role: Role,
    scopes: tuple[Scope, ...],
    step: Callable[[str, Permission], Awaitable[None]],
    do: Do,
) -> None:
    """Keys, and what the role may do with them."""
    with page.browser, dialog(page.t("users.allow")) as made:
        ui.label(role.name).classes("mc-mono mc-strong")
        kind = ui.select(
            {one: page.t(f"users.kind.{one}") for one in KINDS}, label=page.t("users.may"), value=KINDS[0]
        ).props("outlined dense")
        keys = key_fields(page, scopes, scopes[0], "/")

        def permit(found: KeyRange) -> Awaitable[None]:
            wish: Kind = kind.value
            return step(role.name, Permission(wish, found))

        last_row(page, made, page.t("users.allow"), keys, permit, do)


def keys_text(page: Page, permission: Permission) -> str:
    """The keys of a permission, in words."""
    if permission.scope == "range":
        return range_text(permission.keys)
    scope = page.t(f"users.scope.{permission.scope}")
    return scope if permission.scope == "all" else f"{scope} {range_text(permission.keys)}"
