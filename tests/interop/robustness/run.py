"""etcd's robustness suite with muster in etcd's place: ``make test-robustness``, or
``python -m tests.interop.robustness.run --shards=3 --churn=yes --run=Kubernetes``.

The suite's own clients write, read and watch while a host has a fault. Its own validators look for an order
of all operations, and for what watches promise. Of etcd's ``tests/robustness`` little is changed: what was
written is not read from etcd's WAL, but from watches of all keys (``history_test.go``). Left out are faults
inside etcd's code (gofail), between peers, and in file systems (LazyFS). With churn, shards are added and
retired and keys move all the time.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from tests.cluster.moves.churn import told
from tests.interop.etcd.built import changed, copied, downloaded, go, starter
from tests.interop.etcd.run import alone
from tests.interop.etcd.verdicts import Verdict, outcome
from tests.interop.toolchain import CACHE, cache

MODULE = "go.etcd.io/etcd/tests/v3@v3.7.1"
NEEDED = ("go", "unshare", "ip")
TRAFFIC = ("EtcdHighTraffic", "EtcdTrafficDeleteLeases", "KubernetesHighTraffic", "KubernetesLowTraffic")
FAULTS = ("Kill", "KillAll", "KillProcesses", "Terminate", "Pause", "Compact", "Defragment", "MemberReplace")
_DELETED = "\n\t\t\t\t".join((
    "arg, ok := delArgs[kv]", "if !ok {", "\tcontinue", "}", "if arg.persistedCount > 0 "))
_SEEN_IS = "lastRevision = resp.Events[len(resp.Events)-1].Kv.ModRevision"
_OF_ALL_KEYS = """
// seen is the newest revision up to which watches of all keys have seen each change.
var seen atomic.Int64

// Unseen says whether a watch of all keys has yet to see a revision.
func Unseen(revision int64) bool { return revision > seen.Load() }

"""
_NOT_DONE = "\t\t\tif !persisted {\n"
_UNSEEN = """// unseen: a transaction that has only one way puts what nobody has seen, so it was not done.
func unseen(request *model.TxnRequest, putArgs map[model.PutOptions]patchArgs) bool {
	for _, operation := range request.OperationsOnSuccess {
		if operation.Type == model.PutOperation {
			kv := model.PutOptions{Key: operation.Put.Key, Value: operation.Put.Value}
			if arg, ok := putArgs[kv]; ok && arg.clientCount == 1 && arg.persistedCount == 0 {
				return !hasWriteOperation(request.OperationsOnFailure)
			}
		}
	}
	return false
}

