"""``muster-bench``: the commands that put load on a running system.

A command is a row of :data:`COMMANDS`. Options have the names of :class:`bench.load.spec.Spec`'s fields.
``bench.compare.cli`` has the commands that start their servers themselves.
"""

from __future__ import annotations

import asyncio
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
from rich.text import Text

from bench.client import RpcError, parse_endpoint
from bench.compare.loads import upkeep
from bench.load import outcome, run
from bench.load.spec import UNARY, Spec
from bench.options import Options, taking
from bench.report import text as report

app = typer.Typer(
    name="muster-bench", no_args_is_help=True, pretty_exceptions_enable=False,
    help="Put load on a running muster or etcd, and measure it. A run ends after --total operations or "
         "after --duration, whichever comes first. A latency is from sending to answer unless a command says "
         "otherwise. Some commands report further latencies in rows of their own. Ctrl-C ends a run early "
         "and prints its results so far. From compare on, commands start their own systems or read saved "
         "results.",
    epilog="Exit codes: 0 all was done; 1 the run failed, or an operation did and --fail-if says nothing "
           "about errors; 2 wrong options; 3 a condition of --fail-if is met; "
           "130 Ctrl-C.",
)
_errors = Console(stderr=True, highlight=False)
LOCAL = "127.0.0.1:2379"


def _opt(kind: Any, default: Any, help_text: str, *names: str, **more: Any) -> tuple[Any, Any]:
    return Annotated[kind, typer.Option(*names, help=help_text, **more)], default


def _argument(metavar: str, help_text: str) -> tuple[Any, Any]:
    return Annotated[str, typer.Argument(metavar=metavar, help=help_text)], ""


def _total(default: int) -> tuple[Any, Any]:
    limit = f"{default}, or no limit with --duration" if default else "no limit"
    return _opt(int | None, None, f"Number of operations. Default: {limit}.", "--total", "--put-total")


_COMMON: Options = {
    "endpoints": _opt(str, LOCAL, "Comma-separated addresses; connections take them in turn.",
                      envvar=["MUSTER_ENDPOINTS", "ETCDCTL_ENDPOINTS"]),
    "target_leader": _opt(bool, False, "Connect to the leader only.", "--target-leader"),
    "conns": _opt(int, 1, "Number of connections."),
    "clients": _opt(int, 1, "Number of clients, each with one operation at a time. They share the "
                             "connections."),
    "total": _total(10_000),
    "duration": _opt(str, "0", "Time in which operations start: 30s, 1m30s, or a number of seconds. 0: until "
                               "--total."),
    "stages": _opt(str, "", "Comma-separated numbers of clients: one run with each."),
    "rate_per_s": _opt(float, 0.0, "Operations per second. Latency then counts from the planned send time, "
                                   "so that stalls show. 0: a client sends again when its operation is done.",
                       "--rate", "--put-rate"),
    "dial_timeout": _opt(str, "5s", "Time limit for a new connection, such as 500ms or 5s. 0: 5s."),
    "timeout_s": _opt(float, 10.0, "Seconds after which an operation counts as failed.", "--timeout"),
    "seed": _opt(int, 1, "Seed of the random keys and values."),
    "user": _opt(str, "", "name:password of the user.", envvar="MUSTER_BENCH_USER"),
    "cacert": _opt(str, "", "Trust servers by this CA bundle."),
    "cert": _opt(str, "", "The client's certificate."),
    "key": _opt(str, "", "The certificate's key.", "--key"),
    "insecure_skip_verify": _opt(bool, False, "Do not verify servers' certificates.",
                                 "--insecure-skip-tls-verify"),
    "processes": _opt(int, 1, "Client processes that share the work. kubernetes always has three."),
    "server_pids": _opt(str, "", "Comma-separated process IDs: report their CPU and memory, children's "
                                 "included. Default: the servers behind local endpoints."),
    "as_json": _opt(bool, False, "Print the result as JSON, nothing else on stdout.", "--json"),
    "as_csv": _opt(bool, False, "Print the results as CSV, nothing else on stdout.", "--csv"),
    "quiet": _opt(bool, False, "One line for each run.", "--quiet", "-q"),
    "fail_if": _opt(str, "", "Exit with 3 if a condition is met, such as one of "
                             "'p99>20ms,errors>1%,throughput<5000'. There are mean, min, p50 to p99.9, max "
                             "(ms unless a unit is given), duration, throughput, operations, errors (a "
                             "count, or % of all operations), cpu (of the servers, in microseconds per "
                             "operation). Without a condition on errors, any error exits with 1."),
    "save": _opt(Path | None, None, "File to write the results to, as JSON."),
    "against": _opt(str, "", "Comma-separated files of saved results: print this run's ratio to each."),
    "sample": _opt(bool, False, "Also list the operations of each second.", "--sample"),
    "precise": _opt(bool, False, "Print latencies to the microsecond.", "--precise"),
}
_SIZES: Options = {
    "key_size_bytes": _opt(int, 8, "Bytes of a key.", "--key-size"),
    "val_size_bytes": _opt(int, 256, "Bytes of a value.", "--val-size"),
    "key_space": _opt(int, 10_000, "Number of different keys.", "--key-space-size", "--keys"),
}
_SEQUENTIAL = _opt(bool, False, "Short for --key-distribution sequential.", "--sequential-keys")
_KEYS: Options = {
    **_SIZES,
    "key_prefix": _opt(str, "", "Start of every key (part of --key-size)."),
    "distribution": _opt(str, "uniform", "How keys are chosen: uniform, zipf or sequential.",
                         "--key-distribution"),
    "sequential": _SEQUENTIAL,
    "zipf_exponent": _opt(float, 1.1, "Exponent of the zipf distribution."),
}
_CONSISTENCY: Options = {"consistency": _opt(str, "l", "l (linearizable) or s (serializable).")}
_KEY_RANGE: Options = {
    "range_key": _argument("[KEY]", "Key to read. Default: a key of the key space each time."),
    "range_end": _argument("[RANGE_END]", "End of the range, exclusive."),
}
_RANGE: Options = {**_KEY_RANGE, "limit": _opt(int, 0, "Most keys to return; 0: all.")}
_KEYS_ONLY = _opt(bool, False, "Ask for no values.", "--keys-only")
_RATIO = _opt(float, 1.0, "Reads per write.")
_POPULATE: Options = {
    "populate": _opt(bool, True, "Put every key of the key space first, if no KEY is given.")}
