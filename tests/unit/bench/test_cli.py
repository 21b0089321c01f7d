"""The command line against a real etcd: results, their schema, exit codes."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, get_args

import psutil
import pytest

from bench import cli
from bench.cli import COMMANDS
from bench.client import RpcError, Status
from bench.compare import cli as compare_cli
from bench.compare import page
from bench.load.spec import Spec
from bench.systems.systems import System, find_etcd

ROOT = Path(__file__).parents[3]
NUMBER = (int, float)
#: Field: type, for a dictionary its fields, for a list the type of its items (``bench.load.run``).
RESULT: dict[str, Any] = {
    "schema": str,
    "command": str,
    "interrupted": bool,
    "started_at": str,
    "operations": int,
    "duration_s": float,
    "throughput_per_s": float,
    "errors": dict,
    "settings": dict,
    "machine_busy_percent": float,
    "others_busy_percent": float,
    "latency_ms": dict.fromkeys(("mean", "min", "p50", "p90", "p95", "p99", "p99.9", "max"), NUMBER),
    "histogram_us": [list],
    "timeline": [list],
    "extra": dict,
    "machine": {"cpu": str, "cpus": int, "memory_bytes": int, "kernel": str, "python": str},
    "client": {
        "cpu_s": float,
        "us_per_op": float,
        "busiest_percent": float,
        "reconnects": int,
        "limited": str,
        "processes": [
            {"pid": int, "user_s": float, "system_s": float, "max_rss_bytes": int, "busy_percent": float}
        ],
    },
    "server": {
        "cpu_s": float, "us_per_op": float, "rss_bytes": int, "setup_rss_bytes": int, "written_bytes": int,
        "processes": [{"pid": int, "name": str, "cpu_s": float, "rss_bytes": int, "written_bytes": int}],
    },
}


def bench(*arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "bench.cli", *arguments], capture_output=True, text=True, timeout=100
    )
    assert done.returncode == code, done.stderr
    return done


def result_of(etcd: System, *arguments: str) -> dict[str, Any]:
    result: dict[str, Any] = json.loads(
        bench(*arguments, "--endpoints", ",".join(etcd.endpoints), "--json").stdout
    )
    check_schema(result, RESULT, "result")
    return result


def check_schema(value: Any, schema: Any, where: str) -> None:
    if isinstance(schema, dict):
        assert set(value) == set(schema), where
        for name, inner in schema.items():
            check_schema(value[name], inner, f"{where}.{name}")
    elif isinstance(schema, list):
        assert isinstance(value, list), where
        for item in value:
            check_schema(item, schema[0], f"{where}[]")
    else:
        assert isinstance(value, schema), where


@pytest.mark.parametrize("arguments", [
    ("put", "--total", "500", "--conns", "3", "--clients", "10"),
    ("range", "--total", "500", "--clients", "10", "--key-space-size", "50", "--consistency", "s"),
    ("txn-put", "--total", "500", "--clients", "10", "--txn-ops", "3"),
    ("lease-keepalive", "--total", "500", "--clients", "10", "--leases", "20"),
    ("lease-grant", "--total", "500", "--clients", "10"),
    ("txn-compare", "--total", "500", "--clients", "10", "--key-space-size", "50"),
    ("txn-mixed", "--total", "500", "--clients", "10", "--limit", "5"),
    ("mixed", "--total", "500", "--clients", "10", "--key-space-size", "50", "--rw-ratio", "4"),
    ("scan", "00000000", "00000007", "--total", "500", "--clients", "10", "--page", "2"),
], ids=lambda arguments: arguments[0])
def test_each_command_makes_its_total_and_reports_it(etcd: System, arguments: tuple[str, ...]) -> None:
    result = result_of(etcd, *arguments)
    assert (result["operations"], result["errors"], result["command"]) == (500, {}, arguments[0])
    assert sum(count for _, count in result["histogram_us"]) == 500
    assert sum(count for _, count in result["timeline"]) == 500
    assert result["throughput_per_s"] == pytest.approx(500 / result["duration_s"])
    assert [p["name"] for p in result["server"]["processes"]] == ["etcd"]
    assert result["server"]["processes"][0]["pid"] == etcd.processes[0].pid
    latency = result["latency_ms"]
    assert (
        0 < latency["min"] <= latency["p50"] <= latency["p99"] <= latency["max"] < 1000 * result["duration_s"]
    )
    assert result["client"]["cpu_s"] > 0
    assert 0 <= result["others_busy_percent"] <= result["machine_busy_percent"] <= 100


def test_a_scan_reads_whole_ranges_and_takes_no_limit() -> None:
    assert "limit" in COMMANDS["range"].taken()
    assert "limit" not in COMMANDS["scan"].taken()


def test_watch_latency_has_one_watcher_and_etcds_name_of_an_option() -> None:
    taken = COMMANDS["watch-latency"].taken()
    assert (taken["streams"][1], taken["watchers_per_stream"][1]) == (1, 1)
    assert "--prevkv" in get_args(taken["prev_kv"][0])[1].param_decls


@pytest.mark.parametrize(("command", "default"), [
    ("put", "10000, or no limit with --duration."), ("scan", "10, or no limit with --duration."),
    ("kubernetes", "no limit."),
])  # fmt: skip
def test_the_help_of_a_command_names_its_own_default_total(command: str, default: str) -> None:
    hint, _ = COMMANDS[command].taken()["total"]
    assert get_args(hint)[1].help == f"Number of operations. Default: {default}"


def test_reads_are_as_consistent_as_asked(etcd: System) -> None:
    asked = [result_of(etcd, "range", "--total", "5", "--key-space-size", "5", "--consistency", consistency)
             for consistency in ("l", "s")]
    assert [result["settings"]["serializable"] for result in asked] == [False, True]


def test_options_of_all_commands_may_stand_before_the_command_as_in_etcds_tool(etcd: System) -> None:
    options = (
        "--endpoints=" + ",".join(etcd.endpoints), "--conns", "2", "--sample", "--precise",
        "--dial-timeout=2s",
    )
    said = bench(*options, "put", "--total=50").stdout
    assert "50 operations in" in said
    settings = json.loads(bench(*options, "--json", "put", "--total", "50").stdout)["settings"]
    assert (settings["conns"], settings["dial_timeout_s"]) == (2, 2.0)


def test_a_watch_run_counts_every_event_at_every_watcher_over_two_processes(etcd: System) -> None:
    result = result_of(etcd, "watch", "--streams", "4", "--watchers-per-stream", "5", "--total", "60",
                       "--clients", "2", "--processes", "2", "--prefix", "/w2/", "--key-size", "12")
    assert (result["operations"], result["errors"]) == (60 * 20, {})
    assert result["extra"]["watch_created"]["count"] == 20
    assert result["extra"]["put"]["count"] == 60
    assert len(result["client"]["processes"]) == 2


@pytest.mark.parametrize(("watchers", "streams", "processes"), [(5, 10, 1), (25, 10, 2), (3, 1, 2)])
def test_as_many_watchers_as_asked_catch_up(
        etcd: System, watchers: int, streams: int, processes: int) -> None:
    result = result_of(etcd, "watch-get", "--watchers", str(watchers), "--streams", str(streams),
                       "--clients", "4", "--processes", str(processes))
    assert (result["extra"]["caught_up"]["count"], result["errors"]) == (watchers, {})


def test_watch_latency_runs_at_its_rate(etcd: System) -> None:
    result = result_of(etcd, "watch-latency", "--rate", "200", "--total", "100", "--streams", "3")
    assert (result["operations"], result["errors"]) == (300, {})
    assert 0.45 < result["duration_s"] < 2


def test_several_processes_share_total_and_sequential_keys(etcd: System) -> None:
    result_of(etcd, "put", "--total", "90", "--clients", "9", "--processes", "3", "--sequential-keys",
              "--key-space-size", "90", "--key-prefix", "/seq/", "--key-size", "10")
    counted = result_of(etcd, "range", "/seq/", "/seq0", "--total", "1", "--count-only")
    assert counted["operations"] == 1
    listed = subprocess.run(
        [
            str(Path(sys.executable).parent / "etcdctl"), "--endpoints", etcd.endpoints[0], "get", "/seq/",
            "--prefix", "--keys-only",
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    ).stdout.split()
    assert listed == [f"/seq/{i:05d}" for i in range(90)]


def test_a_run_with_a_duration_ends_by_itself(etcd: System) -> None:
    result = result_of(etcd, "put", "--duration", "0.5", "--clients", "5", "--rate", "300")
    assert result["operations"] == 150
    assert 0.45 < result["duration_s"] < 2


def test_the_text_report_has_figures_bars_and_both_sides(etcd: System) -> None:
    text = bench("put", "--total", "200", "--endpoints", etcd.endpoints[0]).stdout
    for wanted in ("200 operations in", "p99.9", "<=", "#", "server, all", "client", "limited by the client"):
        assert wanted in text


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGINT])
def test_client_processes_end_with_their_parent(etcd: System, sent: signal.Signals) -> None:
    parent = psutil.Popen([sys.executable, "-m", "bench.cli", "put", "--duration", "90", "--clients", "2",
                           "--processes", "2", "--endpoints", etcd.endpoints[0]],
                          stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    workers: list[psutil.Process] = []
    deadline = time.monotonic() + 60
    while not (len(workers) == 2 and all(worker.net_connections("tcp") for worker in workers)):
        assert time.monotonic() < deadline
        time.sleep(0.02)
        workers = parent.children()
    parent.send_signal(sent)
    assert b"Traceback" not in parent.communicate(timeout=60)[1]
    assert psutil.wait_procs(workers, timeout=60)[1] == []


@pytest.mark.parametrize(("arguments", "code", "said"), [
    (("put", "--endpoints", "127.0.0.1:1", "--total", "1"), 1, "127.0.0.1:1: Connection refused"),
    (("put", "--duration", "5 s"), 2, 'invalid duration "5 s"'),
    (("put", "--fail-if", "p98>1ms"), 2, "no figure p98"),
    (("put", "--json", "--csv"), 2, "exclude each other"),
    (("put", "--against", "/nonexistent.json"), 1, "No such file"),
    (("run", "put,scan"), 2, "no test scan"),
    (("put", "--endpoints", "ftp://h:1"), 2, "only http"),
    (("stm", "--isolation", "x"), 2, "isolation must be one of c, r, s, ss"),
    (("watch", "--watched-key-total", "7"), 2, "multiple of the watched keys"),
    (("watch-get", "--streams", "0"), 2, "streams must be at least 1"),
    (("watch-get", "--watchers", "0"), 2, "watchers must be at least 1"),
    (("compare", "--preset", "issue9"), 2, "no preset issue9"),
    (("put", "--total", "0"), 2, "needs an end"),
    (("put", "--key-size", "1"), 2, "10000 keys need 4 digits"),
    (("range", "--consistency", "x"), 2, "--consistency must be l or s"),
    (("put", "--dial-timeout", "5"), 2, 'invalid duration "5"'),
    (("put", "--nonsense",), 2, "No such option"),
    (("compare", "--only", "nothing"), 2, "no cell matches"),
    (("compare", "--etcd", "etcd", "--baseline", "muster"), 2, "exclude each other"),
    (("compare", "--etcd", "etcd", "--preset", "shards"), 2, "compares with muster:1"),
    (("compare", "--etcd", "/nonexistent/etcd"), 2, "/nonexistent/etcd is not an executable"),
    (("compare", "--subject", "zookeeper", "--baseline", "zookeeper"), 2, "zookeeper: neither etcd"),
])
def test_what_cannot_be_done_is_said_with_its_exit_code(
    arguments: tuple[str, ...], code: int, said: str
) -> None:
    done = bench(*arguments, code=code)
    assert said in done.stderr.replace("\n", " ")
    assert done.stdout == ""


def test_compare_takes_turns_and_writes_its_tables(tmp_path: Path) -> None:
    figures = tmp_path / "figures"
    done = bench(
        "compare", "--subject", "etcd", "--rounds", "2", "--duration", "0.3", "--warm-up", "0.1", "--only",
        "put-1,range-s-100", "--key-space-size", "200", "--data-dir", str(tmp_path / "data"), "--tables",
        str(figures), "--json",
    )
    result = json.loads(done.stdout)
    assert [cell["name"] for cell in result["cells"]] == ["put-1", "range-s-100"]
    assert [system["name"] for system in result["systems"]] == ["etcd", "etcd-2"]
    for cell in result["cells"]:
        assert {name: len(runs) for name, runs in cell["runs"].items()} == {"etcd": 2, "etcd-2": 2}
        ratio = cell["ratios"]["etcd-2"]["throughput_per_s"]
        assert 0 < ratio["low"] <= ratio["median"] <= ratio["high"]
        assert all(len(run["server"]["processes"]) == 3 for runs in cell["runs"].values() for run in runs)
    order = [
        line.split(", round ")[0].split(": ")[1] for line in done.stderr.splitlines() if ", round " in line
    ]
    assert order == ["etcd", "etcd-2"] * 4
    assert {file.name for file in figures.iterdir()} == {
        "comparison.tsv", "comparison-processes.tsv", "runs.tsv"}
    text = (figures / "comparison.tsv").read_text()
    assert text.startswith("work\tsystem\tops/s\t")
    assert "\nput, 1 client\tetcd-2 / etcd\t" in text
    assert all(run["counters"]["syncs"] >= 3 for run in result["cells"][0]["runs"]["etcd"])
    assert list((tmp_path / "data").iterdir()) == []  # nothing is left behind


def test_compare_exits_with_1_where_a_turn_failed(etcd: System, tmp_path: Path) -> None:
    tool, saved = tmp_path / "benchmark", tmp_path / "saved.json"
    tool.write_text("#!/bin/sh\nexit 3\n")
    tool.chmod(0o755)
    bench("compare", "--baseline", f"one={etcd.endpoints[0]}", "--subject", f"two={etcd.endpoints[0]}",
          "--preset", "page", "--only", "tool-put-1", "--rounds", "1", "--tool", str(tool), "--save",
          str(saved), code=1)
    [cell] = json.loads(saved.read_text())["cells"]
    assert cell["runs"]["one"] == [{"failed": "etcd's tool ended with code 3: "}]


@pytest.mark.parametrize(("option", "name", "said"), [
    ("--save", "nowhere/x", "No such file"), ("--html", "nowhere/x", "No such file"),
    ("--page", "page.md", "has no line"), ("--tables", "", "does not begin with"),
    ("--tables", "/proc/self", "No such file")])
def test_what_compare_cannot_write_is_found_out_before_the_load(
    option: str, name: str, said: str, tmp_path: Path
) -> None:
    (tmp_path / "page.md").write_text("# Figures\n")
    (tmp_path / "runs.tsv").write_text("something else\n")
    done = bench("compare", "--baseline", "one=127.0.0.1:1", option, str(tmp_path / name), code=2)
    assert said in " ".join(done.stderr.split())


def test_a_page_that_cannot_be_written_is_found_out_before_the_load(tmp_path: Path) -> None:
    class ReadOnly(type(Path())):  # type: ignore[misc]  # root may write all files
        def open(self, mode: str = "r", *more: Any, **named: Any) -> Any:
            if mode != "r":
                raise PermissionError(13, "Permission denied")
            return super().open(mode, *more, **named)

    (tmp_path / "page.md").write_text(page.BEGIN + page.END)
    with pytest.raises(PermissionError):
        compare_cli._prepare(compare_cli._Compared(page=ReadOnly(tmp_path / "page.md")))


@pytest.mark.parametrize(("code", "reported"), [(0, True), (1, True), (2, False)])
def test_the_chart_is_drawn_of_figures_with_errors_too(code: int, reported: bool, tmp_path: Path) -> None:
    told = tmp_path / "told"
    for name, line in (("sh", "exit 0"),  # it would build an etcd
                       ("muster-bench", f'echo "$1" >>{told}; [ "$1" = report ] || exit {code}')):
        (tmp_path / name).write_text(f"#!/bin/sh\n{line}\n")
        (tmp_path / name).chmod(0o755)
    done = subprocess.run(
        ["make", "-o", ".venv/.installed", "-o", "etcd-new", f"BIN={tmp_path}", "benchmarks"], cwd=ROOT,
        capture_output=True, timeout=60, check=False,
        env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "MAKEFLAGS": ""})
    assert told.read_text().split() == ["compare", *["report"] * reported]
    assert (done.returncode == 0) == (code == 0)


def test_compare_names_several_etcds_by_their_versions(etcd: System, tmp_path: Path) -> None:
    (tmp_path / "etcd").symlink_to(find_etcd())
    result = json.loads(bench(
        "compare", "--etcd", "etcd", "--etcd", str(tmp_path), "--subject", f"third={etcd.endpoints[0]}",
        "--hosts", "1", "--rounds", "1", "--duration", "0.2", "--warm-up", "0", "--only", "put-1", "--json",
    ).stdout)
    names = ["etcd 3.5.1", "etcd 3.5.1-2"]
    assert [system["name"] for system in result["systems"]] == [*names, "third"]
    assert result["systems"][1]["version"].startswith("etcd Version: 3.5.1, Go Version: go1.")
    assert result["baselines"] == names
    cell = result["cells"][0]
    assert set(cell["ratios_to"]["third"]) == set(names)
    assert cell["better"]["throughput_per_s"] in names


def test_a_duration_may_have_a_unit_and_several_tests_share_the_options(etcd: System) -> None:
    text = bench("-q", "run", "put,txn-put", "--duration", "300ms", "--clients", "3", "--endpoints",
                 etcd.endpoints[0]).stdout
    assert [line.split(":")[0] for line in text.splitlines()] == ["put, 3 clients", "txn-put, 3 clients"]
    assert all(" operations in 0.3" in line and line.endswith(", 0 errors") for line in text.splitlines())


def test_stages_are_a_row_of_csv_each(etcd: System) -> None:
    rows = list(
        csv.DictReader(
            io.StringIO(
                bench(
                    "put", "--stages", "1,4", "--total", "50", "--csv", "--endpoints", etcd.endpoints[0]
                ).stdout
            )
        )
    )
    assert [(row["clients"], row["operations"], row["errors"]) for row in rows] == [
        ("1", "50", "0"),
        ("4", "50", "0"),
    ]
    assert all(0 < float(row["p50_ms"]) <= float(row["p99_ms"]) for row in rows)


def test_a_run_is_told_over_a_saved_one(etcd: System, tmp_path: Path) -> None:
    saved = tmp_path / "before.json"
    options = ("put", "-q", "--total", "50", "--endpoints", etcd.endpoints[0])
    bench(*options, "--save", str(saved))
    assert f"over {saved}" in bench(*options, "--against", str(saved)).stdout
    assert "has no put with 2 clients" in bench(*options, "--clients", "2", "--against", str(saved)).stdout


def test_a_run_that_fails_takes_no_others_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The file stayed empty, and nothing was printed, hours of runs or not."""
    def one(name: str, command: cli.Command, given: dict[str, Any]) -> dict[str, Any]:
        if given["clients"] > 1:
            raise ConnectionRefusedError("a host was restarted")
        return {"interrupted": False, "errors": {}}

    monkeypatch.setattr(cli, "_one", one)
    saved = tmp_path / "r.json"
    with pytest.raises(SystemExit) as ended:
        cli.app(["put", "--stages", "1,100", "--json", "--save", str(saved)])
    told = capsys.readouterr()
    assert (ended.value.code, "a host was restarted" in told.err) == (1, True)
    assert json.loads(told.out) == json.loads(saved.read_text()) == {"interrupted": False, "errors": {}}