"""
_AT_RANDOM = "compactRev := random.RandRange(lastRev, resp.Header.Revision+5)\n"
_MOST_AHEAD = 50  # so far watches may be behind where a revision is asked for that does not exist yet
_AS_KUBERNETES = "compactTime, rev, err = compact(ctx, c, compactTime, rev)\n"
#: What is changed where. What was written comes from elsewhere. Data of hosts is not copied: sockets are in
#: it. A transaction whose puts nobody sees was not done, though others, or ends of leases, delete a key of
#: its own: the search for an order would be endless with some of those. A client compacts what watches of all
#: keys have seen: when a cluster starts on a full machine, others' connections are up seconds after its own.
CHANGED = {
    "client/watch.go": {
        '"fmt"\n\t"time"\n': '"fmt"\n\t"sync/atomic"\n\t"time"\n',
        "\n// watchUntilRevision": f"{_OF_ALL_KEYS}// watchUntilRevision",
        f"{_SEEN_IS}\n": f"{_SEEN_IS}\n\t\t\t\t\tfor known := seen.Load(); known < lastRevision &&"
                        " !seen.CompareAndSwap(known, lastRevision); known = seen.Load() {\n\t\t\t\t\t}\n"},
    "traffic/etcd.go": {
        _AT_RANDOM: f"{_AT_RANDOM}\t\tif newest := resp.Header.Revision; client.Unseen(compactRev) &&"
                    f" (compactRev <= newest || client.Unseen(newest-{_MOST_AHEAD})) {{\n"
                    "\t\t\tcontinue\n\t\t}\n"},
    "traffic/kubernetes.go": {
        _AS_KUBERNETES: f"if client.Unseen(rev) {{\n\t\t\tcontinue\n\t\t}}\n\t\t{_AS_KUBERNETES}"},
    "main_test.go": {"report.PersistedRequestsCluster(lg, c)": "persisted(clientReports)",
                     "t.Error(err)\n\t}\n\tresult :=": "t.Fatal(err)\n\t}\n\tresult :=",
                     "report.ServerDataPaths(c)": "nil"},
    "validate/patch_history.go": {
        _DELETED: f"{_DELETED}&& arg.clientCount == 1 ",
        _NOT_DONE: "\t\t\tif !persisted || unseen(request.Txn, putArgs) {\n",
        "func isUniqueTxn": f"{_UNSEEN}func isUniqueTxn"},
}
LIMIT_S = 420
#: Of a run that says nothing: what was written is not known (history_test.go), or the machine was too full.
UNRELIABLE = ("each watch of all keys came behind a compaction", "Requiring minimal")
_FAULT = re.compile(r"^ +(?!logger|testing)\w+\.go:\d+: (.*)", re.MULTILINE)  # of those two is what they log
_MOST_RUNS, _OF_SEEDS = 3, 1000
_CHECKS = ("TestHistory", "TestOfAnUnknownTransaction")  # of the checks themselves
_HERE = Path(__file__).resolve().parent
_OURS = sorted(_HERE.glob("*_test.go"))
_ROOT = _HERE.parents[2]


def built() -> Path:
    """The suite as a program. The first time takes minutes."""
    with cache("robustness") as folder:
        home = folder / MODULE.rpartition("@")[2]
        suite, made = home / "tests" / "robustness", home / "robustness.test"
        version = hashlib.sha256(repr((CHANGED, [path.read_text() for path in _OURS])).encode()).hexdigest()
        if not (home / "done").exists():
            shutil.rmtree(home, ignore_errors=True)
            copied(downloaded(MODULE), home / "tests")
        elif (home / "done").read_text() == version:
            return home
        original = downloaded(MODULE) / "robustness"
        for path, changes in CHANGED.items():
            (suite / path).write_text(changed((original / path).read_text(), changes))
        for path in _OURS:
            shutil.copyfile(path, suite / path.name)
        go("test", "-vet=off", "-c", "-o", str(made), "./robustness", cwd=home / "tests")
        (home / "done").write_text(version)
    return home


def _together(fault: str, churns: bool) -> bool:
    """No host is replaced while a shard is born, as the cluster answers."""
    return fault != "MemberReplace" or not churns


def chosen(rounds: int, turn: int, *, churns: bool) -> Iterator[tuple[str, str]]:
    """Every traffic once a round, each time with another fault that it allows."""
    for at in range(rounds):
        for number, traffic in enumerate(TRAFFIC):
            fault = FAULTS[(number + 2 * turn + at) % len(FAULTS)]  # the four ways have all of them
            if _together(fault, churns):
                yield traffic, fault


class Run:
    """Clusters of so many shards, with churn or without."""

    def __init__(self, home: Path, work: Path, shards: int, churns: bool) -> None:
        name = f"{shards}-{'churn' if churns else 'still'}"
        self._home = home
        self._work = work
        self._programs = work / f"programs-{name}"
        self._programs.mkdir()
        starter(self._programs, shards, Path("/bin/false"))  # the suite has no proxy of etcd's
        self.logs = CACHE / "robustness" / "logs" / name
        shutil.rmtree(self.logs, ignore_errors=True)
        self.logs.mkdir(parents=True)
        self._alone = alone()
        self._churned = work / f"churned-{name}" if churns else None
        if self._churned is not None:
            self._churned.mkdir()

    def churned(self) -> Counter[str]:
        """What churn has done until now."""
        done: Counter[str] = Counter()
        for file in self._churned.glob("*/[0-9]*.json") if self._churned is not None else ():
            done.update(json.loads(file.read_text(encoding="utf-8")))
        return done

    def one(self, name: str, seed: int = 1) -> bool:
        """Run a test: whether it holds. One that says nothing is run again."""
        for attempt in range(_MOST_RUNS):
            holds = self._once(name, seed + _OF_SEEDS * attempt)
            log = self._log(name)
            faults = re.findall(_FAULT, log.read_text(errors="replace"))
            if holds or not faults or not all(fault.startswith(UNRELIABLE) for fault in faults):
                return holds
            shutil.copyfile(log, log.with_suffix(f".unreliable-{attempt}"))
        return False

    def _log(self, name: str) -> Path:
        return self.logs / f"{name.replace('/', '-')}.log"

    def _once(self, name: str, seed: int) -> bool:
        began = time.monotonic()
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("ETCD", "MUSTER_"))}
        if self._churned is not None:
            counts = self._churned / f"{name.replace('/', '-')}-{seed}"
            counts.mkdir()
            environment["PROGRAM_OF_CHURN"] = (
                f"{sys.executable} -m tests.cluster.moves.churn --seed={seed} --births=0.4 --most-shards=5"
                f" --counts={counts}")
        log_path = self._log(name)
        pattern = "/".join(f"^{part}$" for part in name.split("/"))
        with tempfile.TemporaryDirectory(dir=self._work) as files, open(log_path, "wb") as log:
            environment |= {"TMPDIR": files, "RESULTS_DIR": str(self.logs), "PYTHONPATH": str(_ROOT),
                            "EXPECT_DEBUG": "true"}  # what hosts say
            line = [str(self._home / "robustness.test"), "-bin-dir", str(self._programs), "-test.v",
                    f"-test.timeout={LIMIT_S}s", f"-test.run={pattern}"]
            try:
                subprocess.run(
                    [*self._alone, *line], cwd=self._home / "tests" / "robustness", env=environment,
                    stdin=subprocess.DEVNULL, stdout=log, stderr=log, check=False, timeout=LIMIT_S + 10)
            except subprocess.TimeoutExpired:
                log.write(b"\nkilled\n")
        said = outcome(name, log_path.read_text(encoding="utf-8", errors="replace")).verdict
        print(f"{said.value:8}{name} ({time.monotonic() - began:.1f} s)", flush=True)
        return said is Verdict.PASSED


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shards", default="1,3", help="the numbers of shards to run the suite with (1,3)")
    parser.add_argument("--churn", default="no,yes", help="whether shards come and go meanwhile (no,yes)")
    parser.add_argument("--run", default="", help="only traffic and faults with this pattern in their names")
    parser.add_argument("--rounds", type=int, help="how often each traffic has another fault; 8: all faults")
    asked = parser.parse_args()
    missing = [command for command in NEEDED if shutil.which(command) is None]
    if missing:
        print(f"skipped: test-robustness needs {', '.join(missing)}, not found in PATH")
        return
    rounds = asked.rounds or (len(FAULTS) if asked.run else 1)
    home, wrong = built(), 0
    ways = itertools.product(map(int, asked.shards.split(",")), asked.churn.split(","))
    with tempfile.TemporaryDirectory(prefix="test-robustness-") as work:
        for turn, (shards, churn) in enumerate(ways):
            churns = churn == "yes"
            run = Run(home, Path(work), shards, churns)
            many = f"{shards} shard{'s' if shards > 1 else ''}"
            print(f"== {MODULE}, {many}{' and churn' * churns}", flush=True)
            tests = chosen(rounds, turn, churns=churns)
            names = [f"TestMuster/{traffic}/{fault}" for traffic, fault in tests]
            names = [*_CHECKS, *(name for name in names if re.search(asked.run, name))]
            failed = [name for number, name in enumerate(names) if not run.one(name, number)]
            for name in failed:
                print(f"FAILED: {name} (its output and report: {run.logs})")
            wrong += len(failed)
            if churns:
                done = run.churned()
                print(f"churn: {told(done)}", flush=True)
                if not done["moved"]:
                    print("FAILED: no keys have moved")
                    wrong += 1
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
