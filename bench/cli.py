"""``muster-bench``: the command line."""

from __future__ import annotations

import asyncio
import json
import shlex
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from bench import report, run, systems
from bench.client import parse_endpoint
from bench.spec import Spec

app = typer.Typer(
    name="muster-bench", no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False,
    help="Load for anything that speaks etcd v3. Every run ends by itself: after --total operations, "
         "after --duration seconds, or whichever comes first.",
)
_errors = Console(stderr=True, highlight=False)

Endpoints = Annotated[str, typer.Option(envvar=["MUSTER_ENDPOINTS", "ETCDCTL_ENDPOINTS"],
                                        help="Comma-separated; connections go to them in turn.")]
Conns = Annotated[int, typer.Option(help="Connections.")]
Clients = Annotated[int, typer.Option(help="Clients; each has one operation under way. They share the connections.")]
Total = Annotated[int | None, typer.Option(help="Operations. Default 10000, or no limit with --duration.")]
Duration = Annotated[float, typer.Option(help="Seconds in which operations are started; 0: until --total.")]
Rate = Annotated[float, typer.Option(help="Operations per second. Latency then counts from the intended time of "
                                          "sending, so that stalls show. 0: each client goes on when answered.")]
Timeout = Annotated[float, typer.Option(help="Seconds after which an operation counts as failed.")]
Seed = Annotated[int, typer.Option(help="Of keys and values.")]
Processes = Annotated[int, typer.Option(help="Client processes that share the work.")]
ServerPids = Annotated[str, typer.Option(help="Comma-separated processes whose CPU and memory to report, with all "
                                              "below them. Default: those found behind local endpoints.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON, nothing else on stdout.")]
KeySize = Annotated[int, typer.Option(help="Bytes of a key.")]
ValSize = Annotated[int, typer.Option(help="Bytes of a value.")]
KeySpace = Annotated[int, typer.Option("--key-space-size", help="Number of different keys.")]
KeyPrefix = Annotated[str, typer.Option(help="Start of every key (part of --key-size).")]
Distribution = Annotated[str, typer.Option("--key-distribution", help="uniform, zipf or sequential.")]
Sequential = Annotated[bool, typer.Option("--sequential-keys", help="Short for --key-distribution sequential.")]
Zipf = Annotated[float, typer.Option(help="Exponent of zipf.")]

LOCAL = "127.0.0.1:2379"


@app.command()
def put(endpoints: Endpoints = LOCAL, conns: Conns = 1, clients: Clients = 1, total: Total = None,
        duration: Duration = 0.0, rate: Rate = 0.0, timeout: Timeout = 10.0, key_size: KeySize = 8,
        val_size: ValSize = 256, key_space: KeySpace = 10_000, key_prefix: KeyPrefix = "",
        key_distribution: Distribution = "uniform", sequential_keys: Sequential = False, zipf_exponent: Zipf = 1.1,
        seed: Seed = 1, processes: Processes = 1, server_pids: ServerPids = "", as_json: Json = False) -> None:
    """Put single keys."""
    spec = Spec("put", _split(endpoints), conns, clients, *_bounds(total, duration), rate, timeout, seed, key_prefix,
                key_size, val_size, key_space, "sequential" if sequential_keys else key_distribution, zipf_exponent)
    _go(spec, processes, server_pids, as_json)


