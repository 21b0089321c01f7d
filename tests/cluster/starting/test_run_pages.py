"""Commands of docs/run, pasted into a shell beside hosts: monitor, backup, members, growth, the users of
security, and what makes room.

The addresses are those of this machine's hosts, paths lie in the test's folder, and there is no peer key.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.cluster.local_cluster import ROOT, LocalCluster, environment, free_base_port, local_cluster, until

_BIN = ROOT / ".venv" / "bin"
_STEP_S = 60.0

pytestmark = [
    pytest.mark.skipif(not (_BIN / "musterctl").exists(), reason="needs make setup: pages name commands"),
    pytest.mark.timeout(240),
]


def block(page: str, heading: str, number: int = 0) -> str:
    """The commands of a block below a heading."""
    return re.findall(r"(?ms)^```sh\n(.*?)^```$", section(page, heading))[number]


def section(page: str, heading: str) -> str:
    text = (ROOT / "docs" / "run" / f"{page}.md").read_text(encoding="utf-8")
    return re.split(rf"(?m)^#+ {heading}$", text)[1].split("\n## ")[0]


class Shell:
    """A shell on a machine whose hosts have other addresses than the pages'."""

    def __init__(self, hosts: LocalCluster, folder: Path) -> None:
        self._base, self._folder = hosts.base_port, folder
        self._env = {
            **environment(), "PATH": f"{_BIN}:{os.environ['PATH']}", "ETCDCTL_COMMAND_TIMEOUT": "30s",
            "ETCDCTL_DIAL_TIMEOUT": "30s",  # bounds logins
            "ETCDCTL_ENDPOINTS": ",".join(hosts.endpoints()), "MUSTER_CPUS": "none", "MUSTER_FRONTS": "0",
        }  # fmt: skip

    def here(self, commands: str) -> str:
        """The commands with the addresses and paths of this machine."""
        commands = re.sub(r"10\.0\.0\.(\d):2379", lambda a: f"127.0.0.1:{self._port(a[1])}", commands)
        commands = re.sub(r"10\.0\.0\.(\d):2380", lambda a: f"127.0.0.1:{self._port(a[1]) + 1}", commands)
        return commands.replace("/var/lib/muster", str(self._folder / "data"))

    def _port(self, address: str) -> int:
        return self._base + 100 * (int(address) - 1)

    def paste(self, commands: str) -> subprocess.CompletedProcess[str]:
        """Run them to their end."""
        line = ["bash", "-ec", self.here(commands)]
        return subprocess.run(line, capture_output=True, text=True, check=False, cwd=self._folder,
                              env=self._env, timeout=_STEP_S)

    def ok(self, commands: str) -> str:
        """The same, which must succeed; what it prints."""
        done = self.paste(commands)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def start(self, commands: str) -> subprocess.Popen[bytes]:
        """Run a host in the background."""
        with open(self._folder / "h3.log", "ab") as log:
            return subprocess.Popen(["bash", "-ec", "exec " + self.here(commands)], stdout=log, stderr=log,
                                    cwd=self._folder, env=self._env)


def test_operators_paste_what_the_pages_have(tmp_path: Path) -> None:
    base = free_base_port(4, 1)
    with local_cluster(tmp_path / "hosts", 3, "--shards=1", "--fronts=0", base_port=base, cold=True) as hosts:
        shell = Shell(hosts, tmp_path)
        shell.ok("musterctl put /service/web here")
        _look(shell)
        _save_and_restore(shell, tmp_path)
        _add_and_remove(shell)
        _grow(shell)
        _users(shell)