_STREAMS = _opt(int, 10, "Watch streams; they share the connections.")
_WATCH: Options = {
    "streams": _STREAMS,
    "watchers_per_stream": _opt(int, 100, "Watchers on each stream.", "--watchers-per-stream",
                                "--watch-per-stream"),
    "sequential": _SEQUENTIAL,
    "watched_keys": _opt(int, 0, "Keys to watch, one for each watcher. 0: the whole key space.",
                         "--watched-key-total"),
    "watch_prefix": _opt(str, "", "Watch this prefix and put below it. Default: the key space itself.",
                         "--prefix"),
    "prev_kv": _opt(bool, False, "Ask for the previous value.", "--prev-kv", "--prevkv"),
    "progress_notify": _opt(bool, False, "Ask for progress notifications.", "--progress-notify"),
}


@dataclass(slots=True)
class Command:
    """One command, and the defaults in which it differs from its options. ``total`` 0: no limit."""

    help: str
    options: Options
    defaults: dict[str, Any] = field(default_factory=dict)
    total: int = 10_000

    def taken(self) -> Options:
        """All options, with this command's defaults."""
        options = {**self.options, **_COMMON, "total": _total(self.total)}
        return {name: (hint, self.defaults.get(name, default))
                for name, (hint, default) in options.items()}


