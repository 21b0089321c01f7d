"""The units for systemd are well formed, and an article's one starts a host that says when it serves."""

from __future__ import annotations

import configparser
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.local_cluster import ROOT, command, environment, until
from tests.ports import free_ports
from tools.muster.config.flags import SERVER_FLAGS
from tools.muster.config.parse import resolve

_LIMIT_S = 90.0
_PACKAGING = ROOT / "packaging"
_UNITS = ("muster.service", "article/etcd.service")
_MUSTER = Path(sys.executable).parent / "muster"


def unit(path: Path) -> dict[str, str]:
    """Its section [Service]."""
    found = configparser.ConfigParser(strict=False, interpolation=None)
    found.optionxform = str  # type: ignore[assignment,method-assign]
    found.read(path)
    return dict(found["Service"])


def variables(path: Path) -> dict[str, str]:
    """What systemd reads in an environment file."""
    lines = path.read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


@pytest.mark.parametrize("name", _UNITS)
@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
def test_systemd_finds_nothing_wrong_with_the_unit(name: str, tmp_path: Path) -> None:
    text = (_PACKAGING / name).read_text()
    started = unit(_PACKAGING / name)["ExecStart"]
    copy = tmp_path / Path(name).name
    copy.write_text(text.replace(f"ExecStart={started}", "ExecStart=/bin/true"))  # it is not installed here
    made = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(copy)], capture_output=True, text=True, check=False
    )
    said = [line for line in made.stderr.splitlines() if copy.name in line]
    assert said == []


@pytest.mark.parametrize("name", _UNITS)
def test_one_process_that_lacks_memory_does_not_stop_the_host(name: str) -> None:
    assert unit(_PACKAGING / name)["OOMPolicy"] == "continue"  # systemd's default is "stop"


@pytest.mark.parametrize("name", _UNITS)
def test_a_removed_host_is_not_started_again(name: str) -> None:
    found = unit(_PACKAGING / name)
    assert found["Type"] == "notify"  # whatever ends before READY=1 has failed, with exit code 0 too
    assert found["RestartPreventExitStatus"] == "0"


@pytest.mark.parametrize("variable", ["MUSTER_DATA_DIR", "ETCD_DATA_DIR"])
def test_a_data_directory_in_the_environment_file_wins_over_the_units(variable: str) -> None:
    own = dict(word.split("=", 1) for word in unit(_PACKAGING / "muster.service")["Environment"].split())
    assert resolve(SERVER_FLAGS, [], own)["data-dir"] == "/var/lib/muster"
    assert resolve(SERVER_FLAGS, [], own | {variable: "/srv"})["data-dir"] == "/srv"


@pytest.fixture
def told(tmp_path: Path) -> Iterator[socket.socket]:
    """What systemd would listen to. Its path is short: a socket's has 108 bytes."""
    path = f"/tmp/muster-unit-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(path)
        listener.settimeout(_LIMIT_S)
        try:
            yield listener
        finally:
            os.unlink(path)


@pytest.mark.skipif(not _MUSTER.exists(), reason="needs make setup")
def test_an_articles_folders_are_made_by_the_commands_of_the_page(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "use" / "from-etcd.md").read_text()
    commands = re.search(r"(?ms)^```sh\n(mkdir -p /opt/etcd.*?)^```", page)
    assert commands is not None
    for folder in ("etc/systemd/system", "opt/muster", "usr/local/bin"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "opt/muster/packaging").symlink_to(_PACKAGING)
    for name in ("muster", "musterctl"):
        (tmp_path / "usr/local/bin" / name).symlink_to(_MUSTER.with_name(name))
    here = re.sub(r"(?<![\w./])/(?=(?:etc|opt|usr/local|var)/)", f"{tmp_path}/", commands[1])
    script = f"systemctl() {{ echo $*; }}\n{here}. {tmp_path}/etc/profile\netcdctl --version"
    line = ["bash", "-ec", script]
    made = subprocess.run(line, capture_output=True, text=True, check=True, env=environment())
    assert made.stdout.splitlines()[:3] == ["daemon-reload", "enable etcd", "start etcd"]
    assert made.stdout.endswith("API version: 2\n")
    started = unit(tmp_path / "etc/systemd/system/etcd.service")["ExecStart"]
    assert (tmp_path / started.removeprefix("/")).resolve() == _MUSTER.resolve()
    assert variables(tmp_path / "opt/etcd/config/etcd.conf")["ETCD_DATA_DIR"] == "/var/lib/etcd"


