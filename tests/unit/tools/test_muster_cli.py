"""The command line as a user meets it: exit codes, one line of error, and what `local` does when nothing
runs."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import structlog
from structlog.testing import capture_logs

from cluster.version import ETCD_VERSION, MUSTER_VERSION
from tools.muster import cli
from tools.muster.config.flags import SERVER_FLAGS
from tools.muster.config.kinds import Support
from tools.muster.config.parse import ConfigError, UsageError, Values, parse_arguments, resolve
from tools.muster.config.settings import ServerConfig, build
from tools.muster.flag_docs import SERVER_USAGE
from tools.muster.gateway.cli import FLAGS as GATEWAY_FLAGS
from tools.muster.host import ports, rundir
from tools.muster.local import commands as local_cli
from tools.muster.local import layout
from tools.muster.proxy_mode import start

ROOT = Path(__file__).parents[3]
REFUSED = [f for f in SERVER_FLAGS.values() if f.support is Support.REFUSED]


def muster(folder: Path, *args: str, **environ: str) -> subprocess.CompletedProcess[str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("ETCD_", "MUSTER_"))}
    return subprocess.run(
        [sys.executable, "-m", "tools.muster.cli", *args], cwd=folder, capture_output=True, text=True,
        timeout=60,
        env={**kept, "PYTHONPATH": str(ROOT), **environ}, check=False,
    )  # fmt: skip


def test_a_gateway_at_a_name_that_cannot_be(tmp_path: Path) -> None:
    ended = muster(tmp_path, "gateway", "start", "--listen-addr=a..b:1")
    assert (ended.returncode, ended.stderr) == (1, "muster: listen tcp: lookup a..b: no such host\n")


def test_a_gateway_has_all_endpoints_that_are_given_and_etcds_code_for_wrong_flags(tmp_path: Path) -> None:
    given, rest = parse_arguments(GATEWAY_FLAGS, ["--endpoints=a:1", "--endpoints", "b:2,c:3"])
    assert (given, rest) == ({"endpoints": "a:1,b:2,c:3"}, [])
    ended = muster(tmp_path, "gateway", "start", "--nosuch")
    assert (ended.returncode, ended.stderr) == (1, "muster: flag provided but not defined: -nosuch\n")


def test_a_digit_that_is_no_ascii_is_no_number() -> None:
    with pytest.raises(UsageError, match='invalid value "²" for flag -shard: parse error'):
        local_cli._number(Values({"shard": "²"}), "shard")


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM, signal.SIGVTALRM])
def test_signals_that_a_program_in_go_ignores_end_no_host(number: signal.Signals, tmp_path: Path) -> None:
    program = (
        "import os, subprocess\n"
        "from tools.muster import cli\n"
        "def run(line):\n"
        f"    os.kill(os.getpid(), {number})\n"
        f"    return -subprocess.call(['sh', '-c', 'kill -{number} $$'])\n"
        "cli._dispatch = run\n"
        "cli.main()")  # fmt: skip
    ended = subprocess.run([sys.executable, "-c", program], check=False, timeout=60, cwd=ROOT)
    assert ended.returncode == number  # that of the other program, which has the default action


@pytest.mark.parametrize("closed", ["<&- >&- 2>&-", ">&-", "2>&-", "<&- 2>&-"])
def test_streams_that_are_closed_lead_nowhere(closed: str, tmp_path: Path) -> None:
    """A socket or a lock file took their numbers; libuv and the log ended the process then."""
    (tmp_path / "program.py").write_text(
        "import subprocess, sys\n"
        "from tools.muster import cli\n"
        "look = 'import os; found = [os.readlink(f\"/proc/self/fd/{n}\") for n in range(3)];'\n"
        "tell = 'open(\"said\", \"w\").write(chr(10).join(found))'\n"
        "cli._dispatch = lambda line: subprocess.call([sys.executable, '-c', look + tell])\n"
        "cli.main()")  # fmt: skip
    kept = tmp_path / "kept"
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    with kept.open("wb") as out:
        ended = subprocess.run(
            ["sh", "-c", f"{sys.executable} program.py {closed}"], check=False, cwd=tmp_path, stdout=out,
            stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=60,
            env={**os.environ, "PYTHONPATH": path})  # fmt: skip
    assert ended.returncode == 0
    output = str(kept) if closed in ("2>&-", "<&- 2>&-") else os.devnull
    assert (tmp_path / "said").read_text().splitlines() == [os.devnull, output, os.devnull]


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (("--nope",), 2, "flag provided but not defined: -nope"),
        (("--snapshot-count=x",), 2, 'invalid value "x" for flag -snapshot-count'),
        (("stray",), 1, "'stray' is not a valid flag"),
        (("--version", "stray"), 1, "error verifying flags, 'stray' is not a valid flag"),
        (
            ("--heartbeat-interval=300",), 1,
            "error verifying flags, --election-timeout[1000ms] should be at least as 5 times",
        ),
        *(((f"--{flag.name}=x",), 1, f"--{flag.name} is not supported (") for flag in REFUSED),
        (
            ("--listen-client-urls=https://127.0.0.1:2379", "--advertise-client-urls=https://127.0.0.1:2379"),
            1,
            "TLS key/cert (--cert-file, --key-file) must be provided for client url "
            "https://127.0.0.1:2379 with HTTPS scheme",
        ),
        (("--config-file=/nowhere",), 1, "cannot read --config-file /nowhere"),
        (("--listen-client-urls=http://127.0.0.1:2379",), 1, "--advertise-client-urls is required"),
        (("local", "fly"), 2, 'unknown command "fly" for "muster local": usage: muster local [status |'),
        (("local", "--hosts=1", "3"), 2, 'unknown command "3" for "muster local"'),
        (("local", "status"), 1, "no local cluster in local.muster"),
        (("local", "stop", "0"), 1, "no local cluster in local.muster"),
        (("local", "stop", "0", "--shard=1"), 2, "--shard and --front are of `muster local kill` alone"),
        (("local", "start", "0", "--front=1"), 2, "--shard and --front are of `muster local kill` alone"),
        (("local", "--front=1"), 2, "--shard and --front are of `muster local kill` alone"),
        (("local", "kill", "0", "--shard=1", "--front=1"), 2, "give either --shard or --front"),
        (("local", "kill", "0", "--shard="), 2, 'invalid value "" for flag -shard: parse error'),
        (("local", "kill", "0", "--front=x"), 2, 'invalid value "x" for flag -front: parse error'),
        (("local", "--hosts=0"), 1, "--hosts must be 1 to 99"),
        (("local", "--shards=1000"), 1, "--shards=1000 is not supported yet: at most 64"),
        (("local", "--base-port=65500"), 1, "leaves no room for the ports of 3 hosts"),
        (("local", "--colour"), 2, "flag provided but not defined: -colour"),
        *((("proxy", *words), 1, "give either --endpoints or --initial-cluster a value")
          for words in ((), ("--endpoints=",), ("--endpoints=,",), ("--initial-cluster=, ", "--shards=1"),
                        ("--endpoints=127.0.0.1:1", "--initial-cluster=a=http://127.0.0.1:1"))),
        (
            ("proxy", "--initial-cluster-state=new"), 2,
            "flag provided but not defined: -initial-cluster-state",
        ),
        (("peer-keys",), 2, "usage: muster peer-keys [--add|--rotate|--drop] FILE"),
        (("peer-keys", "/nowhere/keys"), 1, "cannot write /nowhere/keys"),
    ],
    ids=lambda v: " ".join(v) if isinstance(v, tuple) else None,
)
def test_an_error_is_a_line_and_an_exit_code(
    args: tuple[str, ...], code: int, message: str, capsys: pytest.CaptureFixture[str], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.run(list(args)) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("muster: ")
    line, _, more = err.partition("\n")
    assert message in line
    if code == 2 and args[0].startswith("-"):  # as etcd, a server shows its usage where it cannot read a flag
        assert more == f"{SERVER_USAGE}\n"
        assert len(err.splitlines()) == 5, "what the end of a log shows"
    else:
        assert more == ""


def test_a_peer_port_without_a_key_is_refused_in_the_words_of_the_configuration_file(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is given beside the file, or where the file does not have it, is named."""
    monkeypatch.setenv("MUSTER_PEER_KEY_FILE", "kk")
    file = tmp_path / "c.yml"
    urls = {n: f"http://192.0.2.{n}:2380" for n in (1, 2)}
    file.write_text(
        f"listen-peer-urls: {urls[1]}\ninitial-advertise-peer-urls: {urls[1]}\npeer-key-file: kk\n"
        f"initial-cluster: default={urls[1]},b={urls[2]}\n", encoding="utf-8")
    assert cli.run([f"--config-file={file}", "--peer-insecure"]) == 1
    said = capsys.readouterr().err
    assert "peer-transport-security: {key-file: FILE}" in said
    assert "or say peer-insecure: true (" in said
    for vain in ("--peer-insecure is ignored: ", "MUSTER_PEER_KEY_FILE is ignored: "):
        assert vain in said
    assert f"unrecognized key peer-key-file in {file}" in said
    assert said.count("\n") == 1
    secured = "peer-transport-security: {key-file: kk}\n"
    file.write_text(file.read_text(encoding="utf-8") + secured, encoding="utf-8")
    assert build(resolve(SERVER_FLAGS, [f"--config-file={file}"], {})).peer_key_file == "kk"