@app.command("range")
def range_(key: Annotated[str, typer.Argument(help="Key to read; default: a key of the key space each time.")] = "",
           range_end: Annotated[str, typer.Argument(help="End of the range.")] = "",
           endpoints: Endpoints = LOCAL, conns: Conns = 1, clients: Clients = 1, total: Total = None,
           duration: Duration = 0.0, rate: Rate = 0.0, timeout: Timeout = 10.0,
           consistency: Annotated[str, typer.Option(help="l (linearizable) or s (serializable).")] = "l",
           limit: Annotated[int, typer.Option(help="Most keys to return; 0: all.")] = 0,
           keys_only: Annotated[bool, typer.Option("--keys-only", help="No values.")] = False,
           count_only: Annotated[bool, typer.Option("--count-only", help="Only the number of keys.")] = False,
           populate: Annotated[bool, typer.Option(help="Put every key of the key space first, if no KEY is given.")]
           = True, key_size: KeySize = 8, val_size: ValSize = 256, key_space: KeySpace = 10_000,
           key_prefix: KeyPrefix = "", key_distribution: Distribution = "uniform",
           sequential_keys: Sequential = False, zipf_exponent: Zipf = 1.1, seed: Seed = 1,
           processes: Processes = 1, server_pids: ServerPids = "", as_json: Json = False) -> None:
    """Read one key, or a range."""
    if consistency not in ("l", "s"):
        _fail("--consistency must be l or s")
    spec = Spec("range", _split(endpoints), conns, clients, *_bounds(total, duration), rate, timeout, seed, key_prefix,
                key_size, val_size, key_space, "sequential" if sequential_keys else key_distribution, zipf_exponent,
                range_key=key, range_end=range_end, limit=limit, serializable=consistency == "s",
                keys_only=keys_only, count_only=count_only)
    _go(spec, processes, server_pids, as_json, populate=populate and not key)


@app.command("txn-put")
def txn_put(endpoints: Endpoints = LOCAL, conns: Conns = 1, clients: Clients = 1, total: Total = None,
            duration: Duration = 0.0, rate: Rate = 0.0, timeout: Timeout = 10.0,
            txn_ops: Annotated[int, typer.Option(help="Puts in one transaction.")] = 1, key_size: KeySize = 8,
            val_size: ValSize = 256, key_space: KeySpace = 10_000, key_prefix: KeyPrefix = "",
            key_distribution: Distribution = "uniform", sequential_keys: Sequential = False,
            zipf_exponent: Zipf = 1.1, seed: Seed = 1, processes: Processes = 1,
            server_pids: ServerPids = "", as_json: Json = False) -> None:
    """Put keys in transactions; an operation is one transaction."""
    spec = Spec("txn-put", _split(endpoints), conns, clients, *_bounds(total, duration), rate, timeout, seed,
                key_prefix, key_size, val_size, key_space, "sequential" if sequential_keys else key_distribution,
                zipf_exponent, txn_ops=txn_ops)
    _go(spec, processes, server_pids, as_json)


Streams = Annotated[int, typer.Option(help="Watch streams; they share the connections.")]
Watchers = Annotated[int, typer.Option(help="Watchers on each stream.")]
Prefix = Annotated[str, typer.Option(help="Watch this prefix and put below it. Default: the key space itself.")]
PrevKv = Annotated[bool, typer.Option("--prev-kv", help="Ask for the previous value.")]
Notify = Annotated[bool, typer.Option("--progress-notify", help="Ask for progress notifications.")]


@app.command()
def watch(endpoints: Endpoints = LOCAL, conns: Conns = 1, streams: Streams = 10,
          watchers_per_stream: Watchers = 100, clients: Clients = 1, total: Total = None, duration: Duration = 0.0,
          rate: Rate = 0.0, timeout: Timeout = 10.0, prefix: Prefix = "", prev_kv: PrevKv = False,
          progress_notify: Notify = False, key_size: KeySize = 8, val_size: ValSize = 256, key_space: KeySpace = 1,
          seed: Seed = 1, processes: Processes = 1, server_pids: ServerPids = "", as_json: Json = False) -> None:
    """Create watchers, put, and count every event at every watcher; an operation is one event delivered."""
    spec = Spec("watch", _split(endpoints), conns, clients, *_bounds(total, duration, 1000), rate, timeout, seed,
                prefix, key_size, val_size, key_space, streams=streams, watchers_per_stream=watchers_per_stream,
                watch_prefix=prefix, prev_kv=prev_kv, progress_notify=progress_notify)
    _go(spec, processes, server_pids, as_json)