@pytest.mark.timeout(300)
@pytest.mark.skipif(not _MUSTER.exists(), reason="needs make setup")
def test_the_unit_of_an_article_starts_a_host_that_says_when_it_serves(
    told: socket.socket, tmp_path: Path
) -> None:
    service = unit(_PACKAGING / "article/etcd.service")
    assert (service["Type"], service["EnvironmentFile"]) == ("notify", "-/opt/etcd/config/etcd.conf")
    (tmp_path / "etcd").symlink_to(_MUSTER)  # as the article's binary lies in /opt/etcd
    (tmp_path / "etcdctl").symlink_to(_MUSTER.with_name("musterctl"))
    client, peer = (f"http://127.0.0.1:{port}" for port in free_ports(2))
    settings = variables(_PACKAGING / "article/etcd.conf") | {
        "ETCD_NAME": "box",
        "ETCD_DATA_DIR": str(tmp_path / "data"),
        "ETCD_LISTEN_CLIENT_URLS": client,
        "ETCD_ADVERTISE_CLIENT_URLS": client,
        "ETCD_LISTEN_PEER_URLS": peer,
        "ETCD_INITIAL_ADVERTISE_PEER_URLS": peer,
    }
    line = service["ExecStart"].replace("/opt/etcd", str(tmp_path)).split()
    notified = {"NOTIFY_SOCKET": str(told.getsockname())}
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(line, env=environment() | settings | notified, stderr=log, cwd=tmp_path)
    try:
        assert told.recv(100) == b"READY=1"

        def ctl(*words: str) -> str:
            made = subprocess.run(
                [str(tmp_path / "etcdctl"), "--endpoints", client, "--total-timeout", "60s", *words],
                env=environment() | {"ETCDCTL_API": "2"}, capture_output=True, text=True, check=True,
                timeout=_LIMIT_S)  # fmt: skip
            return made.stdout

        assert ctl("set", "/testdir/testkey", "Hello world") == "Hello world\n"
        assert "name=box" in ctl("member", "list")
        process.send_signal(signal.SIGTERM)
        assert told.recv(100) == b"STOPPING=1"
        assert process.wait(_LIMIT_S) == 0
    finally:
        process.kill()
        process.wait()


def as_the_unit_mounts_it(service: dict[str, str]) -> str:
    """What systemd makes writable for a service with ``ProtectSystem=strict``, in words of a shell."""
    assert service["ProtectSystem"] == "strict"
    lines = []
    for base, name in (("/var/lib", "State"), ("/run", "Runtime"), ("/var/log", "Logs")):
        lines.append(f"mount -t tmpfs none {base}")
        if folder := service.get(f"{name}Directory"):
            lines.append(f"mkdir {base}/{folder} && mount --bind {base}/{folder} {base}/{folder}")
        lines.append(f"mount -o remount,bind,ro {base}")
    for folder in ("/tmp", "/var/tmp"):
        lines.append(f"mount -t tmpfs none {folder}")
        if ROOT.is_relative_to(folder):  # this checkout would be hidden
            lines.insert(0, f"exec 9<'{ROOT}'")
            lines.append(f"mkdir -p '{ROOT}' && mount --no-canonicalize --bind /proc/self/fd/9 '{ROOT}'")
        if service.get("PrivateTmp") != "yes":
            lines.append(f"mount -o remount,ro {folder}")
    return "\n".join(["set -e", *lines, "mount -o remount,bind,ro /", 'exec "$@"'])


@pytest.mark.skipif(os.getuid() != 0 or shutil.which("unshare") is None, reason="needs root and unshare")
def test_under_the_unit_a_host_writes_where_the_pages_say(tmp_path: Path) -> None:
    service = unit(_PACKAGING / "muster.service")
    client, peer, console = (f"http://127.0.0.1:{port}" for port in free_ports(3))
    settings = dict(word.split("=", 1) for word in service["Environment"].split()) | {
        "MUSTER_NAME": "box",
        "MUSTER_LISTEN_CLIENT_URLS": f"{client},unix:///run/muster/client.sock",
        "MUSTER_ADVERTISE_CLIENT_URLS": client,
        "MUSTER_LISTEN_PEER_URLS": peer,
        "MUSTER_INITIAL_ADVERTISE_PEER_URLS": peer,
        "MUSTER_INITIAL_CLUSTER": f"box={peer}",
        "MUSTER_CONSOLE": "true",
        "MUSTER_CONSOLE_LISTEN": console,
        "MUSTER_LOG_OUTPUTS": "stderr,/var/log/muster/muster.log",
    }
    line = ["unshare", "--mount", "sh", "-c", as_the_unit_mounts_it(service), "sh", *command()]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            line, env=environment() | {"PYTHONDONTWRITEBYTECODE": "1"} | settings, stdout=log, stderr=log,
            cwd=ROOT)  # fmt: skip

    def answers(url: str) -> bool:
        assert process.poll() is None, (tmp_path / "log").read_text()[-2000:]
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    try:
        until(lambda: answers(f"{client}/health"), _LIMIT_S, look_s=0.5)
        until(lambda: answers(f"{console}/"), look_s=0.5)
        seen = Path(f"/proc/{process.pid}/root")
        assert (seen / "run/muster/client.sock").is_socket()
        assert (seen / "var/log/muster/muster.log").stat().st_size > 0
    except AssertionError as error:
        pytest.fail(f"{error}\n{(tmp_path / 'log').read_text()[-3000:]}")
    finally:
        process.terminate()
        process.wait(_LIMIT_S)
