"""Clusters that are set up wrongly, in real processes, and what each host's log has to say of it.

docs/run/troubleshoot.md has a row for each. ``python -m tests.cluster.starting.misconfigurations`` runs all
of them and prints what every host logs.
"""

from __future__ import annotations

import contextlib
import json
import re
import socket
import subprocess
import sys
import tempfile
import textwrap
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests import forks
from tests.cluster.local_cluster import ROOT, command, environment, free_base_port
from tools.muster import peer_keys
from tools.muster.host import rundir

LIMIT_S = 60.0  # the first minute
PAGE = ROOT / "docs" / "run" / "troubleshoot.md"
_TABLE = "| the log says | cause |\n|---|---|\n"
HOSTS = 3
_LOUD = re.compile(r"\t(warn|error|fatal)\t|^muster: ")
_DULL = ("without TLS", "no data-dir provided", "the minimum")
_SHOWN = 6  # lines of each host
_SERVES = "ready to serve client requests"
_WIDEST = 300  # of a line
_COLUMNS = 110  # of the page


@dataclass
class Host:
    """One process: how it is started, and what its log has to say: each pattern in one line."""

    name: str
    arguments: list[str]
    expected: list[str]
    log: Path
    runs: bool = True  # else it is expected to refuse to start
    process: subprocess.Popen[bytes] | None = None

    def lines(self) -> list[str]:
        """All that it has logged."""
        return self.log.read_text(errors="replace").splitlines() if self.log.exists() else []

    def missing(self) -> list[str]:
        """Patterns that no line has matched."""
        lines = self.lines()
        return [pattern for pattern in self.expected if not any(re.search(pattern, line) for line in lines)]


@dataclass
class Setting:
    """Three hosts at loopback, set up well; a case spoils it."""

    folder: Path
    base: int = 0
    hosts: list[Host] = field(default_factory=list)
    blockers: list[socket.socket] = field(default_factory=list)
    # command lines to run first, until a line is there, and what to do then
    before: list[tuple[list[str], str, Callable[[], None]]] = field(default_factory=list)
    after: Callable[[], None] | None = None  # what has to hold besides, once every host has said its cause
    late: int | None = None  # the host that starts once the others serve

    def __post_init__(self) -> None:
        self.base = free_base_port(HOSTS, 2)
        self.hosts = [Host(f"h{i}", self.arguments(i), [], self.folder / f"h{i}.log") for i in range(HOSTS)]

    def client(self, host: int) -> str:
        """A host's URL for clients."""
        return f"http://127.0.0.1:{self.base + 100 * host}"

    def peer(self, host: int) -> str:
        """A host's URL for peers."""
        return f"http://127.0.0.1:{self.base + 100 * host + 1}"

    def cluster(self, *hosts: int) -> str:
        """An --initial-cluster."""
        return ",".join(f"h{i}={self.peer(i)}" for i in hosts or range(HOSTS))

    def arguments(self, host: int) -> list[str]:
        """A host's command line, as it should be."""
        return [f"--name=h{host}", f"--data-dir={self.folder / f'h{host}'}",
                f"--listen-client-urls={self.client(host)}",
                f"--advertise-client-urls={self.client(host)}", f"--listen-peer-urls={self.peer(host)}",
                f"--initial-advertise-peer-urls={self.peer(host)}", f"--initial-cluster={self.cluster()}",
                "--initial-cluster-token=right", "--shards=1", "--fronts=0", "--cpus=none",
                "--log-format=console", "--port-wait=1s"]

    def give(self, host: int, flag: str, value: str) -> None:
        """Have a host started with another value of a flag."""
        arguments = self.hosts[host].arguments
        arguments[:] = [a for a in arguments if not a.startswith(f"--{flag}=")] + [f"--{flag}={value}"]

    def expect(self, host: int, *patterns: str, runs: bool = True) -> None:
        """What a host's log has to say; ``runs``: else it ends, and says so in one line."""
        self.hosts[host].expected += patterns
        self.hosts[host].runs = runs

    def absent(self, host: int) -> None:
        """A host that nobody starts."""
        self.hosts = [h for h in self.hosts if h.name != f"h{host}"]

    def keys(self, name: str) -> str:
        """A key file."""
        path = self.folder / name
        if not path.exists():
            peer_keys.generate(str(path))
        return str(path)

    def take(self, port: int) -> None:
        """Have somebody else listen at a port."""
        blocker = socket.create_server(("127.0.0.1", port))
        self.blockers.append(blocker)

    def keep(self, host: int, value: str) -> None:
        """Write a key at a host."""
        request = urllib.request.Request(
            f"{self.client(host)}/v2/keys/whose", f"value={value}".encode(), method="PUT")
        urllib.request.urlopen(request, timeout=LIMIT_S).close()

    def kept(self, host: int) -> str:
        """The same key, as a host and its cluster have it."""
        with urllib.request.urlopen(f"{self.client(host)}/v2/keys/whose?quorum=true", timeout=LIMIT_S) as got:
            return str(json.load(got)["node"]["value"])

    def plain(self, line: str) -> str:
        """A line as it stands in a transcript: the hosts at addresses of their own, paths short."""
        for i in range(HOSTS):
            line = line.replace(f"127.0.0.1:{self.base + 100 * i + 2}", f"10.0.0.{i + 1}:2381")
            line = line.replace(f"127.0.0.1:{self.base + 100 * i + 1}", f"10.0.0.{i + 1}:2380")
            line = line.replace(f"127.0.0.1:{self.base + 100 * i}", f"10.0.0.{i + 1}:2379")
        for i in range(HOSTS):
            line = line.replace(f"{self.base + 100 * i + 1}", "2380")
        return line.replace(str(self.folder), "/var/lib")