COMMANDS = {
    "put": Command("Put single keys.", {
        **_KEYS,
        "compact_interval_s": _opt(float, 0.0, "Seconds between compactions; 0: none.", "--compact-interval"),
        "compact_delta": _opt(int, 1000, "Revisions that a compaction keeps.", "--compact-index-delta"),
        "check_hashkv": _opt(bool, False, "Compare the hashes of --endpoints afterwards. Different ones are "
                                     "an error.", "--check-hashkv"),
    }),
    "range": Command("Read one key, or a range.", {
        **_RANGE, **_CONSISTENCY, **_KEYS, **_POPULATE, "keys_only": _KEYS_ONLY,
        "count_only": _opt(bool, False, "Ask for the number of keys only.", "--count-only"),
    }),
    "scan": Command("Read a whole range page by page, all pages at one revision. An operation is the whole "
                    "range, from the first request to the last answer. Without KEY: all keys of the store.", {
        **_KEY_RANGE, **_CONSISTENCY, "page": _opt(int, 1000, "Keys of a page; 0: all in one request."),
        "keys_only": _KEYS_ONLY,
    }, total=10),
    "txn-put": Command("Put keys in transactions. An operation is one transaction.", {
        **_KEYS, "txn_ops": _opt(int, 1, "Puts in one transaction.")}),
    "txn-compare": Command("Compare a key, put it and get it, in one transaction.", {**_KEYS, **_POPULATE}),
    "txn-mixed": Command("Reads and writes, each in a transaction. As in etcd's tool, a read without KEY "
                         "returns all keys, at most --limit. Further rows: read, write.", {
        **_RANGE, **_CONSISTENCY, **_KEYS, "rw_ratio": _RATIO,
        "end_key": _opt(str, "", "RANGE_END by the name that etcd's tool gives it."),
    }, {"limit": 1000}),
    "mixed": Command("Reads and writes of single keys, each a request of its own.", {
        **_RANGE, **_CONSISTENCY, **_KEYS, **_POPULATE, "rw_ratio": _RATIO}),
    "stm": Command("Software transactional memory, as in etcd's concurrency package: read some keys, "
                   "write a part of them, start again if one has changed. An operation lasts from the first "
                   "try to the commit.", {
        **_SIZES,
        "isolation": _opt(str, "r", "c (read committed), r (repeatable reads), s (serializable), ss "
                                    "(serializable snapshot)."),
        "keys_per_txn": _opt(int, 1, "Keys of one transaction."),
        "write_percent": _opt(int, 50, "Percentage of these keys that are also written.", "--txn-wr-percent"),
        "locker": _opt(str, "stm", "stm (no lock), lock-client or lock-rpc.", "--stm-locker"),
    }, {"key_space": 1, "val_size_bytes": 8}),
    "lock": Command("Acquire a lock and release it. An operation is both.", {
        "names": _opt(int, 1, "Locks that the clients share."),
        "locker": _opt(str, "lock-rpc", "lock-rpc (the server's lock service) or lock-client (the recipe)."),
    }, total=1000),
    "watch": Command("Create watchers, put keys, and count every event at every watcher. An operation is "
                     "one event at one watcher; its latency counts from the put's planned send time. Events "
                     "lost, repeated or out of order are errors. Further rows: watch_created, put, to_all "
                     "(until the last watcher has a put's event).",
                     {**_SIZES, **_WATCH}, {"key_space": 1}, total=1000),
    "watch-latency": Command(
        "The same as watch, with one watcher and puts at a fixed rate.",
        {**_SIZES, **_WATCH},
        {"key_space": 1, "streams": 1, "watchers_per_stream": 1, "clients": 100, "rate_per_s": 100.0}, 1000),
    "watch-get": Command("Serializable reads while many watchers catch up from an old revision. The run "
                         "ends when they have. Further row: caught_up.", {
        "streams": _STREAMS, "watchers": _opt(int, 10_000, "Number of watchers, on all streams together."),
        "events": _opt(int, 8, "Events that each watcher has to catch up with."),
    }, {"streams": 1}, 0),
    "v2-set": Command("Set single keys by version 2 of the API, over HTTP/1.1.", {**_KEYS}),
    "v2-get": Command("Read single keys by version 2 of the API. --consistency l reads with quorum=true.", {
        **_CONSISTENCY, **_KEYS}, {"consistency": "s", "key_space": 1000}),
    "v2-wait": Command("Set a key that many requests of version 2 wait for, each on a connection of its "
                       "own. An operation is one change at one of them, from the sending of the set. Before "
                       "the next change all wait again. Further rows: watch_created, round, to_all (until "
                       "the last one has the change).", {
        "waiters": _opt(int, 1000, "Requests that wait."),
        "key_size_bytes": _SIZES["key_size_bytes"], "val_size_bytes": _SIZES["val_size_bytes"]}, total=10),
    "kubernetes": Command(
        "The requests of a Kubernetes cluster's API servers, at fixed rates: renewals of nodes' leases and "
        "updates of pods by guarded transactions, keep-alives, lists of all pods in pages and whole, watches "
        "of every kind. A latency counts from the planned send time. Further rows: each kind of request, "
        "event, page, conflict.", {
            "scale": _opt(float, 1.0, "Factor of all rates."),
            "pods": _opt(int, 10_000, "Pods, of 2 to 4 KB each."),
            "nodes": _opt(int, 5_000, "Nodes, each with a lease."),
            "watches": _opt(int, 1_000, "Watches of all API servers, a stream for each."),
            "kinds": _opt(int, 200, "Kinds of objects that each API server watches."),
            "renewals_per_s": _opt(float, 5_000.0, "Renewals of nodes' leases a second.", "--renewals"),
            "keep_alives_per_s": _opt(float, 1_000.0, "Keep-alives of etcd's own leases a second.",
                                      "--keep-alives"),
            "statuses_per_s": _opt(float, 500.0, "Status updates of pods a second.", "--statuses"),
            "lists_per_s": _opt(float, 1.0, "Lists in pages a second, and as many in one request.",
                                "--lists"),
            "progress_per_s": _opt(float, 50.0, "Progress requests a second.", "--progress"),
            "page": _opt(int, 500, "Keys of a page."),
            "leases": _opt(int, 1_000, "etcd leases to keep alive."),
            "lease_ttl_s": _opt(int, 600, "TTL of these leases, in seconds.", "--ttl"),
        }, {"conns": 100, "duration": "10s"}, 0),
    "lease-keepalive": Command("Keep leases alive, each client on a stream of its own. Further row: "
                               "grant_100 (a hundred leases granted at once).", {
        "leases": _opt(int, 100, "Number of leases, granted first and revoked afterwards."),
        "lease_ttl_s": _opt(int, 60, "TTL of the leases, in seconds.", "--ttl")}),
    "lease-grant": Command("Grant leases; all are revoked afterwards.", {
        "lease_ttl_s": _opt(int, 600, "TTL of the leases, in seconds.", "--ttl")}),
}
_SPEC_FIELDS = frozenset(f.name for f in fields(Spec))
_SEVERAL: Options = {
    "tests": (Annotated[str, typer.Argument(metavar="TEST,...", help="Such as put,range,txn-compare.")], ...),
    **_KEYS, **_CONSISTENCY, **_POPULATE, **_COMMON,
}


