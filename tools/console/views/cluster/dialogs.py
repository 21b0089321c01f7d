"""Dialogs that change members. Each says what will happen."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from muster_client import MusterError
from nicegui import ui

from tools.console.store import members
from tools.console.store.cluster import Member
from tools.console.views.page import Page
from tools.console.views.parts import Do, buttons, dialog, sure


def add_learner(page: Page, again: Callable[[], Awaitable[None]]) -> None:
    """A new member, without a vote at first."""
    with page.browser, dialog(page.t("member.add")) as made:
        ui.label(page.t("member.add_text")).classes("mc-sub")
        where = ui.input(page.t("member.urls"), placeholder="http://10.0.0.5:2380").props(
            "outlined dense autofocus spellcheck=false"
        )
        problem = ui.label("").classes("mc-problem").props("role=alert")

        async def do() -> None:
            try:
                member = await page.identity.client.members.add(members.urls(where.value or ""), learner=True)
            except (MusterError, ValueError) as error:
                problem.set_text(page.why(error))
                return
            made.close()
            page.say("member.added", id=f"{member.id:x}")
            await again()

        buttons(made, page, page.t("member.add"), do)


def update(page: Page, member: Member, done: Do) -> None:
    """Other peer URLs."""
    with page.browser, dialog(page.t("member.update")) as made:
        ui.label(member.name).classes("mc-mono mc-strong")
        ui.label(page.t("member.update_text")).classes("mc-sub")
        where = ui.input(page.t("member.urls"), value=",".join(member.peer_urls)).props(
            "outlined dense autofocus spellcheck=false"
        )
        problem = ui.label("").classes("mc-problem").props("role=alert")

        async def do() -> None:
            try:
                found = members.urls(where.value or "")
            except ValueError as error:
                problem.set_text(page.why(error))
                return
            made.close()
            await done(page.identity.client.members.update(member.id, found))

        buttons(made, page, page.t("member.update"), do)


def remove(page: Page, member: Member, done: Do) -> None:
    """Out for good, once its name is typed."""
    name = member.name or f"{member.id:x}"
    sure(
        page,
        page.t("member.remove"),
        name,
        page.t("member.remove_text"),
        lambda: page.identity.client.members.remove(member.id),
        done,
        typed=name,
    )
