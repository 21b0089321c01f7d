"""The commands of ``muster-bench`` that start their servers themselves, or read what such runs saved."""

from __future__ import annotations

import asyncio
import json
import re
import shlex
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from bench.client import RpcError
from bench.compare import comparison as comparing
from bench.compare import html
from bench.compare import page as pages
from bench.compare import report as compare_report
from bench.compare.figures import has_failures
from bench.compare.go_tool import GO_BENCHMARK, GoTool
from bench.compare.matrix import ALL, CONNS, PRESETS, Preset, Sizes, choose
from bench.load import run
from bench.load.spec import V2
from bench.options import taking_fields
from bench.report.text import output
from bench.systems import systems

_errors = Console(stderr=True, highlight=False)


def _option(help_text: str, *names: str, **more: Any) -> Any:
    return typer.Option(*names, help=help_text, **more)


_NAMES = _option("Systems to start, separated by spaces, one after the other.", "--systems")
_LIMIT = _option("Time limit for a system, in seconds.")
_MARKDOWN = _option("Print the table as Markdown.", "--markdown")
_TABLES = _option("Folder for the tables, as tab-separated files.")
_HTML = _option("File to write a report with charts to.", "--html")
_PAGE = _option("Markdown page in which the table between the marks is replaced. For the preset page.",
                "--page")
_TOOL = _option("etcd's benchmark tool, as bench/compare/go_benchmark.sh builds and runs it.")


@dataclass(kw_only=True)
class Measured:
    """Options of a command that starts its own systems and prints one result."""

    data_dir: Annotated[Path | None, _option(
        "Systems keep their data in a temporary directory below it. Default: TMPDIR or /var/tmp.")] = None
    as_json: Annotated[bool, _option("Print the result as JSON, nothing else on stdout.", "--json")] = False


@dataclass(kw_only=True)
class _Checked(Measured):
    muster_flags: Annotated[str, _option(
        'More flags for muster local, as one string: "--fronts 0".')] = ""


@dataclass(kw_only=True)
class _Flagged(_Checked):
    etcd_flags: Annotated[str, _option("More flags for etcd, as one string.")] = ""

    def start(self) -> dict[str, Any]:
        """Arguments of :func:`bench.systems.systems.started`, and of what calls it."""
        return {"data_dir": self.data_dir, "etcd_flags": shlex.split(self.etcd_flags),
                "muster_flags": shlex.split(self.muster_flags)}


def register(app: typer.Typer) -> None:
    for command in (compare, report, agree, size, crowd, cuts, check):
        app.command()(command)


