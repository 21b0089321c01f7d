"""What is tried once more, what is told of it, and where that ends: by runs of pytest of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.plugins import limits
from tests.plugins.second_tries import HEADING, MOST, NEVER, VARIABLE

ROOT = Path(__file__).parents[2]
LIMIT_S = 100
SCOPES = ("function", "module", "session")
# a test fails as often as a number says, over all tries
COUNTED = """
import pathlib
import pytest

tries = []

def fail(times, name):
    tries.append(name)
    print("said by", name)
    assert tries.count(name) > times, f"{name} is unlucky"
"""
ONCE = "def test_{0}():\n    fail(1, '{0}')\n"


class Run:
    """A project with tests, and runs of it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.names = folder / "names"
        (folder / "tests").mkdir()
        (folder / "tests/conftest.py").write_text(
            "from tests.plugins import at_once, limits, second_tries\n\n"
            "def pytest_configure(config):\n    at_once.register(config)\n"
            "    limits.register(config)\n    second_tries.register(config)\n"
        )  # fmt: skip
        (folder / "pyproject.toml").write_text('[tool.pytest.ini_options]\nfilterwarnings = ["error"]\n')

    def test(self, path: str, *tests: str) -> None:
        """A module of tests."""
        file = self._folder / "tests" / path
        file.parent.mkdir(exist_ok=True)
        file.write_text("\n".join([COUNTED, *tests]))

    def run(self, *args: str, asked: bool = True, **more: str) -> tuple[int, str]:
        """How a run ends, and what it says. ``more`` of its environment."""
        env = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST_", "MUSTER_"))}
        if asked:
            env[VARIABLE] = str(self.names)
        without = ("-p", "no:cacheprovider", "-p", "no:hypothesispytest")
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", *without, "--rootdir=.", *args, "tests"],
            cwd=self._folder, env={**env, **more, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
            check=False, timeout=LIMIT_S,
        )  # fmt: skip
        return done.returncode, done.stdout + done.stderr


@pytest.fixture
def project(tmp_path: Path) -> Run:
    return Run(tmp_path)


@pytest.mark.parametrize("workers", [(), ("-n", "2", "--dist", "loadfile")], ids=["alone", "workers"])
def test_a_test_of_processes_that_fails_once_is_told(project: Run, workers: tuple[str, ...]) -> None:
    project.test("cluster/test_some.py", ONCE.format("kills"), "def test_other():\n    pass\n")
    code, said = project.run(*workers)
    assert code == 0, said
    assert "2 passed, 1 rerun" in said
    told = said.partition(HEADING)[2]
    assert "kills is unlucky" in told
    assert "fail(1, 'kills')" in told
    assert "said by kills" in told
    assert project.names.read_text() == "tests/cluster/test_some.py::test_kills\n"


@pytest.mark.parametrize("workers", [(), ("-n", "2", "--dist", "loadfile")], ids=["alone", "workers"])
def test_a_test_that_fails_twice_fails_the_run(project: Run, workers: tuple[str, ...]) -> None:
    project.test("faults/test_some.py", "def test_wrong():\n    fail(2, 'wrong')\n")
    code, said = project.run(*workers)
    assert code == 1, said
    assert "1 failed, 1 rerun" in said
    assert HEADING not in said
    assert not project.names.exists()


def test_more_than_a_few_second_tries_fail_the_run(project: Run) -> None:
    project.test("interop/test_some.py", *(ONCE.format(f"t{i}") for i in range(MOST)))
    code, said = project.run()
    assert code == 0, said
    project.names.unlink()
    project.test("faults/test_more.py", ONCE.format("one_more"))
    code, said = project.run()
    assert code == 1, said
    assert f"{MOST + 1} passed, {MOST + 1} rerun" in said
    assert "one_more is unlucky" in said.partition(HEADING)[2]


def test_runs_that_share_the_file_are_counted_together(project: Run) -> None:
    project.names.write_text("tests/cluster/test_earlier.py::test_it\n" * MOST)
    project.test("cluster/test_fine.py", "def test_fine():\n    pass\n")
    code, said = project.run()
    assert code == 0, said
    project.test("faults/test_some.py", ONCE.format("one_more"))
    code, said = project.run()
    assert code == 1, said
    assert f"{MOST + 1} {HEADING} so far" in said


def test_what_has_no_real_time_is_never_tried_again(project: Run) -> None:
    for folder in NEVER:
        project.test(f"{folder}/test_{folder}.py", ONCE.format(folder))
    code, said = project.run()
    assert code == 1, said
    assert f"{len(NEVER)} failed in" in said


