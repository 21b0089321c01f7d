"""The programs in docs/use/recipes do what they say, on three hosts.

Each runs as a reader would run it, and what it prints is compared.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.local_cluster import STEADY, local_cluster, until
from tests.interop.hosts import answers

_EXAMPLES = Path(__file__).parents[3] / "docs" / "use" / "recipes"
_WEB = [f"10.0.0.{i}:80" for i in (1, 2, 3)]

pytestmark = [pytest.mark.interop, pytest.mark.timeout(240)]

PRINTS = {
    "service_discovery": [
        f"found: {_WEB[0]} {_WEB[1]}",
        f"one more: {' '.join(_WEB)}",
        f"six requests: {' '.join(sorted(_WEB * 2))}",
        f"one died: {_WEB[1]} {_WEB[2]}",
        "all gone:",
    ],
    "configuration": ["first: database=db-1 pool=10", "then: database=db-2 pool=50"],
    "lock": ["counted: 40"],
    "sequenced_lock": ["served: client-0 client-1 client-2 client-3 client-4"],
    "fifo_queue": [
        "in order: item-0 item-1 item-2 item-3 item-4",
        f"each once: {' '.join(f'{i:02}' for i in range(12))}",
    ],
    "barrier": [" ".join(["came"] * 5 + ["began"] * 5 + ["left"] * 5)],
    "leader_election": [
        "alive: host-a host-b host-c leader: host-a",
        "died: host-a",
        "alive: host-b host-c leader is one of them: True",
    ],
    "task_scheduling": ["claimed by a worker that dies: True", "done: 0:0 1:1 2:4 3:9 4:16 5:25"],
}


@pytest.fixture(scope="module")
def endpoints(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Three hosts that stay with their leader."""
    with local_cluster(tmp_path_factory.mktemp("examples") / "muster", 3, extra=STEADY) as cluster:
        until(lambda: all(answers(endpoint) for endpoint in cluster.endpoints()))
        yield ",".join(cluster.endpoints())


@pytest.mark.parametrize("name", PRINTS)
def test_example(name: str, endpoints: str) -> None:
    line = [sys.executable, str(_EXAMPLES / f"{name}.py"), endpoints]
    done = subprocess.run(line, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == PRINTS[name]


def test_the_calls_by_hand(endpoints: str) -> None:
    """As the page has them, with another port."""
    page = (_EXAMPLES / "README.md").read_text(encoding="utf-8")
    calls = re.search(r"(?ms)^```sh\n(E=http://127\.0\.0\.1:2379.*?)^```", page)
    assert calls is not None
    script = calls[1].replace("127.0.0.1:2379", endpoints.split(",")[0]).replace("curl ", "curl -s ")
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    for told in ('"count":"1"', '"created":true', '"key":"L2wv', '"leader":{"name":"L2U="'):
        assert told in done.stdout


def test_every_example_is_run_and_listed() -> None:
    programs = {path.stem for path in _EXAMPLES.glob("*.py")} - {"gateway"}
    assert programs == set(PRINTS)
    listed = (_EXAMPLES / "README.md").read_text(encoding="utf-8")
    assert all(f"[{name}.py]({name}.py)" in listed for name in programs)