@dataclass(kw_only=True)
class _Compared(_Flagged):
    baseline: Annotated[str, _option(
        "System A. To start one: etcd, muster, muster:4 (four shards), or PATH of an etcd. A running one: "
        "NAME=HOST:PORT,...")] = ""
    subject: Annotated[str, _option(
        "System B, in the same forms. Several, separated by spaces, are each compared with A.")] = ""
    with_: Annotated[str, _option(
        "Another way to name the baseline: etcd=ENDPOINTS or etcd=PATH.", "--with")] = ""
    etcd: Annotated[list[str] | None, _option(
        "An etcd to compare with: PATH of a binary or of its directory, or etcd for the packaged one. May be "
        "given several times: each is then named by its version, and ratios are to each and to the "
        "better.")] = None
    preset: Annotated[str, _option(
        "Comma-separated names. puts-and-ranges: by number of clients, 6 minutes at most. shards: by their "
        "number, 6 minutes. matrix: all kinds of requests, 10 minutes. keys: with and without peer keys, 5 "
        "minutes. all: these four. page: the documentation's table, by this tool and by etcd's, 40 minutes. "
        "v2: version 2 of the API. tls: puts and ranges by TLS. kubernetes: the load of its API "
        "servers.")] = ""
    only: Annotated[str, _option(
        "Comma-separated cells or shell patterns, such as put-*,range-l-1000. Default: the preset's, or put "
        "and both ranges with 1, 100 and 1000 clients.")] = ""
    rounds: Annotated[int, _option("Turns of each system in each cell.", min=1)] = 3
    duration: Annotated[float, _option("Seconds of one turn, at most.", min=0.1)] = 5.0
    warm_up: Annotated[float, _option("Seconds before the first turn of a cell.", min=0)] = 1.0
    budget: Annotated[float, _option(
        "Seconds for all turns, which become shorter to keep it. 0: the preset's, or no limit.", min=0)] = 0.0
    key_space: Annotated[int, _option("Number of different keys.", "--key-space-size")] = 10_000
    big_keys: Annotated[int, _option("Keys of the large range. 0: the preset's (100,000).")] = 0
    watchers: Annotated[int, _option("Watchers of one key; idle watchers are twice as many.")] = 10_000
    watch_rate: Annotated[float, _option("Puts per second below a watched prefix.")] = 10_000.0
    disturbed_rate: Annotated[float, _option("Puts per second while a long request runs.")] = 300.0
    scale: Annotated[float, _option("Factor of Kubernetes' rates (5,000 renewals a second).")] = 0.2
    hosts: Annotated[int, _option("Members of each system.", min=1, max=7)] = 3
    processes: Annotated[int, _option("Client processes that share the work.")] = 1
    leader_only: Annotated[bool, _option("Connect to the leader's member only.", "--leader-only")] = False
    shards: Annotated[int, _option("Shards of a muster that is named without a number.", min=1)] = 1
    tool: Annotated[Path, _TOOL] = GO_BENCHMARK
    tables: Annotated[Path | None, _TABLES] = None
    html_page: Annotated[Path | None, _HTML] = None
    page: Annotated[Path | None, _PAGE] = None
    save: Annotated[Path | None, _option("File to write the result to as JSON, for `report`.")] = None

    def presets(self) -> list[str]:
        """Names of presets; a lone "" for none. Exits for an unknown one."""
        names = [name for name in self.preset.split(",") if name]
        if names == ["all"]:
            return list(ALL)
        for name in names:
            if name not in PRESETS:
                _fail(f"no preset {name}; there are {', '.join(PRESETS)}, all")
        return names or [""]

    def systems(self, preset: Preset) -> list[str]:
        """The systems' names, the baselines first. ValueError for two kinds of baselines."""
        wanted = [*self._baselines(preset), *(shlex.split(self.subject) or preset.systems[1:])]
        if self.shards > 1:
            wanted = [re.sub(r"^muster(?=$|\+)", f"muster:{self.shards}", w) for w in wanted]
        return wanted

    def _baselines(self, preset: Preset) -> list[str]:
        if self.etcd:
            if self.baseline or self.with_:
                raise ValueError("--etcd and --baseline or --with exclude each other")
            if not preset.systems[0].startswith("etcd"):
                raise ValueError(f"this preset compares with {preset.systems[0]}, so it takes no --etcd")
            return [preset.systems[0].replace("etcd", one if one == "etcd" else str(Path(one).absolute()))
                    for one in self.etcd]
        if self.with_:
            name, _, where = self.with_.partition("=")
            is_path = "/" in where and "://" not in where
            return [where if is_path else self.with_ if where else name]
        return [self.baseline or preset.systems[0]]

    def plan(self, name: str, preset: Preset) -> comparing.Plan:
        """ValueError if ``--only`` matches nothing."""
        sizes = Sizes(self.big_keys or preset.big_keys, self.watchers, self.watch_rate, self.disturbed_rate,
                      self.scale)
        cells = choose([p for p in self.only.split(",") if p], sizes, name)
        plan = comparing.Plan(
            cells, self.rounds, self.duration, min(self.warm_up, 0.5) if name else self.warm_up,
            self.processes, self.leader_only, self.hosts, self.key_space, sizes=sizes,
            budget_s=self.budget or preset.budget_s, preset=name, title=preset.title,
            baselines=max(1, len(self.etcd or ())), tool=GoTool(self.tool))
        if any(cell.spec.command in V2 for cell in cells):
            self.etcd_flags += " --enable-v2"
        for system, flags in (("etcd flags", self.etcd_flags), ("muster flags", self.muster_flags)):
            if flags:
                plan.notes[system] = flags
        return plan


@taking_fields(_Compared)
def compare(given: _Compared) -> None:
    """Run the same work on several systems in turns, and print ratios. Exit with 1 if a turn fails, or an
    operation."""
    results: list[dict[str, Any]] = []
    names, text = given.presets(), ""
    with failures():
        _prepare(given)
        for name in names:
            preset = PRESETS.get(name) or Preset("", ("etcd", "muster"), 0.0, lambda sizes: [])
            began = time.monotonic()
            asked = replace(given)
            plan = asked.plan(name, preset)
            with systems.started(given.systems(preset), hosts=plan.hosts, by_version=plan.baselines > 1,
                                 **asked.start()) as running, _Bar(plan.preset, given.as_json) as told:
                results.append(asyncio.run(comparing.compare(plan, running, told, began=began)))
            text = json.dumps(results[0] if len(results) == 1 else results) + "\n"
            if given.save is not None:  # after each preset: the next one may fail
                given.save.write_text(text, encoding="utf-8")
            _write(results, given.tables, given.html_page, given.page)
    if given.as_json:
        sys.stdout.write(text)
    else:
        for result in results:
            compare_report.show(output(), result)
    if any(map(has_failures, results)):
        raise typer.Exit(1)