def test_what_cannot_be_saved_is_found_out_before_the_load(tmp_path: Path) -> None:
    done = bench("put", "--save", str(tmp_path / "nowhere" / "x"), "--endpoints", "127.0.0.1:1", code=1)
    assert "No such file or directory" in done.stderr


@pytest.mark.parametrize(("condition", "code"), [
    ("p99>20s,errors>0", 0), ("max>1us", 3), ("throughput<1", 0), ("operations<51", 3),
])
def test_a_threshold_makes_the_exit_code(etcd: System, condition: str, code: int) -> None:
    done = bench(
        "put", "-q", "--total", "50", "--fail-if", condition, "--endpoints", etcd.endpoints[0], code=code
    )
    assert ("failed: " in done.stderr) == (code == 3)


@pytest.mark.parametrize(("arguments", "code"), [((), 1), (("--fail-if", "errors>99%"), 3),
                                                 (("--fail-if", "errors>100"), 0)])
def test_failed_operations_make_the_exit_code_and_are_told_with_their_endpoint(
        etcd: System, arguments: tuple[str, ...], code: int) -> None:
    done = bench(
        "put", "--total", "40", "--val-size", "2000000", "--endpoints", etcd.endpoints[0], *arguments,
        code=code,
    )
    assert f"40 x {etcd.endpoints[0]}: INVALID_ARGUMENT: etcdserver: request is too large" in done.stdout