def _not_reached(name: str, why: str) -> str:
    return rf"(cannot reach a peer|lost a peer)\t.*peer={name}\taddress=127\.0\.0\.1:\d+\t.*{why}"


ANOTHER_KEY = "the other host has another peer key.*every host needs the same --peer-key-file"
OTHER_PORT = (
    "it (accepts connections, but does not answer as a peer|does not speak ZMTP)"
    ".*one side is no peer port of muster: compare --initial-cluster and --listen-peer-urls")
NO_LEADER = "no leader: this host does not reach a majority of the members"
REFUSES = "it refuses this host: cluster ID mismatch.*compare --initial-cluster-token and --initial-cluster"


def other_key(s: Setting) -> None:
    """h2 has another key file"""
    for host in range(HOSTS):
        s.give(host, "peer-key-file", s.keys("theirs.json" if host == 2 else "ours.json"))
    s.expect(0, _not_reached("h2", ANOTHER_KEY))
    s.expect(1, _not_reached("h2", ANOTHER_KEY))
    s.expect(2, _not_reached("h0", ANOTHER_KEY), _not_reached("h1", ANOTHER_KEY), NO_LEADER)


def no_key(s: Setting) -> None:
    """h2 was started without the key file"""
    wants = "hint=either every host has a --peer-key-file, or none"
    for host in range(2):
        s.give(host, "peer-key-file", s.keys("ours.json"))
        s.expect(host, _not_reached("h2", "there is a peer key here.*" + wants))
    s.expect(2, _not_reached("h0", wants), _not_reached("h1", wants))


def other_token(s: Setting) -> None:
    """h2 has another --initial-cluster-token"""
    s.give(2, "initial-cluster-token", "wrong")
    for host in range(2):
        s.expect(host, _not_reached("h2", REFUSES),
                 "refused a peer\t.*cluster ID mismatch .*--initial-cluster-token")
    s.expect(2, _not_reached("h0", REFUSES), _not_reached("h1", REFUSES), NO_LEADER)


def other_members(s: Setting) -> None:
    """h2's --initial-cluster does not name h1"""
    s.give(2, "initial-cluster", s.cluster(0, 2))
    s.expect(0, _not_reached("h2", REFUSES), "refused a peer\t.*peer=h2\t.*names other members")
    s.expect(1, _not_reached("h2", REFUSES))
    s.expect(2, _not_reached("h0", REFUSES))


def other_name(s: Setting) -> None:
    """h2 has a --name that is not in --initial-cluster"""
    s.give(2, "name", "h9")
    for host in range(2):
        s.expect(host, _not_reached("h2", "Connection refused"))
    s.expect(2, 'couldn\'t find local name "h9" in the initial cluster', runs=False)


def client_port(s: Setting) -> None:
    """--initial-cluster names h2's client port"""
    wrong = s.cluster(0, 1) + f",h2={s.client(2)}"
    for host in range(HOSTS):
        s.give(host, "initial-cluster", wrong)
    s.give(2, "initial-advertise-peer-urls", s.client(2))
    for host in range(2):
        s.expect(host, _not_reached("h2", OTHER_PORT))
    s.expect(2, "no leader, although this host reaches a majority of the members"
             ".*see in the other hosts' logs whether they reach")