@app.command("watch-latency")
def watch_latency(endpoints: Endpoints = LOCAL, conns: Conns = 1, streams: Streams = 10,
                  watchers_per_stream: Watchers = 1, clients: Clients = 100, total: Total = None,
                  duration: Duration = 0.0, rate: Rate = 100.0, timeout: Timeout = 10.0, prefix: Prefix = "",
                  prev_kv: PrevKv = False, progress_notify: Notify = False, key_size: KeySize = 8,
                  val_size: ValSize = 256, key_space: KeySpace = 1, seed: Seed = 1,
                  processes: Processes = 1, server_pids: ServerPids = "", as_json: Json = False) -> None:
    """Put at a fixed rate; the latency is from a put's intended sending to its event at a watcher."""
    spec = Spec("watch-latency", _split(endpoints), conns, clients, *_bounds(total, duration, 1000), rate, timeout,
                seed, prefix, key_size, val_size, key_space, streams=streams,
                watchers_per_stream=watchers_per_stream, watch_prefix=prefix, prev_kv=prev_kv,
                progress_notify=progress_notify)
    _go(spec, processes, server_pids, as_json)


@app.command("lease-keepalive")
def lease_keepalive(endpoints: Endpoints = LOCAL, conns: Conns = 1, clients: Clients = 1,
                    leases: Annotated[int, typer.Option(help="Leases, granted first and revoked after.")] = 100,
                    ttl: Annotated[int, typer.Option(help="Of the leases, in seconds.")] = 60, total: Total = None,
                    duration: Duration = 0.0, rate: Rate = 0.0, timeout: Timeout = 10.0, seed: Seed = 1,
                    processes: Processes = 1, server_pids: ServerPids = "", as_json: Json = False) -> None:
    """Keep leases alive, each client on a stream of its own."""
    spec = Spec("lease-keepalive", _split(endpoints), conns, clients, *_bounds(total, duration), rate, timeout, seed,
                leases=leases, lease_ttl_s=ttl)
    _go(spec, processes, server_pids, as_json)


@app.command()
def compare(
    baseline: Annotated[str, typer.Option(help="A: etcd or muster, to be started; PATH of an etcd; or "
                                               "NAME=HOST:PORT,... for one that runs.")] = "etcd",
    subject: Annotated[str, typer.Option(help="B, in the same forms.")] = "muster",
    only: Annotated[str, typer.Option(help="Comma-separated cells or shell patterns, such as put-*,range-l-1000. "
                                           "Default: put and both ranges with 1, 100 and 1000 clients.")] = "",
    rounds: Annotated[int, typer.Option(min=1, help="Turns of each system in each cell.")] = 3,
    duration: Annotated[float, typer.Option(min=0.1, help="Seconds of one turn.")] = 5.0,
    warm_up: Annotated[float, typer.Option(min=0, help="Seconds before the first turn of a cell.")] = 1.0,
    key_space: KeySpace = 10_000, processes: Processes = 1,
    leader_only: Annotated[bool, typer.Option("--leader-only", help="Connect to the leader's member only.")] = False,
    data_dir: Annotated[Path | None, typer.Option(help="Where both systems keep their data (a new directory in it, "
                                                       "removed afterwards). Default: TMPDIR or /var/tmp.")] = None,
    etcd_flags: Annotated[str, typer.Option(help="More flags for etcd, as one string.")] = "",
    muster_flags: Annotated[str, typer.Option(help="More flags for muster local, as one string.")] = "",
    shards: Annotated[int, typer.Option(min=1, help="Shards of the muster that is started.")] = 1,
    markdown: Annotated[Path | None, typer.Option(help="Page to write the tables into, between its marks.")] = None,
    as_json: Json = False,
) -> None:
    """Run the same work on two systems in turns, and print ratios."""
    from bench import compare as comparing
    from bench import compare_report

    def terminate(signum: int, frame: object) -> None:
        raise SystemExit(128 + signum)

    signal.signal(signal.SIGTERM, terminate)  # so that the systems started here end with us
    try:
        plan = comparing.Plan(comparing.choose([p for p in only.split(",") if p]), rounds, duration, warm_up,
                              processes, leader_only, key_space)
        with systems.started_pair(baseline, subject, data_dir=data_dir, shards=shards,
                                  etcd_flags=shlex.split(etcd_flags), muster_flags=shlex.split(muster_flags)) as pair:
            for name, flags in (("etcd flags", etcd_flags), ("muster flags", muster_flags)):
                if flags:
                    plan.notes[name] = flags
            result = asyncio.run(comparing.compare(plan, pair, lambda line: _errors.print(line, markup=False)))
    except (ValueError, FileNotFoundError) as error:
        _fail(str(error))
    except (OSError, RuntimeError, run.RunError) as error:
        _errors.print(f"error: {error}", style="red", markup=False)
        raise typer.Exit(1) from None
    if as_json:
        sys.stdout.write(json.dumps(result) + "\n")
    else:
        compare_report.show(_output(), result)
    if markdown is not None:
        compare_report.write_into(markdown, result)