@pytest.mark.parametrize(("hashes", "errors"), [
    ({"a:1": 7, "b:2": 7}, {}), ({"a:1": 7, "b:2": 8}, {"the hashes of the members differ": 1}),
    (RpcError(Status.OUT_OF_RANGE, "compacted"), {"hashes of the members: OUT_OF_RANGE: compacted": 1})])
def test_hashes_that_differ_or_are_not_there_are_errors_of_the_run(
    hashes: dict[str, int] | RpcError, errors: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def told(spec: Spec) -> dict[str, int]:
        if isinstance(hashes, RpcError):
            raise hashes
        return hashes

    monkeypatch.setattr(cli.upkeep, "hash_kv", told)
    result: dict[str, Any] = {"errors": {}, "interrupted": False}
    cli._check_hashes(result, Spec("put", ("a:1", "b:2")))
    assert result["errors"] == errors
    assert cli._exit_code([result], [], errors_limited=False) == bool(errors)


def test_an_interrupted_run_tells_what_was_done_until_then(etcd: System, tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    with seen.open("wb") as out:
        watcher = subprocess.Popen(
            [
                str(Path(sys.executable).parent / "etcdctl"), "--endpoints", etcd.endpoints[0], "watch",
                "/stopped/", "--prefix",
            ],
            stdout=out,
        )
    parent = psutil.Popen(
        [
            sys.executable, "-m", "bench.cli", "put", "--duration", "90s", "--key-prefix", "/stopped/",
            "--key-size", "14", "--endpoints", etcd.endpoints[0], "-q",
        ],
        stdout=subprocess.PIPE,
    )
    try:
        deadline = time.monotonic() + 60
        while not seen.stat().st_size:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        parent.send_signal(signal.SIGINT)
        said = parent.communicate(timeout=60)[0].decode()
    finally:
        watcher.kill()
        watcher.wait()
    assert parent.returncode == 130
    assert said.startswith("put, 1 clients: ")
    assert not said.startswith("put, 1 clients: 0 ")
    assert said.endswith(", interrupted\n")


def test_ctrl_c_while_keys_are_put_first_ends_the_command(etcd: System) -> None:
    parent = psutil.Popen(
        [
            sys.executable, "-m", "bench.cli", "range", "--key-space-size", "9999999", "--endpoints",
            etcd.endpoints[0],
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    deadline = time.monotonic() + 60
    while not any(worker.net_connections("tcp") for worker in parent.children()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    parent.send_signal(signal.SIGINT)
    said, complaints = parent.communicate(timeout=60)
    assert (parent.returncode, said) == (130, b"")
    assert b"Traceback" not in complaints


def test_a_report_of_what_is_no_result_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("# muster\n")
    done = subprocess.run(
        [sys.executable, "-m", "bench.cli", "report", "README.md"], capture_output=True, text=True,
        timeout=100, check=False, cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: README.md: not a result of muster-bench: not JSON\n"
