"""``muster-bench``: the commands that put load on something that runs.

A command is a row of :data:`COMMANDS`: its help, its defaults, and the options it has above those of all.
Options have the names of :class:`bench.load.spec.Spec`'s fields, so nothing is copied by hand. ``compare``,
``size`` and ``check``, which start their servers themselves, are in ``bench.compare.cli``.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any, NoReturn, get_args

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from bench.client import parse_endpoint
from bench.compare.loads import upkeep
from bench.load import outcome, run
from bench.load.spec import UNARY, Spec
from bench.report import text as report

app = typer.Typer(
    name="muster-bench", no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False,
    help="Load for anything that speaks etcd v3. Every run ends by itself: after --total operations, "
         "after --duration seconds, or whichever comes first.",
)
_errors = Console(stderr=True, highlight=False)
LOCAL = "127.0.0.1:2379"
Option = typer.Option

#: name: (type with its option, default)
_Options = dict[str, tuple[Any, Any]]

_COMMON: _Options = {
    "endpoints": (Annotated[str, Option(envvar=["MUSTER_ENDPOINTS", "ETCDCTL_ENDPOINTS"],
                                        help="Comma-separated; connections go to them in turn.")], LOCAL),
    "target_leader": (Annotated[bool, Option("--target-leader", help="Connect to the leader only.")], False),
    "conns": (Annotated[int, Option(help="Connections.")], 1),
    "clients": (Annotated[int, Option(
        help="Clients; each has one operation under way. They share the connections.")], 1),
    "total": (Annotated[int | None, Option(
        "--total", "--put-total", help="Operations. Default 10000, or no limit with --duration.")], None),
    "duration": (Annotated[str, Option(
        help="How long operations are started: 30s, 1m30s, or a number of seconds. 0: until --total.")], "0"),
    "stages": (Annotated[str, Option(
        help="Comma-separated numbers of clients: a run with each, one after the other.")], ""),
    "rate_per_s": (Annotated[float, Option(
        "--rate", "--put-rate", help="Operations per second. Latency then counts from the intended "
                                     "time of sending, so that stalls show. 0: each client goes on "
                                     "when answered.")], 0.0),
    "dial_timeout": (Annotated[str, Option(
        help="How long a connection may take to be made, such as 500ms or 5s. 0: 5s.")], "5s"),
    "timeout_s": (Annotated[float, Option(
        "--timeout", help="Seconds after which an operation counts as failed.")], 10.0),
    "seed": (Annotated[int, Option(help="Of keys and values.")], 1),
    "user": (Annotated[str, Option(help="name:password, to log in with.")], ""),
    "cacert": (Annotated[str, Option(help="Trust servers by this CA bundle.")], ""),
    "cert": (Annotated[str, Option(help="The client's certificate.")], ""),
    "key": (Annotated[str, Option("--key", help="Its key.")], ""),
    "insecure_skip_verify": (Annotated[bool, Option(
        "--insecure-skip-tls-verify", help="Trust any server.")], False),
    "processes": (Annotated[int, Option(help="Client processes that share the work.")], 1),
    "server_pids": (Annotated[str, Option(
        help="Comma-separated processes whose CPU and memory to report, with all below them. Default: those "
             "found behind local endpoints.")], ""),
    "as_json": (Annotated[bool, Option(
        "--json", help="Print the result as JSON, nothing else on stdout.")], False),
    "as_csv": (Annotated[bool, Option(
        "--csv", help="Print the results as CSV, nothing else on stdout.")], False),
    "quiet": (Annotated[bool, Option("--quiet", "-q", help="One line for each run.")], False),
    "fail_if": (Annotated[str, Option(
        help="Exit with 3 if any of these holds: 'p99>20ms,errors>1%,throughput<5000'. Without a condition "
             "on errors any error makes it 1.")], ""),
    "save": (Annotated[Path | None, Option(help="File to write the results to, as JSON.")], None),
    "against": (Annotated[str, Option(
        help="Comma-separated files of saved results: tells this run over each.")], ""),
    "sample": (Annotated[bool, Option("--sample", help="List the operations of each second too.")], False),
    "precise": (Annotated[bool, Option("--precise", help="Print latencies to the microsecond.")], False),
}
_SIZES: _Options = {
    "key_size_bytes": (Annotated[int, Option("--key-size", help="Bytes of a key.")], 8),
    "val_size_bytes": (Annotated[int, Option("--val-size", help="Bytes of a value.")], 256),
    "key_space": (Annotated[int, Option(
        "--key-space-size", "--keys", help="Number of different keys.")], 10_000),
}
_KEYS: _Options = {
    **_SIZES,
    "key_prefix": (Annotated[str, Option(help="Start of every key (part of --key-size).")], ""),
    "distribution": (Annotated[str, Option(
        "--key-distribution", help="uniform, zipf or sequential.")], "uniform"),
    "sequential": (Annotated[bool, Option(
        "--sequential-keys", help="Short for --key-distribution sequential.")], False),
    "zipf_exponent": (Annotated[float, Option(help="Exponent of zipf.")], 1.1),
}
_CONSISTENCY: _Options = {
    "consistency": (Annotated[str, Option(help="l (linearizable) or s (serializable).")], "l"),
}
_RANGE: _Options = {
    "range_key": (Annotated[str, typer.Argument(
        metavar="[KEY]", help="Key to read; default: a key of the key space each time.")], ""),
    "range_end": (Annotated[str, typer.Argument(metavar="[RANGE_END]", help="End of the range.")], ""),
    "limit": (Annotated[int, Option(help="Most keys to return; 0: all.")], 0),
}
_POPULATE: _Options = {
    "populate": (Annotated[bool, Option(
        help="Put every key of the key space first, if no KEY is given.")], True),
}
_WATCH: _Options = {
    "streams": (Annotated[int, Option(help="Watch streams; they share the connections.")], 10),
    "watchers_per_stream": (Annotated[int, Option("--watchers-per-stream", "--watch-per-stream",
                                                  help="Watchers on each stream.")], 100),
    "sequential": _KEYS["sequential"],
    "watched_keys": (Annotated[int, Option(
        "--watched-key-total", help="Each watcher watches one of so many keys. 0: all of the key "
                                    "space.")], 0),
    "watch_prefix": (Annotated[str, Option(
        "--prefix", help="Watch this prefix and put below it. Default: the key space itself.")], ""),
    "prev_kv": (Annotated[bool, Option("--prev-kv", help="Ask for the previous value.")], False),
    "progress_notify": (Annotated[bool, Option(
        "--progress-notify", help="Ask for progress notifications.")], False),
}


@dataclass(slots=True)
class Command:
    """One command: what it says, what it takes, and where its defaults differ."""

    help: str
    options: _Options
    defaults: dict[str, Any] = field(default_factory=dict)
    total: int = 10_000


COMMANDS = {
    "put": Command("Put single keys.", {
        **_KEYS,
        "compact_interval_s": (Annotated[float, Option(
            "--compact-interval", help="Compact every so many seconds.")], 0.0),
        "compact_delta": (Annotated[int, Option(
            "--compact-index-delta", help="Revisions to keep then.")], 1000),
        "check_hashkv": (Annotated[bool, Option(
            "--check-hashkv", help="Compare the members' hashes afterwards.")], False),
    }),
    "range": Command("Read one key, or a range.", {
        **_RANGE, **_CONSISTENCY, **_KEYS, **_POPULATE,
        "keys_only": (Annotated[bool, Option("--keys-only", help="No values.")], False),
        "count_only": (Annotated[bool, Option("--count-only", help="Only the number of keys.")], False),
    }),
    "scan": Command("Read a whole range page by page, all pages at one revision; an operation is the whole "
                    "range. Default: every key there is.", {
        **_RANGE, **_CONSISTENCY,
        "page": (Annotated[int, Option(help="Keys of a page; 0: all in one request.")], 1000),
        "keys_only": (Annotated[bool, Option("--keys-only", help="No values.")], False),
    }, total=10),
    "txn-put": Command("Put keys in transactions; an operation is one transaction.", {
        **_KEYS, "txn_ops": (Annotated[int, Option(help="Puts in one transaction.")], 1)}),
    "txn-compare": Command("Compare a key, put it and get it, in one transaction.", {**_KEYS, **_POPULATE}),
    "txn-mixed": Command("Reads and writes, each in a transaction. As in etcd's tool a read is of all keys, "
                         "at most --limit, unless KEY is given.", {
        **_RANGE, **_CONSISTENCY, **_KEYS,
        "rw_ratio": (Annotated[float, Option(help="Reads per write.")], 1.0),
        "end_key": (Annotated[str, Option(help="RANGE_END, as etcd's tool spells it.")], ""),
    }, {"limit": 1000}),
    "mixed": Command("Reads and writes of single keys, each a request of its own.", {
        **_RANGE, **_CONSISTENCY, **_KEYS, **_POPULATE,
        "rw_ratio": (Annotated[float, Option(help="Reads per write.")], 1.0)}),
    "stm": Command("Software transactional memory, as etcd's concurrency package has it: read some keys, "
                   "write a part of them, start over if one has changed meanwhile.", {
        **_SIZES,
        "isolation": (Annotated[str, Option(
            help="c (read committed), r (repeatable reads), s (serializable), ss (serializable "
                 "snapshot).")], "r"),
        "keys_per_txn": (Annotated[int, Option(help="Keys of one transaction.")], 1),
        "write_percent": (Annotated[int, Option(
            "--txn-wr-percent", help="Percentage of them that is written.")], 50),
        "locker": (Annotated[str, Option(
            "--stm-locker", help="stm (none), lock-client or lock-rpc around each.")], "stm"),
    }, {"key_space": 1, "val_size_bytes": 8}),
    "lock": Command("Take a lock and give it back; an operation is both.", {
        "names": (Annotated[int, Option(help="Locks that the clients share.")], 1),
        "locker": (Annotated[str, Option(
            help="lock-rpc (the server's lock service) or lock-client (the recipe).")], "lock-rpc"),
    }, total=1000),
    "watch": Command("Create watchers, put, and count every event at every watcher; an operation is one "
                     "event delivered.", {**_SIZES, **_WATCH}, {"key_space": 1}, total=1000),
    "watch-latency": Command(
        "Put at a fixed rate; the latency is from a put's intended sending to its event at a watcher.",
        {**_SIZES, **_WATCH},
        {"key_space": 1, "watchers_per_stream": 1, "clients": 100, "rate_per_s": 100.0}, 1000),
    "watch-get": Command("Serializable reads while many watchers catch up from an old revision; ends when "
                         "they have.", {
        "streams": _WATCH["streams"],
        "watchers": (Annotated[int, Option(help="Watchers in all.")], 10_000),
        "events": (Annotated[int, Option(help="Events that each has to catch up with.")], 8),
    }, {"streams": 1}, 0),
    "v2-set": Command("Set single keys by version 2 of the API, over HTTP/1.1.", {**_KEYS}),
    "v2-get": Command("Read single keys by version 2 of the API. Consistency l: with quorum=true.", {
        **_CONSISTENCY, **_KEYS}, {"consistency": "s", "key_space": 1000}),
    "v2-wait": Command("Set a key that many requests of version 2 wait for, each on a connection of its "
                       "own; an operation is one change delivered. All wait before the next change.", {
        "waiters": (Annotated[int, Option(help="Requests that wait.")], 1000),
        "key_size_bytes": _SIZES["key_size_bytes"], "val_size_bytes": _SIZES["val_size_bytes"]}, total=10),
    "kubernetes": Command(
        "What a Kubernetes cluster's API servers ask for, at fixed rates: renewals of nodes' leases and "
        "updates of pods by guarded transactions, keep-alives, lists of all pods in pages and whole, watches "
        "of every kind.", {
            "scale": (Annotated[float, Option(help="Of all rates.")], 1.0),
            "pods": (Annotated[int, Option(help="Pods, of 2 to 4 KB each.")], 10_000),
            "nodes": (Annotated[int, Option(help="Nodes, each with a lease.")], 5_000),
            "watches": (Annotated[int, Option(help="Watches of all API servers, a stream for each.")], 1_000),
            "kinds": (Annotated[int, Option(help="Kinds of objects that each API server watches.")], 200),
            "renewals_per_s": (Annotated[float, Option("--renewals", help="Renewals of nodes' leases a "
                                                                          "second.")], 5_000.0),
            "keep_alives_per_s": (Annotated[float, Option(
                "--keep-alives", help="Keep-alives of etcd's own leases a second.")], 1_000.0),
            "statuses_per_s": (Annotated[float, Option("--statuses", help="Status updates of pods a "
                                                                          "second.")], 500.0),
            "lists_per_s": (Annotated[float, Option("--lists", help="Lists in pages a second, and as many "
                                                                    "whole.")], 1.0),
            "progress_per_s": (Annotated[float, Option("--progress", help="Questions a second how far a "
                                                                          "watch is.")], 50.0),
            "page": (Annotated[int, Option(help="Keys of a page.")], 500),
            "leases": (Annotated[int, Option(help="Leases of etcd's that are kept alive.")], 1_000),
            "lease_ttl_s": (Annotated[int, Option("--ttl", help="Of these, in seconds.")], 600),
        }, {"conns": 100, "duration": "10s"}, 0),
    "lease-keepalive": Command("Keep leases alive, each client on a stream of its own.", {
        "leases": (Annotated[int, Option(help="Leases, granted first and revoked after.")], 100),
        "lease_ttl_s": (Annotated[int, Option("--ttl", help="Of the leases, in seconds.")], 60)}),
    "lease-grant": Command("Grant leases; all are revoked afterwards.", {
        "lease_ttl_s": (Annotated[int, Option("--ttl", help="Of the leases, in seconds.")], 600)}),
}
_SPEC_FIELDS = frozenset(f.name for f in fields(Spec))


def _register(name: str, command: Command) -> None:
    """Give typer a function with the signature that the row describes."""
    options = {**command.options, **_COMMON}

    def invoke(**given: Any) -> None:
        _load(name, command, given)

    _as_command(invoke, options, command.defaults)
    app.command(name, help=command.help)(invoke)


def _as_command(invoke: Callable[..., None], options: _Options, defaults: dict[str, Any]) -> None:
    """Write the options into a function's signature."""
    parameters = [inspect.Parameter(option, inspect.Parameter.KEYWORD_ONLY, annotation=hint,
                                    default=defaults.get(option, default))
                  for option, (hint, default) in options.items()]
    # what inspect looks for
    invoke.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    invoke.__annotations__ = {option: hint for option, (hint, _) in options.items()}


