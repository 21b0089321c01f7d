"""A process that may use no more than a given share of a CPU, by a cgroup: to find where it saturates
although whoever loads it needs more of the machine than it does."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

# who has used up its share waits for so long at most; it is usually 100 ms, and below 10 the kernel is too
# coarse
_PERIOD_US = 25_000
_ROOT = Path("/sys/fs/cgroup")


@contextmanager
def limited(pid: int, share: float) -> Iterator[None]:
    """As long as the block lasts. RuntimeError where no cgroup can be made."""
    own, quota = _own_group(share)
    group = own / f"muster-bench-{pid}"
    try:
        group.mkdir()
        for name, value in quota.items():
            (group / name).write_text(value)
        (group / "cgroup.procs").write_text(str(pid))
    except OSError as e:
        if group.is_dir():
            group.rmdir()
        raise RuntimeError(
            f"a share of a CPU needs the right to make a cgroup below {own}: {e.strerror}"
        ) from e
    try:
        yield
    finally:
        with suppress(OSError):  # it has ended
            (own / "cgroup.procs").write_text(str(pid))
        group.rmdir()


def _own_group(share: float) -> tuple[Path, dict[str, str]]:
    """Where this process's own group lies, and what to write into one below it."""
    quota_us = str(int(share * _PERIOD_US))
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if "cpu" in controllers.split(","):
            return _ROOT / "cpu" / path.lstrip("/"), {
                "cpu.cfs_period_us": str(_PERIOD_US),
                "cpu.cfs_quota_us": quota_us,
            }
        if not controllers and (_ROOT / "cgroup.controllers").exists():
            return _ROOT / path.lstrip("/"), {"cpu.max": f"{quota_us} {_PERIOD_US}"}
    raise RuntimeError("a share of a CPU needs cgroups, which this system has not")
