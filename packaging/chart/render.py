"""Render the Helm chart for the values of ``keys.yaml``, ``tls.yaml`` and ``upgrade.yaml``, by helm's own
packages, into ``rendered/``, and lint it: ``make chart``. It needs Go; the first time takes minutes.

Tests check what is rendered without Go, and that it is of the chart as it is.
"""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
CHART = FOLDER / "muster"
VALUES = ("keys", "tls", "upgrade")
PROGRAM = FOLDER.parents[1] / ".interop" / "chart"


def fingerprint() -> str:
    """Changes when the chart or the values do."""
    digest = hashlib.sha256()
    for path in sorted([*CHART.rglob("*.*"), *(FOLDER / f"{name}.yaml" for name in VALUES)]):
        digest.update(path.relative_to(FOLDER).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def main() -> None:
    """Build the program, and render."""
    PROGRAM.parent.mkdir(exist_ok=True)
    subprocess.run(
        ["go", "build", "-buildvcs=false", "-mod=readonly", "-o", PROGRAM, "."], cwd=FOLDER / "render",
        check=True)
    for name in VALUES:
        done = subprocess.run(
            [PROGRAM, CHART, FOLDER / f"{name}.yaml"], check=True, text=True, stdout=subprocess.PIPE)
        text = f"# Made by `make chart` from the chart {fingerprint()}\n{done.stdout}"
        lines = [line.rstrip() for line in text.splitlines()]
        (FOLDER / "rendered" / f"{name}.yaml").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