def test_version_has_etcds_four_lines_and_ours(tmp_path: Path) -> None:
    for args in (("--version",), ("-version",), ("version",)):
        done = muster(tmp_path, *args)
        lines = done.stdout.splitlines()
        assert done.returncode == 0
        assert (lines[0], lines[4]) == (f"etcd Version: {ETCD_VERSION}", f"muster Version: {MUSTER_VERSION}")
        assert [line.split(": ")[0] for line in lines[1:4]] == ["Git SHA", "Go Version", "Go OS/Arch"]


@pytest.mark.parametrize(
    "args", [("--help",), ("-h",), ("help",), ("--name=a", "--help", "--heartbeat-interval=300")]
)
def test_help_comes_on_stdout(args: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(list(args)) == 0
    out, err = capsys.readouterr()
    assert "--listen-client-urls" in out
    assert err == ""


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("local", "--help"), "Flags:"),
        (("proxy", "--help"), "A front on a machine without a member"),
        (("peer-keys", "--help"), "muster peer-keys FILE"),
        (("peer-keys", "-h"), "muster peer-keys FILE"),
    ],
)
def test_commands_have_their_own_help(
    args: tuple[str, ...], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(list(args)) == 0
    output = capsys.readouterr()
    assert words in output.out
    assert output.err == ""


@pytest.mark.parametrize("file", ["member/identity.json", "proxy/cluster"])
@pytest.mark.parametrize("text", ["a=http://h:1,http://h:2", "x=", "a=http://h:1,b=http://h:1"])
def test_a_list_that_is_ignored_may_be_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str, text: str
) -> None:
    """As at etcd, which reads ``--initial-cluster`` for a new data directory alone."""
    ran: list[ServerConfig] = []
    monkeypatch.setattr(start, "run", lambda settings: ran.append(settings) or 0)
    flags = [f"--initial-cluster={text}", f"--data-dir={tmp_path}"]
    assert cli.run(flags) == 1
    (tmp_path / file).parent.mkdir()
    (tmp_path / file).touch()
    assert cli.run(flags) == 0
    said = "--initial-cluster is ignored, as the data directory names the members: "
    assert [warning.startswith(said) for warning in ran[0].warnings].count(True) == 1, ran[0].warnings


