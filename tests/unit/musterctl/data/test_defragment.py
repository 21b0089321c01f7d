"""``musterctl defrag --data-dir``: a directory that its user may not read."""

from __future__ import annotations

import errno
import os

import pytest

from tools.muster.host.identity import bootstrap
from tools.musterctl.command import Exit
from tools.musterctl.commands.hosts import maintenance


def test_a_directory_that_may_not_be_read_is_told_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(data_dir: str) -> bool:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), f"{data_dir}/member")

    monkeypatch.setattr(bootstrap, "is_known", refuse)
    with pytest.raises(Exit) as ended:
        maintenance._defrag_offline("/d")
    assert str(ended.value) == "Failed to defragment etcd data[/d] (/d/member: permission denied)"
