"""etcd's own end-to-end tests, run with muster in etcd's place: ``make test-etcd``, or
``python -m tests.interop.etcd.run --shards=3 --run=TestWatch``.

Each test runs alone, in namespaces of its own: ports are fixed in these tests, and what one of them leaves
behind ends with its namespace. So several run side by side.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.interop.etcd.built import INSIDE, PROGRAM, RELEASES, binary, built, place, programs
from tests.interop.etcd.verdicts import Known, Outcome, Verdict, covers, judge, known, outcome
from tests.interop.toolchain import CACHE

NEEDED = ("go", "curl", "unshare", "ip")
LIMIT_S = 300
LISTED_S = 60  # many of those that are known to fail wait for something that never comes
LIST = Path(__file__).resolve().parents[3] / "docs" / "design" / "etcd-tests.tsv"
_ALONE = ("unshare", "--net", "--pid", "--fork", "--kill-child", "--mount-proc")
# The first process of the namespace waits for those that lost their parent. The address is of a
# documentation network: one test asks for the machine's own.
_INSIDE = """
ip link set lo up && ip address add 192.0.2.1/24 dev lo && ip route add default via 192.0.2.2
"$@"
exit $?
"""


def alone() -> list[str]:
    """How a command gets namespaces of its own; ends this program where that cannot be."""
    for line in ([*_ALONE], ["unshare", "--user", "--map-root-user", *_ALONE[1:]]):
        if subprocess.run([*line, "true"], capture_output=True, check=False).returncode == 0:
            return [*line, "sh", "-c", _INSIDE, "sh"]
    sys.exit("etcd's tests need namespaces of network and processes: root, or users who may have their own")


class Run:
    """Tests of one package, with so many shards."""

    def __init__(self, home: Path, work: Path, package: str, shards: int, listed: list[Known]) -> None:
        self.package = package
        self.shards = shards
        self._listed = {name for row in listed if row.shards <= shards for name in row.names}
        self._home = home
        self._work = work
        name = f"{home.name}-{package.replace('/', '-')}-{shards}"
        self._programs = work / f"programs-{name}"
        self._alone = alone()
        self.logs = CACHE / "etcd" / "logs" / name
        self._line = [str(home / "programs" / binary(package))]
        if package not in INSIDE:
            self._line += ["-bin-dir", str(self._programs)]
        programs(home, self._programs, shards)
        shutil.rmtree(self.logs, ignore_errors=True)
        self.logs.mkdir(parents=True)

    def names(self, pattern: str) -> list[str]:
        """The package's tests whose names have the pattern in them."""
        with tempfile.TemporaryDirectory(dir=self._work) as folder:
            cwd = place(self._home, Path(folder), self.package)
            listed = subprocess.run(
                [*self._line, "-test.list=."], cwd=cwd, capture_output=True, text=True, check=True
            )
        names = [name for name in listed.stdout.split() if name.startswith("Test")]  # no examples
        return [name for name in names if re.search(pattern, name)]

    def one(self, name: str) -> Outcome:
        """Run a test."""
        began = time.monotonic()
        limit_s = LISTED_S if name in self._listed else LIMIT_S
        with tempfile.TemporaryDirectory(dir=self._work) as folder, tempfile.TemporaryDirectory() as files:
            cwd = place(self._home, Path(folder), self.package)
            environment = {k: v for k, v in os.environ.items() if not k.startswith(("ETCD", "MUSTER_"))}
            environment[PROGRAM] = str(self._programs / "etcd")
            with open(self.logs / f"{name}.log", "wb") as log:
                flags = ["-test.v", f"-test.timeout={limit_s}s", f"-test.run=^{name}$"]
                try:
                    subprocess.run(
                        [*self._alone, *self._line, *flags], cwd=cwd, env={**environment, "TMPDIR": files},
                        stdin=subprocess.DEVNULL, stdout=log, stderr=log, check=False, timeout=limit_s + 10,
                    )  # fmt: skip
                except subprocess.TimeoutExpired:
                    log.write(b"\nkilled\n")
        text = (self.logs / f"{name}.log").read_text(encoding="utf-8", errors="replace")
        result = outcome(name, text)
        print(f"{result.verdict.value:8}{name} ({time.monotonic() - began:.1f} s)", flush=True)
        return result

    def all(self, names: list[str], jobs: int) -> dict[str, Outcome]:
        """Run tests, some of them side by side."""
        with ThreadPoolExecutor(jobs) as pool:
            return dict(zip(names, pool.map(self.one, names), strict=True))


def _again(run: Run, outcomes: dict[str, Outcome], listed: list[Known]) -> dict[str, Outcome]:
    """Once more, with the machine to themselves, those that failed and are not known to."""
    unexpected = judge(outcomes, listed, run.shards).unexpected
    names = [name for name in outcomes if any(covers(name, part) for part in unexpected)]
    if not names:
        return outcomes
    print(f"once more, alone: {', '.join(names)}")
    return outcomes | run.all(names, 1)


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--release", default="3.6", choices=RELEASES, help="whose tests (3.6)")
    parser.add_argument("--shards", default="1,3", help="the numbers of shards to run the tests with (1,3)")
    parser.add_argument("--run", default="", help="only tests whose names have this pattern in them")
    parser.add_argument(
        "--packages",
        help=f"which of them (common,e2e; of 3.5 e2e); of 3.6 there are {', '.join(INSIDE)} as well",
    )
    parser.add_argument("--jobs", type=int, default=max(1, (os.cpu_count() or 1) // 2), help="side by side")
    asked = parser.parse_args()
    missing = [command for command in NEEDED if shutil.which(command) is None]
    if missing:
        print(f"skipped: test-etcd needs {', '.join(missing)}, not found in PATH")
        return
    release = RELEASES[asked.release]
    packages = asked.packages.split(",") if asked.packages else release.packages
    home, wrong = built(release), 0
    listed = known(LIST.read_text(), asked.release)
    with tempfile.TemporaryDirectory(prefix="test-etcd-") as work:
        for shards in map(int, asked.shards.split(",")):
            for package in packages:
                print(f"== {release.module} {package}, {shards} shard{'s' if shards > 1 else ''}", flush=True)
                run = Run(home, Path(work), package, shards, listed)
                outcomes = run.all(run.names(asked.run), asked.jobs)
                outcomes = _again(run, outcomes, listed)
                counted = Counter(result.verdict for result in outcomes.values())
                print(", ".join(f"{counted[verdict]} {verdict.name.lower()}" for verdict in Verdict))
                judgement = judge(outcomes, listed, shards)
                for part in judgement.unexpected:
                    print(f"FAILED, and not in {LIST.name}: {part} (its output: {run.logs})")
                for entry in judgement.outdated:
                    print(f"holds, but is in the list of {LIST.name}: {entry}")
                wrong += len(judgement.unexpected) + len(judgement.outdated)
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