def test_peer_keys_are_made_once(tmp_path: Path) -> None:
    assert muster(tmp_path, "peer-keys", "k").returncode == 0
    again = muster(tmp_path, "peer-keys", "k")
    assert (again.returncode, again.stderr) == (1, "muster: k exists; it is not overwritten\n")


def test_a_taken_port_is_told_in_etcds_words(tmp_path: Path) -> None:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        s.listen(1)
        url = f"http://127.0.0.1:{s.getsockname()[1]}"
        done = muster(
            tmp_path, f"--listen-client-urls={url}", f"--advertise-client-urls={url}",
            "--log-outputs=/dev/null", "--port-wait=100ms",
        )
    assert done.returncode == 1
    assert done.stderr == f"muster: listen tcp {url[7:]}: bind: address already in use\n"


def test_a_port_that_is_still_taken_is_waited_for() -> None:
    """As those of a host's processes that are ending: for longer than a second."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen(1)
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        config = build(
            resolve(SERVER_FLAGS, [f"--listen-client-urls={url}", f"--advertise-client-urls={url}"], {})
        )
        freed = threading.Timer(2.0, taken.close)
        freed.start()
        with capture_logs() as logs:
            ports.check(config, None, structlog.get_logger())
        freed.join()
    assert [line["event"] for line in logs] == ["a port is in use; waiting for it"]


def test_a_second_server_on_the_same_data_is_refused(tmp_path: Path) -> None:
    lock = rundir.DataDirLock(str(tmp_path))
    try:
        done = muster(tmp_path, f"--data-dir={tmp_path}", "--log-outputs=/dev/null")
    finally:
        lock.release()
    assert done.returncode == 1
    assert f"is in use by another muster (process {os.getpid()})" in done.stderr


def test_the_command_line_wins_over_the_environment_without_an_error(tmp_path: Path) -> None:
    done = muster(
        tmp_path, "--heartbeat-interval=300", ETCD_HEARTBEAT_INTERVAL="100", ETCD_ELECTION_TIMEOUT="600"
    )
    assert (
        "--election-timeout[600ms] should be at least as 5 times as --heartbeat-interval[300ms]"
        in done.stderr
    )


def test_ports_of_a_local_cluster(tmp_path: Path) -> None:
    made = layout.plan(str(tmp_path), 3, 4, 2379, 2, ["none"] * 3, ("--log-level=debug",))
    assert [(h.client_port, h.peer_port) for h in made.hosts] == [(2379, 2380), (2479, 2480), (2579, 2580)]
    arguments = made.hosts[1].arguments
    assert "--listen-client-urls=http://127.0.0.1:2479" in arguments
    assert (
        "--initial-cluster=host0=http://127.0.0.1:2380,host1=http://127.0.0.1:2480,host2=http://127.0.0.1:2580"
        in arguments
    )
    assert arguments[-1] == "--log-level=debug"
    layout.save(str(tmp_path), made)
    assert layout.load(str(tmp_path)) == made
    # a host has one peer port, however many shards
    assert layout.plan(str(tmp_path), 3, 64, 65_334, 0, ["none"] * 3, ()).hosts[2].peer_port == 65_535
    with pytest.raises(ConfigError, match="no room"):
        layout.plan(str(tmp_path), 3, 1, 65_335, 0, ["none"] * 3, ())


@pytest.mark.parametrize(
    ("start", "by"),
    [(("tools.muster.cli", "local"), "--base-port=12379, say"),
     (("tools.muster.demo",), "make demo PORT=12379, say")],
)  # fmt: skip
def test_a_new_local_cluster_is_not_begun_on_ports_that_are_taken(
    start: tuple[str, ...], by: str, tmp_path: Path
) -> None:
    """Else its folder would keep these ports, and a start with others would be refused."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        s.listen(1)
        port = s.getsockname()[1]
        done = subprocess.run(
            [sys.executable, "-m", *start, "--data-dir=d", f"--base-port={port}"], cwd=tmp_path,
            capture_output=True, text=True, timeout=60, env={**os.environ, "PYTHONPATH": str(ROOT)},
            check=False,
        )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr == (
        f"muster: listen tcp 127.0.0.1:{port}: bind: address already in use: another program has this port "
        f"of host 0, perhaps an etcd or another muster: end it, or choose other ports with {by}\n"
    )
    assert not (tmp_path / "d").exists()