def _several(given: dict[str, Any]) -> None:
    """``run``: commands that need no options but these, one after the other."""
    tests = [name for name in given.pop("tests").split(",") if name]
    if unknown := [name for name in tests if name not in UNARY]:
        _fail(f"no test {unknown[0]}; there are {', '.join(UNARY)}")
    _load_all(tests, given)


def _register(name: str, command: Command) -> None:
    app.command(name, help=command.help)(taking(command.taken(), lambda given: _load_all([name], given)))


for _name, _command in COMMANDS.items():
    _register(_name, _command)
app.command("run", help="Run several tests one after the other, with the same options.")(
    taking(_SEVERAL, _several))


def _load_all(tests: Sequence[str], given: dict[str, Any]) -> None:
    """Make the runs, show them, and exit with one of the codes of ``app``'s epilog."""
    results: list[dict[str, Any]] = []
    try:
        limits = outcome.thresholds(given["fail_if"])
        if given["save"] is not None:
            given["save"].open("a").close()  # what cannot be written is found out before the load
        try:
            _runs(tests, given, results)
        finally:  # the next one may fail
            if results:
                _tell(results, given)
        met = [f"{limit.text}: {one['command']}, {one['settings']['clients']} clients"
               for one in results for limit in limits if limit.met(one)]
    except ValueError as error:
        _fail(str(error))
    except (run.RunError, RpcError, OSError) as error:
        _errors.print(f"error: {error}", style="red", markup=False)
        raise typer.Exit(1) from None
    except asyncio.CancelledError:  # Ctrl-C before the first run, or twice
        raise typer.Exit(130) from None
    for line in met:
        _errors.print(f"failed: {line}", style="red", markup=False)
    if code := _exit_code(results, met, any(limit.figure == "errors" for limit in limits)):
        raise typer.Exit(code)