for _name, _command in COMMANDS.items():
    _register(_name, _command)


def _register_several() -> None:
    """``run``: the commands that take no more options than these, one after the other."""
    options = {
        "tests": (Annotated[str, typer.Argument(
            metavar="TEST,...", help="Such as put,range,txn-compare.")], ...),
        **_KEYS, **_CONSISTENCY, **_POPULATE, **_COMMON,
    }

    def invoke(**given: Any) -> None:
        tests = [name for name in given.pop("tests").split(",") if name]
        if unknown := [name for name in tests if name not in UNARY]:
            _fail(f"no test {unknown[0]}; there are {', '.join(UNARY)}")
        _load_all([(name, COMMANDS[name]) for name in tests], given)

    _as_command(invoke, options, {})
    app.command("run", help="Several tests one after the other, with the same options.")(invoke)


_register_several()


def _load(name: str, command: Command, given: dict[str, Any]) -> None:
    """Make the runs, show them, and exit: 0; 1 if one failed or an operation did; 2 for impossible options;
    3 for a threshold of --fail-if; 130 after Ctrl-C, with the results until then."""
    _load_all([(name, command)], given)


def _load_all(tests: Sequence[tuple[str, Command]], given: dict[str, Any]) -> None:
    results: list[dict[str, Any]] = []
    try:
        if given["as_json"] and given["as_csv"]:
            raise ValueError("--json and --csv exclude each other")
        limits = outcome.thresholds(given["fail_if"])
        before = [(path, outcome.saved(path))
                  for path in map(Path, given["against"].split(",")) if given["against"]]
        stages = [int(n) for n in given["stages"].split(",") if n] if given["stages"] else [given["clients"]]
        for name, command in tests:
            for clients in stages:
                if results and results[-1]["interrupted"]:
                    break
                results.append(_one(name, command, {**given, "clients": clients}))
                _show(results[-1], given, before)
        text = json.dumps(results[0] if len(results) == 1 else results) + "\n"
        if given["save"] is not None:
            given["save"].write_text(text, encoding="utf-8")
        met = [f"{limit.text}: {one['command']}, {one['settings']['clients']} clients"
               for one in results for limit in limits if limit.met(one)]
    except ValueError as error:
        _fail(str(error))
    except (run.RunError, OSError) as error:
        _errors.print(f"error: {error}", style="red", markup=False)
        raise typer.Exit(1) from None
    except asyncio.CancelledError:  # Ctrl-C before the first run, or twice
        raise typer.Exit(130) from None
    if given["as_json"] or given["as_csv"]:
        sys.stdout.write(text if given["as_json"] else outcome.table(results))
    for line in met:
        _errors.print(f"failed: {line}", style="red", markup=False)
    if any(one["interrupted"] for one in results):
        raise typer.Exit(130)
    if met:
        raise typer.Exit(3)
    if not any(limit.figure == "errors" for limit in limits) and any(one["errors"] for one in results):
        raise typer.Exit(1)