def _prepare(given: _Compared) -> None:
    """Find out before the load what cannot be written behind it. ValueError, OSError."""
    for file in (given.save, given.html_page):
        if file is not None:
            file.open("a").close()
    if given.tables is not None:
        compare_report.prepared(given.tables)
    if given.page is not None:
        pages.around(given.page)
        given.page.open("a").close()


def report(
    files: Annotated[list[Path], typer.Argument(help="What `compare --save` wrote.")],
    tables: Annotated[Path | None, _TABLES] = None,
    html_page: Annotated[Path | None, _HTML] = None,
    page: Annotated[Path | None, _PAGE] = None,
    chart: Annotated[Path | None, _option("File to write the headline chart to, as SVG.")] = None,
) -> None:
    """Show saved comparisons, or write their tables and charts."""
    results: list[dict[str, Any]] = []
    with failures():
        for file in files:
            results += comparing.saved(file)
        _write(results, tables, html_page, page)
        if chart is not None:
            chart.write_text(html.headline(results), encoding="utf-8")
    if tables is None and html_page is None and page is None and chart is None:
        for result in results:
            compare_report.show(output(), result)


def _write(results: list[dict[str, Any]], tables: Path | None, html_page: Path | None,
           page: Path | None) -> None:
    if tables is not None:
        for result in results:
            compare_report.write_into(tables, result)
    if html_page is not None:
        html_page.write_text(html.page(results), encoding="utf-8")
    if page is not None:
        pages.write_into(page, results)


@dataclass(kw_only=True)
class _Agreed(Measured):
    tool: Annotated[Path, _TOOL] = GO_BENCHMARK
    names: Annotated[str, _option("The two systems, named as for compare.", "--systems")] = "etcd muster"
    clients: Annotated[str, _option("Comma-separated, out of 1, 100 and 1000.")] = "1,100,1000"
    rounds: Annotated[int, _option("Turns of each tool on each system.", min=1)] = 3
    duration: Annotated[float, _option("Seconds of one turn.", min=0.1)] = 3.0
    markdown: Annotated[bool, _MARKDOWN] = False


@taking_fields(_Agreed)
def agree(given: _Agreed) -> None:
    """Run the same work by muster-bench and by etcd's own benchmark tool, and compare their ratios."""
    from bench.compare.loads import agree as agreeing

    with failures():
        names, counts = shlex.split(given.names), [int(n) for n in given.clients.split(",")]
        if len(names) != 2 or not set(counts) <= set(CONNS):
            raise ValueError("agree takes two systems, and numbers of clients out of 1, 100 and 1000")
        result = agreeing.measure(given.tool, names, counts, rounds=given.rounds, duration_s=given.duration,
                                  data_dir=given.data_dir, said=said(given))
    print_result(result, agreeing.show, given, agreeing.markdown if given.markdown else None)


@dataclass(kw_only=True)
class _Sized(_Flagged):
    keys: Annotated[int, _option("Keys to load.", min=1)] = 100_000
    val_size: Annotated[int, _option("Bytes of a value.")] = 256
    overwrites: Annotated[int, _option(
        "Keys to put again, so that the compaction removes them. 0: all.", min=0)] = 0
    names: Annotated[str, _NAMES] = "etcd muster"
    limit: Annotated[float, _LIMIT] = 600.0


@taking_fields(_Sized)
def size(given: _Sized) -> None:
    """Load keys; print bytes on disk and in memory, and the time of a restart, a compaction and a
    defragmentation."""
    from bench.compare.loads import size as sizing

    with failures():
        load = sizing.Load(given.keys, given.val_size, given.overwrites or given.keys, given.limit)
        result = sizing.measure(shlex.split(given.names), load, said=said(given), **given.start())
    print_result(result, sizing.show, given)


@dataclass(kw_only=True)
class _Crowded(_Flagged):
    connections: Annotated[int, _option("Connections to hold.", min=1)] = 10_000
    watches: Annotated[int, _option("Watches on them, each on a key of its own.", min=1)] = 100_000
    watch_streams: Annotated[int, _option("Connections that have a watch stream. 0: all.", min=0)] = 0
    members: Annotated[int, _option("Members that the connections go to. 0: all three.", min=0, max=3)] = 0
    processes: Annotated[int, _option(
        "Client processes. Each may hold as many connections as it may open files.", min=1)] = 1
    at_once: Annotated[int, _option("Connections, requests or streams in progress at a time.", min=1)] = 256
    duration: Annotated[float, _option("Seconds of puts in each step.", min=0.1)] = 5.0
    names: Annotated[str, _NAMES] = "etcd muster"
    limit: Annotated[float, _LIMIT] = 240.0
    markdown: Annotated[bool, _MARKDOWN] = False


