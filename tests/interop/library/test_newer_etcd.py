"""Some tests of the other modules on etcd 3.7, where it is built; by MUSTER_LIBRARY_SERVERS=etcd-3.7, all."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest

from tests.interop.hosts import Hosts
from tests.interop.library import test_admin, test_leases, test_recipes
from tests.interop.library.conftest import newer_etcd

pytestmark = pytest.mark.timeout(1200)  # the first one may wait for etcd to be built
Run = Callable[[Coroutine[Any, Any, None]], None]


@pytest.fixture(scope="module")
def newer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosts]:
    yield from newer_etcd(tmp_path_factory.mktemp("newer"))


@pytest.mark.parametrize("test", [
    test_recipes.test_readers_share_and_a_writer_is_alone,
    test_recipes.test_a_double_barrier_begins_and_ends_together,
    test_recipes.test_queues_give_each_item_once_and_in_order,
    test_recipes.test_levels_of_isolation_differ,
    test_leases.test_one_holds_a_lock_in_the_order_of_arrival,
    test_admin.test_users_and_roles,
    test_admin.test_a_namespace_has_keys_of_its_own,
])
def test_on_newer_etcd(test: Callable[..., None], newer: Hosts, directory: str, run: Run) -> None:
    test(newer, directory, run)