def _go(spec: Spec, processes: int, server_pids: str, as_json: bool, *, populate: bool = False) -> None:
    """Run, show, and exit: 0; 1 if the run failed or all its operations did; 2 for impossible options."""
    try:
        spec.check()
        roots = run.local_roots([parse_endpoint(e) for e in spec.endpoints],
                                [int(pid) for pid in server_pids.split(",") if pid])
        if populate:
            with_progress(lambda p: run.populate(spec, processes=processes, progress=p), "populate", spec.key_space,
                          quiet=as_json)
        result = with_progress(lambda p: run.run(spec, processes=processes, server_roots=roots, progress=p),
                               spec.command, spec.total or None, quiet=as_json)
    except ValueError as error:
        _fail(str(error))
    except run.RunError as error:
        _errors.print(f"error: {error}", style="red", markup=False)
        raise typer.Exit(1) from None
    if as_json:
        sys.stdout.write(json.dumps(result) + "\n")
    else:
        report.show(_output(), result)
    if result["errors"] and not result["operations"]:
        raise typer.Exit(1)


def with_progress(work: Callable[[run.Progress], Any], what: str, total: int | None, *, quiet: bool) -> Any:
    """Run a coroutine that reports its progress, behind a bar on stderr where that is a terminal."""
    bar = Progress(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
                   TextColumn("{task.fields[note]}"), console=_errors, transient=True,
                   disable=quiet or not _errors.is_terminal)
    with bar:
        task = bar.add_task(what, total=total, note="")

        def progress(operations: int, errors: int) -> None:
            bar.update(task, completed=operations + errors, note=f"{errors} errors" if errors else "")

        return asyncio.run(work(progress))


def _output() -> Console:
    """Stdout; wide enough for any table where it is no terminal, so that nothing is cut in a file."""
    return Console(width=None if sys.stdout.isatty() else 200)


def _bounds(total: int | None, duration: float, default: int = 10_000) -> tuple[int, float]:
    if total is None:
        total = 0 if duration else default
    return total, duration


def _split(endpoints: str) -> tuple[str, ...]:
    found = tuple(e.strip() for e in endpoints.split(",") if e.strip())
    try:
        for endpoint in found:
            parse_endpoint(endpoint)
    except ValueError as error:
        _fail(str(error))
    return found


def _fail(reason: str) -> NoReturn:
    _errors.print(f"error: {reason}", style="red", markup=False)
    raise typer.Exit(2)


def main() -> None:
    """Entry point of the console script."""
    app()


if __name__ == "__main__":
    main()