def one_down(s: Setting) -> None:
    """h2 is not started"""
    s.absent(2)
    for host in range(2):
        s.expect(host, _not_reached("h2", "Connection refused"), r"leader changed\t.*name=h[01]\t")


def majority_down(s: Setting) -> None:
    """h1 and h2 are not started"""
    s.absent(1)
    s.absent(2)
    s.expect(0, _not_reached("h1", "Connection refused"), _not_reached("h2", "Connection refused"),
             r"no leader: this host does not reach a majority of the members\t.*reached=\[\]\t"
             r"not_reached=(?=.*h1)(?=.*h2).*members=3\tneeded=2")


def port_taken(s: Setting) -> None:
    """another program listens at h2's peer port"""
    s.take(s.base + 201)
    for host in range(2):
        s.expect(host, _not_reached("h2", OTHER_PORT))
    s.expect(2, r"listen tcp 127\.0\.0\.1:\d+: bind: address already in use", runs=False)


def other_data(s: Setting) -> None:
    """h2 has a data directory of another cluster"""
    alone = [a for a in s.arguments(2)
             if not a.startswith(("--initial-cluster=", "--initial-cluster-token="))]
    alone += [f"--initial-cluster={s.cluster(2)}", "--initial-cluster-token=another"]
    s.before.append((alone, _SERVES, lambda: s.keep(2, "theirs")))
    for host in range(2):
        s.expect(host, _not_reached("h2", REFUSES))
    s.expect(2, "the data directory names other members than the flags, and takes precedence"
             ".*members=h2=", "refused a peer")

    def apart() -> None:
        s.keep(0, "ours")
        assert [s.kept(host) for host in range(HOSTS)] == ["ours", "ours", "theirs"]

    s.after = apart


def other_shards(s: Setting) -> None:
    """h2 was given another number of shards"""
    s.give(2, "shards", "2")
    s.late = 2  # whoever leads first says how many there are
    s.expect(2, r"(?i)this cluster (has|was made with) 1 shard", runs=False)
    for host in range(2):
        s.expect(host, "refused a (front|peer)|(cannot reach a peer|lost a peer)\t.*peer=h2")


def own_ports(s: Setting) -> None:
    """h2's metrics port is its peer port"""
    s.hosts = s.hosts[2:]
    s.hosts[0].arguments += ["--shards=2", f"--listen-metrics-urls=http://127.0.0.1:{s.base + 201}"]
    s.hosts[0].arguments.remove("--shards=1")
    s.hosts[0].expected.append(r"would both listen on 127\.0\.0\.1:\d+")
    s.hosts[0].runs = False


def open_port(s: Setting) -> None:
    """h2 listens for peers beyond this machine, without a key file"""
    s.give(2, "listen-peer-urls", f"http://0.0.0.0:{s.base + 201}")  # and names h0 and h1
    s.expect(2, "give every host the same --peer-key-file .* or say --peer-insecure", runs=False)
    s.hosts = s.hosts[2:]


CASES: Sequence[Callable[[Setting], None]] = (
    other_key, no_key, other_token, other_members, other_name, client_port, one_down, majority_down,
    port_taken, other_data, other_shards, own_ports, open_port,
)


def on_the_page() -> dict[str, list[tuple[str, str]]]:
    """What the page has a host log: (host, pattern of one line) by cause, which is a case's docstring."""
    found: dict[str, list[tuple[str, str]]] = {}
    for row in PAGE.read_text(encoding="utf-8").split(_TABLE)[1].split("\n\n")[0].splitlines():
        said, cause = row.strip("| ").split(" | ")
        for part in said.split("<br>"):
            hosts, _, spans = part.partition(": ")
            line = "^" + "".join(f"(?=.*{re.escape(span)})" for span in re.findall("`([^`]+)`", spans))
            found.setdefault(cause, []).extend((host, line) for host in hosts.split(", "))
    return found