def _one(name: str, command: Command, given: dict[str, Any]) -> dict[str, Any]:
    """One run. ValueError, RunError or OSError if it cannot be made."""
    if given.get("consistency", "l") not in ("l", "s"):
        raise ValueError("--consistency must be l or s")
    given["duration_s"] = outcome.seconds(given["duration"], bare=1.0)
    if given["total"] is None:
        given["total"] = 0 if given["duration_s"] else command.total
    spec = _spec(name, given)
    spec.check()
    if given["target_leader"]:
        spec = asyncio.run(upkeep.to_leader(spec))
    quiet = given["as_json"] or given["as_csv"]
    roots = run.local_roots([parse_endpoint(e) for e in spec.endpoints],
                            [int(pid) for pid in given["server_pids"].split(",") if pid])
    if given.get("populate") and "populate" in command.options and not spec.range_key:
        async def populate(progress: run.Progress, stop: asyncio.Event) -> bool:
            await run.populate(spec, processes=given["processes"], progress=progress, stop=stop)
            return stop.is_set()

        if with_progress(populate, "populate", spec.key_space, quiet=quiet):
            raise asyncio.CancelledError  # Ctrl-C, and nothing to tell yet

    async def work(progress: run.Progress, stop: asyncio.Event) -> dict[str, Any]:
        async with upkeep.compacting(
            spec, given.get("compact_interval_s", 0.0), given.get("compact_delta", 0)
        ):
            result = await run.run(spec, processes=given["processes"], server_roots=roots, progress=progress,
                                   stop=stop)
        return result | {"interrupted": stop.is_set()}

    result: dict[str, Any] = with_progress(work, spec.command, spec.total or None, quiet=quiet,
                                           duration_s=spec.duration_s)
    if given.get("check_hashkv"):
        result["hash_kv"] = asyncio.run(upkeep.hash_kv(spec))
    return result