@taking_fields(_Crowded)
def crowd(given: _Crowded) -> None:
    """Hold many connections and watches, and print the memory that they take and the latency of puts
    meanwhile. Exit with 1 if one fails."""
    from bench.load import crowd as crowding

    with failures():
        load = crowding.Load(given.connections, given.watches, given.watch_streams, given.members,
                             given.processes, given.at_once, duration_s=given.duration, limit_s=given.limit)
        result = crowding.measure(shlex.split(given.names), load, said=said(given), **given.start())
    print_result(result, crowding.show, given, crowding.markdown if given.markdown else None)
    if crowding.failures(result):
        raise typer.Exit(1)


@dataclass(kw_only=True)
class _Cut(Measured):
    context: typer.Context
    shards: Annotated[str, _option(
        "Comma-separated numbers of shards, one step for each.")] = "2,4,8,16,32,64"
    rate: Annotated[float, _option("Commits per second that each shard reports.", min=1)] = 200.0
    duration: Annotated[float, _option("Seconds of one step.", min=0.1)] = 3.0
    cpu_limit: Annotated[float, _option(
        "Share of a CPU that the sequencer's process may use. Below 1, a cgroup sets it.",
        min=0.01, max=1)] = 1.0
    markdown: Annotated[bool, _MARKDOWN] = False


@taking_fields(_Cut)
def cuts(given: _Cut) -> None:
    """Measure what the order log of several shards costs, and how many shards one sequencer can order."""
    from bench.compare.loads import cuts as ordering

    if given.context.obj is None:
        raise typer.BadParameter("cuts starts muster's own nodes: run it as muster-bench cuts")
    with failures():
        result = ordering.measure(given.context.obj, [int(n) for n in given.shards.split(",")],
                                  ordering.Load(given.rate, given.duration, given.data_dir, given.cpu_limit),
                                  said=said(given))
    print_result(result, ordering.show, given, ordering.markdown if given.markdown else None)


@taking_fields(_Checked)
def check(given: _Checked) -> None:
    """Count the work that requests make in a local cluster. Exit with 1 if it is above the recorded
    bounds."""
    from bench.guard import check as checking

    with failures():
        result = checking.measure(data_dir=given.data_dir, muster_flags=shlex.split(given.muster_flags))
    print_result(result, checking.show, given)
    if not result["passed"]:
        raise typer.Exit(1)


def said(given: Measured) -> Callable[[str], None]:
    """Prints the steps of a measurement."""
    return lambda line: None if given.as_json else _errors.print(line, markup=False)


def print_result(result: dict[str, Any], show: Callable[[Console, dict[str, Any]], None], given: Measured,
           markdown: Callable[[dict[str, Any]], str] | None = None) -> None:
    if given.as_json:
        sys.stdout.write(json.dumps(result) + "\n")
    elif markdown is not None:
        sys.stdout.write(markdown(result))
    else:
        show(output(), result)


class _Bar(comparing.Told):
    """A progress bar on stderr where that is a terminal, lines where it is not."""

    def __init__(self, name: str, quiet: bool) -> None:
        self._bar = Progress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
            TextColumn("{task.fields[note]}"), console=_errors, transient=True,
            disable=quiet or not _errors.is_terminal)
        self._task = self._bar.add_task(name or "compare", total=None, note="")

    def __enter__(self) -> _Bar:
        self._bar.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._bar.__exit__(*error)

    def say(self, line: str) -> None:
        if _errors.is_terminal:
            self._bar.update(self._task, note=line)
        else:
            _errors.print(line, markup=False, soft_wrap=True)

    def progress(self, done: int, total: int) -> None:
        self._bar.update(self._task, completed=done, total=total)


@contextmanager
def failures() -> Iterator[None]:
    """Turns errors into exit codes, and SIGTERM or a hangup into an exit that stops the systems."""

    def terminate(signum: int, frame: object) -> None:
        for number in handled:  # another one would end the stopping
            signal.signal(number, signal.SIG_IGN)
        raise SystemExit(128 + signum)

    # SIGHUP is ignored under nohup
    handled = [number for number in (signal.SIGTERM, signal.SIGHUP)
               if signal.getsignal(number) != signal.SIG_IGN]
    for number in handled:
        signal.signal(number, terminate)
    try:
        yield
    except (ValueError, FileNotFoundError) as error:
        _fail(str(error))
    except (OSError, RuntimeError, RpcError, run.RunError) as error:
        _errors.print(f"error: {error}", style="red", markup=False)
        raise typer.Exit(1) from None


def _fail(reason: str) -> NoReturn:
    _errors.print(f"error: {reason}", style="red", markup=False)
    raise typer.Exit(2)