def test_operators_paste_what_makes_room(tmp_path: Path) -> None:
    words = re.findall(r"`((?:musterctl|printf) [^`]*)`", section("troubleshoot", "No space"))
    listed, printed, disarm, defrag = (" ".join(command.split()) for command in words)
    fill = "head -c 900000 /dev/urandom | base64 -w0 | musterctl put /no/longer/needed/$RANDOM"
    flags = ("--quota-backend-bytes=4000000",)
    with local_cluster(tmp_path / "hosts", 1, "--shards=1", "--fronts=0", extra=flags) as hosts:
        shell = Shell(hosts, tmp_path)
        until(lambda: "mvcc: database space exceeded" in shell.paste(fill).stderr, _STEP_S)
        (number,) = until(lambda: re.findall(r"memberID:(\d+) alarm:NOSPACE", shell.ok(listed)), _STEP_S)
        member = shell.ok(printed.replace("ID", number)).strip()
        assert shell.ok("musterctl member list").startswith(f"{member}, ")
        shell.ok(block("troubleshoot", "No space"))
        shell.ok(disarm)
        shell.ok(defrag)
        until(lambda: not shell.paste(f"{disarm} && musterctl put k v").returncode, _STEP_S)
        assert shell.ok(listed) == ""


def _grow(shell: Shell) -> None:
    shell.ok(block("growth", "Before the first shard"))
    printed = shell.ok(block("growth", "Add"))
    assert re.search(r"\| +1 \| serving \|", printed)
    assert printed.count("|     1 | host") == 3, "it is listed on each host"
    moved = shell.ok(block("growth", "Move keys"))
    assert moved.count("| switched |") == 4, "each is told when it ends, and listed"
    _compact(shell)  # keys go back, and there are no others who can take them
    assert re.search(r"\| +1 \| retiring \|", shell.ok(block("growth", "Retire")))
    _compact(shell)
    assert re.search(r"\| +1 \| dropped \|", shell.ok(block("growth", "Retire")))


def _compact(shell: Shell) -> None:
    revision = json.loads(shell.ok("musterctl put after moves -w json"))["header"]["revision"]
    shell.ok(f"musterctl compaction {revision}")


def _look(shell: Shell) -> None:
    shown = shell.ok(block("monitor", "Health"))
    assert shown.count(" is healthy: ") == 3
    assert "IS LEADER" in shown
    assert "FEED FROM" in shown
    assert shown.endswith('{"health":"true","reason":""}')


def _save_and_restore(shell: Shell, folder: Path) -> None:
    shell.ok(block("backup", "Save"))
    shell.ok(block("backup", "Restore"))
    assert (folder / "data" / "member" / "identity.json").exists()
    shell.ok("rm -r /var/lib/muster")


def _add_and_remove(shell: Shell) -> None:
    add, start = (block("members", "Add a host", number) for number in (0, 1))
    until(lambda: shell.paste(add).returncode == 0, _STEP_S)  # hosts are to be connected for five seconds
    members = ",".join(f"host{i}=http://10.0.0.{i + 1}:2380" for i in range(3))
    host = shell.start(start.replace(" \\\n  --peer-key-file /etc/muster/cluster.keys", "")
                       .replace("$CLUSTER", members))
    try:
        get = "musterctl --endpoints 10.0.0.4:2379 get --print-value-only /service/web"
        until(lambda: host.poll() is not None or shell.paste(get).stdout == "here\n", _STEP_S)
        assert host.poll() is None
        # it serves before every host has heard its name
        listed = until(lambda: [
            line for line in shell.ok("musterctl member list").splitlines() if " h3," in line], _STEP_S)
        added = listed[0]
        remove = block("members", "Remove a host").replace("8e9e05c52164694d", added.partition(",")[0])
        until(lambda: shell.paste(remove).returncode == 0, _STEP_S)
        assert host.wait(_STEP_S) == 0
    finally:
        host.kill()
        host.wait()


def _users(shell: Shell) -> None:
    shell.ok(block("security", "Users"))
    get = "musterctl get --print-value-only /service/web"
    assert shell.paste(get).returncode != 0
    assert shell.ok(f"{get} --user alice:SECRET") == "here\n"
    assert shell.paste("musterctl put /service/web x --user alice:SECRET").returncode != 0
