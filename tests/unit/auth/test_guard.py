"""A front that connects is told of users, however few changes made them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from cluster.features.auth.principal import read_news
from cluster.features.auth.state import Meta, meta_row
from cluster.wire.messages import Status
from node.serving.auth.guard import Guard


@pytest.mark.parametrize(("meta", "told"), [
    (Meta(True, 1), True),  # as a restored file may say
    (Meta(True, 5), True),
    (Meta(False, 5), True),  # who was to log in again
    (Meta(False, 1), False),
])
def test_a_front_is_told_of_users_when_it_connects(meta: Meta, told: bool) -> None:
    store: Any = SimpleNamespace(feature_rows=lambda feature: [meta_row(meta)])
    fronts: Any = None
    said: list[tuple[int, int, bytes]] = []
    link: Any = SimpleNamespace(watches=True, answer=lambda *given: said.append(given))
    Guard(store, fronts, lambda: 7).greet(link)
    assert [status for _, status, _ in said] == [Status.AUTH] * told
    assert [read_news(body)[:3] for *_, body in said] == [(7, meta.enabled, meta.revision)] * told
