"""Kubernetes' own tests of its storage, run on muster: ``make test-kubernetes``, or
``python -m tests.interop.kubernetes.run --shards=3 -run TestWatch``. With ``--churn``, shards are added and
retired and keys move all the time.

The module ``k8s.io/apiserver`` is downloaded by Go and nothing of it is changed: ``go test -overlay`` puts
a test server that starts muster in the place of the one that starts etcd.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

from tests.cluster.moves.churn import told
from tests.interop.toolchain import CACHE

MODULE = "k8s.io/apiserver@v0.34.1"
PACKAGE = "pkg/storage/etcd3"
_HERE = Path(__file__).resolve().parent
_ROOT = _HERE.parents[2]


def source() -> Path:
    """A copy of the module: Go lets nothing of its own cache be overlaid."""
    with (
        tempfile.TemporaryDirectory() as elsewhere
    ):  # outside of any module: what is asked for is no dependency of one
        done = subprocess.run(
            ["go", "mod", "download", "-json", MODULE], cwd=elsewhere, capture_output=True, check=True
        )
    copy = CACHE / "kubernetes" / MODULE.replace("/", "_")
    if not (copy / "go.mod").exists():
        shutil.copytree(
            json.loads(done.stdout)["Dir"], copy, copy_function=shutil.copyfile, dirs_exist_ok=True
        )
    return copy


def run(shards: int, arguments: list[str], churned: str = "") -> int:
    """Run the tests on hosts of so many shards; the exit code. ``churned``: a folder for what was done by
    churns beside them."""
    module = source()
    environment = {
        **{k: v for k, v in os.environ.items() if not k.startswith(("ETCD_", "MUSTER_"))},
        "MUSTER_COMMAND": f"{sys.executable} -m tools.muster.cli",
        "MUSTER_TEST_SHARDS": str(shards),
        "PYTHONPATH": str(_ROOT),
        "GOFLAGS": "-mod=readonly",
    }
    if churned:
        environment["MUSTER_CHURN"] = f"{sys.executable} -m tests.cluster.moves.churn --counts={churned}"
    with tempfile.NamedTemporaryFile("w", suffix=".json") as overlay:
        replaced = {str(module / PACKAGE / "testserver" / "test_server.go"): str(_HERE / "testserver.go")}
        json.dump({"Replace": replaced}, overlay)
        overlay.flush()
        line = [
            "go",
            "test",
            "-vet=off",
            "-count=1",
            "-timeout=30m",
            f"-overlay={overlay.name}",
            *arguments,
            f"./{PACKAGE}/",
        ]
        return subprocess.run(line, cwd=module, env=environment, check=False).returncode


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shards", default="1,3", help="the numbers of shards to run the tests with (1,3)")
    parser.add_argument("--churn", action="store_true", help="add shards and move keys all the time")
    known, rest = parser.parse_known_args()
    codes = []
    for shards in map(int, known.shards.split(",")):
        print(f"== {MODULE} {PACKAGE}, {shards} shard{'s' if shards > 1 else ''}", flush=True)
        with tempfile.TemporaryDirectory() as churned:
            codes.append(run(shards, rest, churned if known.churn else ""))
            done: Counter[str] = Counter()
            for file in Path(churned).glob("[0-9]*.json"):
                done.update(json.loads(file.read_text(encoding="utf-8")))
            if known.churn:
                print(f"churn: {told(done)}", flush=True)
    sys.exit(max(codes))


if __name__ == "__main__":
    main()