def _show(
    result: dict[str, Any], given: dict[str, Any], before: Sequence[tuple[Path, list[dict[str, Any]]]]
) -> None:
    """What is said as soon as a run has ended."""
    if given["as_json"] or given["as_csv"]:
        return
    console = report.output()
    if given["quiet"]:
        console.print(outcome.one_line(result), soft_wrap=True, highlight=False, markup=False)
    else:
        if given["stages"] or result["interrupted"]:
            console.print(
                outcome.one_line(result), soft_wrap=True, highlight=False, markup=False, style="bold")
        report.show(console, result, sample=given["sample"], precise=given["precise"])
    for path, runs in before:
        console.print(outcome.look_back(result, path, runs), soft_wrap=True, highlight=False, markup=False)


def _spec(name: str, given: dict[str, Any]) -> Spec:
    values = {field: value for field, value in given.items() if field in _SPEC_FIELDS}
    values["endpoints"] = _split(given["endpoints"])
    values["serializable"] = given.get("consistency") == "s"
    values["dial_timeout_s"] = outcome.seconds(given["dial_timeout"]) or 5.0
    if given.get("sequential"):
        values["distribution"] = "sequential"
    if "watch_prefix" in given:
        values["key_prefix"] = given["watch_prefix"]
    if given.get("end_key"):
        values["range_end"] = given["end_key"]
    if "watchers" in given:
        values["watchers_per_stream"] = max(1, given["watchers"] // given["streams"])
    return Spec(name, **values)


def with_progress(work: Callable[[run.Progress, asyncio.Event], Any], what: str, total: int | None, *,
                  quiet: bool, duration_s: float = 0.0) -> Any:
    """Run a coroutine that reports its progress, behind a bar on stderr where that is a terminal: how far it
    is, how long it goes on, operations in the last second. Ctrl-C sets the event that it is given; a second
    one cancels it."""
    bar = Progress(TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[note]}"),
                   TextColumn("left"), TimeRemainingColumn(), console=_errors, transient=True,
                   disable=quiet or not _errors.is_terminal)

    async def interruptible() -> Any:
        loop, stop = asyncio.get_running_loop(), asyncio.Event()
        task, began = asyncio.current_task(), 0.0
        assert task is not None

        def interrupt() -> None:
            if stop.is_set():
                task.cancel()
            else:
                stop.set()

        seen = [(loop.time(), 0)]  # of the last second

        def progress(operations: int, errors: int) -> None:
            nonlocal began
            now, done = loop.time(), operations + errors
            began = began or now
            while len(seen) > 1 and seen[0][0] < now - 1:
                seen.pop(0)
            rate = (done - seen[0][1]) / max(now - seen[0][0], 1e-3)
            seen.append((now, done))
            note = f"{done:,}" + (f" of {total:,}" if total else "") + f", {rate:,.0f}/s"
            share = max(done / total if total else 0.0, (now - began) / duration_s if duration_s else 0.0)
            bar.update(shown, completed=min(share, 1.0),
                       note=note + (f", {errors:,} errors" if errors else ""))

        loop.add_signal_handler(signal.SIGINT, interrupt)
        try:
            return await work(progress, stop)
        finally:
            loop.remove_signal_handler(signal.SIGINT)

    with bar:
        shown = bar.add_task(what, total=1.0, note="")
        return asyncio.run(interruptible())


