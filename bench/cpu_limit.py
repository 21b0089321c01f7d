"""A cgroup that limits a process to a share of a CPU, so that one machine can saturate it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

# the longest wait of a process that has used its share: 100 ms by default; below 10 the kernel is too coarse
_PERIOD_US = 25_000
_ROOT = Path("/sys/fs/cgroup")


@contextmanager
def limited(pid: int, share: float) -> Iterator[None]:
    """Limit a process within the block. RuntimeError if no cgroup can be made."""
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
    """This process's own group, and the files of a group below it."""
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