def test_nothing_is_tried_again_unless_asked(project: Run) -> None:
    project.test("cluster/test_some.py", ONCE.format("it"))
    code, said = project.run(asked=False)
    assert code == 1, said
    assert "rerun" not in said


def test_all_fixtures_are_made_anew(project: Run) -> None:
    for scope in SCOPES:
        project.test(f"cluster/test_{scope}.py", f'''
@pytest.fixture(scope="{scope}")
def hosts():
    yield (hosts := {{"up": True}})
    tries.append("ended")

def test_kills(hosts):
    assert hosts["up"]
    hosts["up"] = False
    fail(1, "kills")

def test_after(hosts):
    assert "ended" in tries
''')
    code, said = project.run()
    assert code == 0, said
    assert f"{2 * len(SCOPES)} passed, {len(SCOPES)} rerun" in said


def test_a_fixture_that_fails_once_is_made_again(project: Run) -> None:
    for scope in SCOPES:
        project.test(f"cluster/test_{scope}.py", f'''
@pytest.fixture(scope="{scope}")
def hosts():
    fail(1, "{scope}")

def test_it(hosts):
    pass
''')
    code, said = project.run()
    assert code == 0, said
    assert all(f"{scope} is unlucky" in said.partition(HEADING)[2] for scope in SCOPES)


def test_what_fails_only_when_it_ends_is_tried_again_and_told(project: Run) -> None:
    project.test(
        "cluster/test_some.py",
        """
@pytest.fixture(scope="module")
def hosts():
    yield
    fail(1, "the end")
""",
        "def test_it(hosts):\n    pass\n",
    )  # fmt: skip
    code, said = project.run()
    assert code == 0, said
    assert "the end is unlucky" in said.partition(HEADING)[2]


def test_each_try_has_the_whole_limit_of_time(project: Run) -> None:
    project.test("cluster/test_some.py", "import time\n", "def test_hangs():\n    time.sleep(60)\n")
    code, said = project.run("--timeout=1")
    assert code == 1, said
    assert "1 failed, 1 rerun" in said


def test_what_is_shared_has_a_limit_when_it_ends_for_a_second_try(project: Run) -> None:
    project.test("cluster/test_some.py", """
import time

@pytest.fixture(scope="session")
def hosts():
    yield
    tries.append("ended")
    if tries.count("ended") == 1:
        time.sleep(LONG_S)

def test_kills(hosts):
    fail(1, "kills")

def test_after(hosts):
    assert "ended" in tries
""".replace("LONG_S", str(LIMIT_S)))
    code, said = project.run("--timeout=5")
    assert code == 0, said
    assert "2 passed, 2 rerun" in said
    assert "Timeout" in said.partition(HEADING)[2]


def test_fixtures_that_end_after_a_failure_have_a_limit(project: Run) -> None:
    project.test("sim/test_some.py", """
import time

@pytest.fixture
def hosts():
    yield
    time.sleep(LONG_S)

def test_wrong(hosts):
    fail(1, "wrong")
""".replace("LONG_S", str(LIMIT_S)))
    code, said = project.run("--timeout=5")
    assert code == 1, said
    assert "1 failed, 1 error" in said
    assert "Timeout" in said


def test_a_run_that_gives_way_has_limits_of_its_own_cpu_time(project: Run) -> None:
    project.test(
        "sim/test_some.py", "import time\n", "def test_waits():\n    time.sleep(2)\n",
        "def test_spins():\n    while True:\n        pass\n",
    )  # fmt: skip
    code, said = project.run("--timeout=1", **{limits.VARIABLE: limits.OF_CPU})
    assert code == 1, said
    assert "1 failed, 1 passed" in said
    assert "Timeout" in said


@pytest.mark.parametrize("workers", [(), ("-n", "2", "--dist", "loadfile")], ids=["alone", "workers"])
def test_a_soak_tells_a_failure_before_the_tests_after_it(project: Run, workers: tuple[str, ...]) -> None:
    after = "def test_passes_after_it():\n    pass\n"
    project.test("cluster/test_some.py", "def test_wrong():\n    fail(2, 'wrong')\n", after)
    code, said = project.run("-vv", *workers, asked=False, MUSTER_SOAK="1")
    assert code == 1, said
    at_once = said.partition("PASSED")[0]
    assert "wrong is unlucky" in at_once
    assert "said by wrong" in at_once
    code, said = project.run("-vv", *workers, asked=False)
    assert code == 1, said
    assert "wrong is unlucky" not in said.partition("PASSED")[0]