@contextlib.contextmanager
def running(case: Callable[[Setting], None], folder: Path) -> Iterator[Setting]:
    """The hosts of a case, started."""
    setting = Setting(folder)
    case(setting)
    try:
        for arguments, until, then in setting.before:
            _run_first(setting, arguments, until, then)
        late = [host for host in setting.hosts if host.name == f"h{setting.late}"]
        for host in setting.hosts:
            if host not in late:
                host.process = _start(host.arguments, host.log)
        for host in late:
            for other in setting.hosts:
                if other is not host:
                    _until_logged(other.log, _SERVES)
            host.process = _start(host.arguments, host.log)
        yield setting
    finally:
        for host in setting.hosts:
            if host.process is not None:
                host.process.terminate()
        for host in setting.hosts:
            if host.process is not None:
                try:
                    host.process.wait(30)
                except subprocess.TimeoutExpired:
                    host.process.kill()
        for blocker in setting.blockers:
            blocker.close()
        for data in folder.iterdir():
            if data.is_dir():
                rundir.remove_run_dir(str(data), rundir.run_dir_of(str(data)))


def _start(arguments: Sequence[str], log: Path) -> subprocess.Popen[bytes]:
    with open(log, "ab") as file:
        return forks.popen(command(*arguments), stdin=subprocess.DEVNULL, stdout=file, stderr=file,
                           env=environment(), dies=True)


def _run_first(
    setting: Setting, arguments: Sequence[str], until: str, then: Callable[[], None]
) -> None:
    log = setting.folder / "before.log"
    process = _start(arguments, log)
    _until_logged(log, until)
    then()
    process.terminate()
    assert process.wait(30) == 0


def _until_logged(log: Path, line: str) -> None:
    deadline = time.monotonic() + LIMIT_S
    while line not in log.read_text(errors="replace"):
        assert time.monotonic() < deadline, log.read_text(errors="replace")
        time.sleep(0.05)


def await_causes(setting: Setting) -> dict[str, list[str]]:
    """Wait until every host has said what it has to; what is missing, by host, once the limit has passed."""
    deadline = time.monotonic() + LIMIT_S
    while ((missing := {h.name: m for h in setting.hosts if (m := h.missing())})
            and time.monotonic() < deadline):
        time.sleep(0.1)
    for host in setting.hosts:
        if not host.runs and not missing:
            assert host.process is not None
            assert host.process.wait(30) == 1, host.lines()
    return missing


def transcript(case: Callable[[Setting], None], setting: Setting) -> str:
    """What each host said: the lines that are no news of a healthy host, cut to what fits a page."""
    parts = [f"## {(case.__doc__ or '').strip()}\n"]
    for host in setting.hosts:
        seen: list[str] = []
        for line in host.lines():
            wanted = _LOUD.search(line) or any(re.search(pattern, line) for pattern in host.expected)
            if wanted and not any(dull in line for dull in _DULL):
                seen.append(_cut(setting.plain(line)))
        ended = "" if host.runs else " (ends with exit code 1)"
        shown = "\n".join(list(dict.fromkeys(seen))[:_SHOWN])
        parts.append(f"{host.name}{ended}:\n\n```\n{shown}\n```\n")
    return "\n".join(parts)


def _cut(line: str) -> str:
    """Level, message and fields; no time, and no caller."""
    words = line.split("\t")
    if len(words) > 3:
        fields = [word for word in words[4:] if not word.startswith(("host=", "process=", "member="))]
        line = "  ".join([f"{words[1]:<5}", words[3], *fields])
    return _wrapped(line if len(line) <= _WIDEST else line[:_WIDEST] + " ...")


def _wrapped(line: str) -> str:
    """As lines of a page, broken between fields and, where one is long, between words."""
    fill = textwrap.TextWrapper(
        _COLUMNS, subsequent_indent=" " * 7, break_long_words=False, break_on_hyphens=False)
    shown = [""]
    for field_ in re.split(r"  (?=\S+=)", line):
        joined = f"{shown[-1]}  {field_}" if shown[-1] else field_
        if len(joined) <= _COLUMNS:
            shown[-1] = joined
        else:
            shown += [f"{'':7}{field_}"] if shown[-1] else [field_]
    return "\n".join(part for one in shown for part in fill.wrap(one) if part)


def main() -> None:
    """Run all cases and print what they log."""
    for case in CASES:
        with (
            tempfile.TemporaryDirectory(prefix="muster-wrong-") as folder,
            running(case, Path(folder)) as setting,
        ):
            missing = await_causes(setting)
            assert not missing, (case.__name__, missing)
            print(transcript(case, setting))
            print(case.__name__, file=sys.stderr)


if __name__ == "__main__":
    main()
