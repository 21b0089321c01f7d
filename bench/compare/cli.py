"""``muster-bench compare``, ``report``, ``agree``, ``size``, ``cuts`` and ``check``: the commands that start
their servers themselves."""

from __future__ import annotations

import asyncio
import json
import shlex
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from bench.client import RpcError
from bench.compare import comparison as comparing
from bench.compare import html
from bench.compare import report as compare_report
from bench.compare.matrix import ALL, CONNS, PRESETS, Preset, Sizes, choose
from bench.load import run
from bench.load.spec import V2
from bench.report.text import output
from bench.systems import systems

_errors = Console(stderr=True, highlight=False)
Option = typer.Option

_DATA_DIR = Annotated[
    Path | None,
    Option(
        help="Where the systems keep their data (a new directory in it, removed "
        "afterwards). Default: TMPDIR or /var/tmp."
    ),
]
_ETCD_FLAGS = Annotated[str, Option(help="More flags for etcd, as one string.")]
_MUSTER_FLAGS = Annotated[str, Option(help="More flags for muster local, as one string: \"--fronts 0\".")]
_GO_BENCHMARK = Path(__file__).with_name("go_benchmark.sh")
_JSON = Annotated[bool, Option("--json", help="Print the result as JSON, nothing else on stdout.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(compare)
    app.command()(report)
    app.command()(agree)
    app.command()(size)
    app.command()(crowd)
    app.command()(cuts)
    app.command()(check)


def compare(
    baseline: Annotated[
        str,
        Option(
            help="A: etcd or muster, to be started (muster:4 with four shards); PATH of an "
            "etcd; or NAME=HOST:PORT,... for one that runs."
        ),
    ] = "",
    subject: Annotated[
        str, Option(help="B, in the same forms; several, separated by blanks, are each compared with A.")
    ] = "",
    with_: Annotated[str, Option("--with", help="etcd=ENDPOINTS or etcd=PATH: the baseline.")] = "",
    preset: Annotated[
        str,
        Option(
            help="issue2 (puts and ranges by clients), issue3 (by shards), issue4 (the whole "
            "matrix), keys (peer keys), several with commas, or all: these four. "
            "Bounded in time: 6, 6, 10 and 5 minutes. "
            "issue15: version 2 of the API. "
            "tls: puts and ranges by TLS. "
            "kubernetes: what its API servers ask for."
        ),
    ] = "",
    only: Annotated[
        str,
        Option(
            help="Comma-separated cells or shell patterns, such as put-*,range-l-1000. Default: "
            "the preset's, or put and both ranges with 1, 100 and 1000 clients."
        ),
    ] = "",
    rounds: Annotated[int, Option(min=1, help="Turns of each system in each cell.")] = 3,
    duration: Annotated[float, Option(min=0.1, help="Seconds of one turn, at most.")] = 5.0,
    warm_up: Annotated[float, Option(min=0, help="Seconds before the first turn of a cell.")] = 1.0,
    budget: Annotated[
        float,
        Option(
            min=0, help="Seconds for the whole; turns are shortened to keep it. 0: the preset's, or no bound."
        ),
    ] = 0.0,
    key_space: Annotated[int, Option("--key-space-size", help="Number of different keys.")] = 10_000,
    big_keys: Annotated[int, Option(help="Keys of the large range. 0: the preset's (100,000).")] = 0,
    watchers: Annotated[int, Option(help="Watchers of one key; twice as many idle ones.")] = 10_000,
    watch_rate: Annotated[float, Option(help="Puts per second below a watched prefix.")] = 10_000.0,
    disturbed_rate: Annotated[float, Option(help="Puts per second beside long work.")] = 300.0,
    scale: Annotated[float, Option(help="Of a Kubernetes cluster's rates (5,000 renewals a second).")] = 0.2,
    hosts: Annotated[int, Option(min=1, max=7, help="Members of each system.")] = 3,
    processes: Annotated[int, Option(help="Client processes that share the work.")] = 1,
    leader_only: Annotated[
        bool, Option("--leader-only", help="Connect to the leader's member only.")
    ] = False,
    data_dir: _DATA_DIR = None,
    etcd_flags: _ETCD_FLAGS = "",
    muster_flags: _MUSTER_FLAGS = "",
    shards: Annotated[int, Option(min=1, help="Shards of a muster that is named without a number.")] = 1,
    markdown: Annotated[Path | None, Option(help="Page to write the tables into, between its marks.")] = None,
    html_page: Annotated[Path | None, Option("--html", help="File to write a report with charts to.")] = None,
    save: Annotated[Path | None, Option(help="File to write the result to as JSON, for `report`.")] = None,
    as_json: _JSON = False,
) -> None:
    """Run the same work on several systems in turns, and print ratios."""
    names = [name for name in preset.split(",") if name]
    if names == ["all"]:
        names = list(ALL)
    for name in names:
        if name not in PRESETS:
            _fail(f"no preset {name}; there are {', '.join(PRESETS)}, all")
    if with_:
        name, _, where = with_.partition("=")
        is_path = "/" in where and "://" not in where
        baseline = where if is_path else with_ if where else name
    results = []
    with _failures():
        for name in names or [""]:
            chosen = PRESETS[name] if name else Preset("", "", ("etcd", "muster"), 0.0)
            sizes = Sizes(big_keys or chosen.big_keys, watchers, watch_rate, disturbed_rate, scale)
            plan = comparing.Plan(
                choose([p for p in only.split(",") if p], sizes, name), rounds, duration, warm_up, processes,
                leader_only, hosts, key_space, sizes=sizes, budget_s=budget or chosen.budget_s, preset=name,
                title=chosen.title)
            if name:
                plan = replace(plan, warm_up_s=min(warm_up, 0.5))
            wanted = [baseline or chosen.systems[0], *(shlex.split(subject) or chosen.systems[1:])]
            if shards > 1:
                wanted = [w.replace("muster", f"muster:{shards}") if w in ("muster", "muster+keys") else w
                          for w in wanted]
            results.append(_compare(plan, wanted, data_dir, etcd_flags, muster_flags, quiet=as_json))
            if save is not None:  # what is there is kept if the next one fails
                save.write_text(
                    json.dumps(results[0] if len(results) == 1 else results) + "\n", encoding="utf-8"
                )
            _write(results, markdown, html_page)
    if as_json:
        sys.stdout.write(json.dumps(results[0] if len(results) == 1 else results) + "\n")
    else:
        for result in results:
            compare_report.show(output(), result)


def _compare(
    plan: comparing.Plan,
    names: list[str],
    data_dir: Path | None,
    etcd_flags: str,
    muster_flags: str,
    *,
    quiet: bool,
) -> dict[str, Any]:
    began = time.monotonic()
    if any(cell.spec.command in V2 for cell in plan.cells):
        etcd_flags += " --enable-v2"
    for name, flags in (("etcd flags", etcd_flags), ("muster flags", muster_flags)):
        if flags:
            plan.notes[name] = flags
    with systems.started(names, data_dir=data_dir, etcd_flags=shlex.split(etcd_flags),
                         muster_flags=shlex.split(muster_flags),
                         hosts=plan.hosts) as running, _Bar(plan.preset, quiet) as told:
        return asyncio.run(comparing.compare(plan, running, told, began=began))


def report(
    files: Annotated[list[Path], typer.Argument(help="What `compare --save` wrote.")],
    markdown: Annotated[Path | None, Option(help="Page to write the tables into, between its marks.")] = None,
    html_page: Annotated[Path | None, Option("--html", help="File to write a report with charts to.")] = None,
    chart: Annotated[Path | None, Option(help="File to write the headline chart to, as SVG.")] = None,
) -> None:
    """Make tables and charts of saved comparisons, several of them into one page."""
    results: list[dict[str, Any]] = []
    with _failures():
        for file in files:
            results += comparing.saved(file)
        _write(results, markdown, html_page)
        if chart is not None:
            chart.write_text(html.headline(results), encoding="utf-8")
    if markdown is None and html_page is None and chart is None:
        for result in results:
            compare_report.show(output(), result)


def _write(results: list[dict[str, Any]], markdown: Path | None, html_page: Path | None) -> None:
    if markdown is not None:
        for result in results:
            compare_report.write_into(markdown, result)
    if html_page is not None:
        html_page.write_text(html.page(results), encoding="utf-8")


def agree(
    tool: Annotated[
        Path, Option(help="etcd's benchmark tool, as bench/compare/go_benchmark.sh builds and runs it.")
    ] = _GO_BENCHMARK,
    systems_: Annotated[
        str, Option("--systems", help="The two to compare, as compare names them.")
    ] = "etcd muster",
    clients: Annotated[str, Option(help="Comma-separated: of 1, 100 and 1000.")] = "1,100,1000",
    rounds: Annotated[int, Option(min=1, help="Turns of each tool on each system.")] = 3,
    duration: Annotated[float, Option(min=0.1, help="Seconds of one turn.")] = 3.0,
    data_dir: _DATA_DIR = None,
    page: Annotated[bool, Option("--markdown", help="Print the table as Markdown.")] = False,
    as_json: _JSON = False,
) -> None:
    """Run the same work by muster-bench and by etcd's own benchmark tool, to see that both tell the same
    ratios."""
    from bench.compare.loads import agree as agreeing

    with _failures():
        names, counts = shlex.split(systems_), [int(n) for n in clients.split(",")]
        if len(names) != 2 or not set(counts) <= set(CONNS):
            raise ValueError("agree takes two systems, and of 1, 100 and 1000 clients")
        result = agreeing.measure(tool, names, counts, rounds=rounds, duration_s=duration, data_dir=data_dir,
                                  said=_said(quiet=as_json))
    if page and not as_json:
        sys.stdout.write(agreeing.markdown(result))
    else:
        _print(result, agreeing.show, as_json=as_json)


def size(
    keys: Annotated[int, Option(min=1, help="Keys to load.")] = 100_000,
    val_size: Annotated[int, Option(help="Bytes of a value.")] = 256,
    overwrites: Annotated[
        int,
        Option(
            min=0, help="Keys to put again, for the compaction to take away. Default: as many as there are."
        ),
    ] = 0,
    names: Annotated[
        str, Option("--systems", help="What to start, separated by blanks, one after the other.")
    ] = "etcd muster",
    data_dir: _DATA_DIR = None,
    etcd_flags: _ETCD_FLAGS = "",
    muster_flags: _MUSTER_FLAGS = "",
    limit: Annotated[float, Option(help="Seconds after which a system's turn is given up.")] = 600.0,
    as_json: _JSON = False,
) -> None:
    """Load keys; tell bytes on disk and in memory, and the time of a restart, a compaction, a
    defragmentation."""
    from bench.compare.loads import size as sizing

    with _failures():
        result = sizing.measure(
            shlex.split(names), sizing.Load(keys, val_size, overwrites or keys, limit), data_dir=data_dir,
            etcd_flags=shlex.split(etcd_flags), muster_flags=shlex.split(muster_flags),
            said=_said(quiet=as_json))
    _print(result, sizing.show, as_json=as_json)


def crowd(
    connections: Annotated[int, Option(min=1, help="Connections, all from this process.")] = 10_000,
    watches: Annotated[int, Option(min=1, help="Watches on them, each on a key of its own.")] = 100_000,
    watch_streams: Annotated[int, Option(min=0, help="Connections that have a watch stream. 0: all.")] = 0,
    members: Annotated[
        int, Option(min=0, max=3, help="Members that the connections go to. 0: all three.")
    ] = 0,
    at_once: Annotated[
        int, Option(min=1, help="Connections, requests or streams under way at a time.")
    ] = 256,
    duration: Annotated[float, Option(min=0.1, help="Seconds of the puts beside them, each time.")] = 5.0,
    names: Annotated[
        str, Option("--systems", help="What to start, separated by blanks, one after the other.")
    ] = "etcd muster",
    data_dir: _DATA_DIR = None,
    etcd_flags: _ETCD_FLAGS = "",
    muster_flags: _MUSTER_FLAGS = "",
    limit: Annotated[float, Option(help="Seconds after which a system's turn is given up.")] = 240.0,
    page: Annotated[bool, Option("--markdown", help="Print the table as Markdown.")] = False,
    as_json: _JSON = False,
) -> None:
    """Hold very many connections and watches; tell their memory, and what others' puts take beside them. Exit
    1 if any of them failed."""
    from bench.load import crowd as crowding

    with _failures():
        load = crowding.Load(
            connections, watches, watch_streams, members, at_once, duration_s=duration, limit_s=limit
        )
        result = crowding.measure(
            shlex.split(names),
            load,
            data_dir=data_dir,
            etcd_flags=shlex.split(etcd_flags),
            muster_flags=shlex.split(muster_flags),
            said=_said(quiet=as_json),
        )
    if page and not as_json:
        sys.stdout.write(crowding.markdown(result))
    else:
        _print(result, crowding.show, as_json=as_json)
    if crowding.failures(result):
        raise typer.Exit(1)


def cuts(
    context: typer.Context,
    shards: Annotated[
        str, Option(help="Comma-separated: numbers of shards, each a step.")
    ] = "2,4,8,16,32,64",
    rate: Annotated[float, Option(min=1, help="Commits a second that each shard reports.")] = 200.0,
    duration: Annotated[float, Option(min=0.1, help="Seconds of one step.")] = 3.0,
    cpu_limit: Annotated[
        float,
        Option(
            min=0.01, max=1, help="Share of a CPU that the sequencer's process may use; below 1 by a cgroup."
        ),
    ] = 1.0,
    data_dir: _DATA_DIR = None,
    page: Annotated[bool, Option("--markdown", help="Print the table as Markdown.")] = False,
    as_json: _JSON = False,
) -> None:
    """What the order log of a store with several shards costs, and how many shards one sequencer can
    order."""
    from bench.compare.loads import cuts as ordering

    if context.obj is None:
        raise typer.BadParameter("cuts starts muster's own nodes: run it as muster-bench cuts")
    with _failures():
        result = ordering.measure(context.obj, [int(n) for n in shards.split(",")], rate_per_s=rate,
                                  duration_s=duration, data_dir=data_dir, cpu_limit=cpu_limit,
                                  said=_said(quiet=as_json))
    if page and not as_json:
        sys.stdout.write(ordering.markdown(result))
    else:
        _print(result, ordering.show, as_json=as_json)


def check(
    muster_flags: _MUSTER_FLAGS = "",
    data_dir: _DATA_DIR = None,
    as_json: _JSON = False,
) -> None:
    """Count the work of puts in a quiet local cluster; exit 1 if it is above the recorded bounds."""
    from bench import check as checking

    with _failures():
        result = checking.measure(data_dir=data_dir, muster_flags=shlex.split(muster_flags))
    _print(result, checking.show, as_json=as_json)
    if not result["passed"]:
        raise typer.Exit(1)


def _said(*, quiet: bool) -> Callable[[str], None]:
    """Where a measurement tells what it is at."""
    return lambda line: None if quiet else _errors.print(line, markup=False)


def _print(result: dict[str, Any], show: Callable[[Console, dict[str, Any]], None], *, as_json: bool) -> None:
    if as_json:
        sys.stdout.write(json.dumps(result) + "\n")
    else:
        show(output(), result)


class _Bar(comparing.Told):
    """A progress bar on stderr where that is a terminal, lines where it is not."""

    def __init__(self, name: str, quiet: bool) -> None:
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[note]}"),
            console=_errors,
            transient=True,
            disable=quiet or not _errors.is_terminal,
        )
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
def _failures() -> Iterator[None]:
    """Errors in words, with their exit codes; SIGTERM ends what was started here."""

    def terminate(signum: int, frame: object) -> None:
        raise SystemExit(128 + signum)

    signal.signal(signal.SIGTERM, terminate)
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