def test_a_local_clusters_shape_does_not_change(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    layout.save(str(tmp_path), layout.plan(str(tmp_path), 3, 1, 2379, 1, ["none"] * 3, ()))
    for flag in ("--hosts=5", "--base-port=3000", "--shards=2"):
        assert cli.run(["local", f"--data-dir={tmp_path}", flag]) == 1
        assert "it cannot run with" in capsys.readouterr().err


def test_commands_for_a_local_cluster_that_is_down(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    layout.save(str(tmp_path), layout.plan(str(tmp_path), 2, 1, 2379, 1, ["none"] * 2, ()))
    directory = f"--data-dir={tmp_path}"
    for words, message in (
        (["kill", "0"], "host 0 is not running"),
        (["stop", "1"], "host 1 is not running"),
        (["kill", "1", "--shard", "0"], "host 1 is not running"),
        (["start", "0"], "`muster local` is not running"),
        (["kill", "2"], "there is no host 2: they are 0 to 1"),
    ):
        assert cli.run(["local", *words, directory]) == 1
        assert message in capsys.readouterr().err
    assert cli.run(["local", "status", directory]) == 0
    assert "host 0  http://127.0.0.1:2379  down" in capsys.readouterr().out


def test_words_and_flags_of_local_mix(tmp_path: Path) -> None:
    words, values = local_cli._split(["kill", "1", "--shard", "2", "--data-dir", "d"])
    assert (words, values["shard"], values["data-dir"]) == (["kill", "1"], "2", "d")
    with pytest.raises(ConfigError):
        layout.load(str(tmp_path))