def _tell(results: Sequence[dict[str, Any]], given: dict[str, Any]) -> None:
    """Where a file or a program wants them. OSError."""
    text = json.dumps(results[0] if len(results) == 1 else results) + "\n"
    if given["save"] is not None:
        given["save"].write_text(text, encoding="utf-8")
    if given["as_json"] or given["as_csv"]:
        sys.stdout.write(text if given["as_json"] else outcome.table(results))


def _exit_code(results: Sequence[dict[str, Any]], met: Sequence[str], errors_limited: bool) -> int:
    if any(one["interrupted"] for one in results):
        return 130
    if met:
        return 3
    return int(not errors_limited and any(one["errors"] for one in results))


def _runs(tests: Sequence[str], given: dict[str, Any], results: list[dict[str, Any]]) -> None:
    """A run of each test with each number of clients, shown as it ends and appended to the results.
    ValueError, RunError or OSError."""
    if given["as_json"] and given["as_csv"]:
        raise ValueError("--json and --csv exclude each other")
    before = [(path, outcome.saved(path))
              for path in map(Path, given["against"].split(",")) if given["against"]]
    stages = [int(n) for n in given["stages"].split(",") if n] if given["stages"] else [given["clients"]]
    for name in tests:
        for clients in stages:
            if not results or not results[-1]["interrupted"]:
                results.append(_one(name, COMMANDS[name], {**given, "clients": clients}))
                _show(results[-1], given, before)


def _one(name: str, command: Command, given: dict[str, Any]) -> dict[str, Any]:
    """One run. ValueError, RunError or OSError if it cannot be made."""
    if given.get("consistency", "l") not in ("l", "s"):
        raise ValueError("--consistency must be l or s")
    given["duration_s"] = outcome.seconds(given["duration"], bare=1.0)
    if given["total"] is None:
        given["total"] = 0 if given["duration_s"] else command.total
    spec = _spec(name, given)
    spec.check()
    members = spec
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
        async with upkeep.compacting(spec, given.get("compact_interval_s", 0.0),
                                     given.get("compact_delta", 0)) as failed:
            result = await run.run(spec, processes=given["processes"], server_roots=roots, progress=progress,
                                   stop=stop)
        result["errors"].update(failed)
        return result | {"interrupted": stop.is_set()}

    result: dict[str, Any] = with_progress(work, spec.command, spec.total or None, quiet=quiet,
                                           duration_s=spec.duration_s)
    if given.get("check_hashkv"):
        _check_hashes(result, members)
    return result


def _check_hashes(result: dict[str, Any], spec: Spec) -> None:
    """Add the members' hashes, and an error if they differ or cannot be had."""
    try:
        found = result["hash_kv"] = asyncio.run(upkeep.hash_kv(spec))
    except (OSError, RpcError) as error:
        result["errors"][f"hashes of the members: {error}"] = 1
        return
    if len(set(found.values())) > 1:
        result["errors"]["the hashes of the members differ"] = 1


def _show(result: dict[str, Any], given: dict[str, Any],
          before: Sequence[tuple[Path, list[dict[str, Any]]]]) -> None:
    if given["as_json"] or given["as_csv"]:
        return
    console = report.output()
    if given["quiet"]:
        report.write(console, outcome.one_line(result))
    else:
        if given["stages"] or result["interrupted"]:
            report.write(console, Text(outcome.one_line(result), style="bold"))
        report.show(console, result, sample=given["sample"], precise=given["precise"])
    report.write(console, *(outcome.look_back(result, path, runs) for path, runs in before))


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
    return Spec(name, **values)


def with_progress(work: Callable[[run.Progress, asyncio.Event], Any], what: str, total: int | None, *,
                  quiet: bool, duration_s: float = 0.0) -> Any:
    """Run a coroutine with a progress bar on stderr if that is a terminal.

    Ctrl-C sets the event that the coroutine gets; a second Ctrl-C cancels it."""
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
    """The arguments with options moved behind the command, since etcd's tool takes ``--conns=100 put``."""
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
    from bench.plan import cli as plan_cli

    compare_cli.register(app)
    plan_cli.register(app)
    app(args=command_first(sys.argv[1:]), obj=ground, prog_name="muster-bench")


if __name__ == "__main__":
    main()