def _split(endpoints: str) -> tuple[str, ...]:
    found = tuple(e.strip() for e in endpoints.split(",") if e.strip())
    for endpoint in found:
        parse_endpoint(endpoint)
    return found


def command_first(arguments: Sequence[str]) -> list[str]:
    """The same arguments with options in front of the command behind it: etcd's tool takes those of all
    commands in both places, as in ``benchmark --conns=100 put``."""
    flags = {"--" + name.replace("_", "-")
             for name, (hint, _) in _COMMON.items() if get_args(hint)[0] is bool}
    flags |= {"--json", "--csv", "-q", "--insecure-skip-tls-verify"}
    before, rest = [], list(arguments)
    while rest and rest[0].startswith("-") and rest[0] != "--help":
        before.append(rest.pop(0))
        if "=" not in before[-1] and before[-1] not in flags and rest:
            before.append(rest.pop(0))
    return [*rest[:1], *before, *rest[1:]]


def _fail(reason: str) -> NoReturn:
    _errors.print(f"error: {reason}", style="red", markup=False)
    raise typer.Exit(2)


def main(ground: object = None) -> None:
    """Run a command line. ``ground``: a ``bench.compare.loads.cuts.Ground``, which only ``cuts`` needs."""
    from bench.compare import cli as compare_cli

    compare_cli.register(app)
    app(args=command_first(sys.argv[1:]), obj=ground)


if __name__ == "__main__":
    main()
