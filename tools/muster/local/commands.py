"""The commands of ``muster local``."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tools.muster.config import settings as config
from tools.muster.config.kinds import AUTO, Flag, Kind
from tools.muster.config.parse import ConfigError, UsageError, Values, resolve
from tools.muster.flag_docs import flag_list
from tools.muster.host import pinning, ports
from tools.muster.local import hosts as local
from tools.muster.local import layout

_ADDRESS = "127.0.0.1"  # of all hosts
FLAGS = {
    f.name: f
    for f in (
        Flag("hosts", Kind.UINT, "3", "number of hosts"),
        Flag(
            "shards", Kind.COUNT, "1",
            'number of shards; "auto": as many as there are CPUs for each host, at least 1'),
        Flag("data-dir", Kind.STR, "local.muster", "directory of all hosts' data and logs"),
        Flag(
            "base-port", Kind.UINT, "2379",
            "client port of host 0; host i's is this + 100 * i, its peer port is the next one"),
        Flag(
            "fronts", Kind.COUNT, "auto",
            'front processes of each host; 0: node 0 serves clients itself; "auto": one for '
            'every four CPUs of a host'),
        Flag("cpus", Kind.STR, "auto", 'CPUs to share out among the hosts: "auto", "none" or a list'),
        Flag("shard", Kind.STR, "", "kill: only the host's node of this shard"),
        Flag("front", Kind.STR, "", "kill: only this front of the host"),
        Flag("wait", Kind.DURATION, "0s", "start: wait at most this long until the host is ready"),
        Flag("json", Kind.BOOL, "false", "status: as JSON"),
        Flag("help", Kind.BOOL, "false", "print this"))
}

USAGE = """Usage:

  muster local [flags] [-- server flags]   run the hosts in the foreground; "ready" is printed once all serve
  muster local status [--json]             each host's processes and shards
  muster local kill N... [--shard S]       kill -9 of all processes of host N, or of one node
  muster local stop N...                   stop host N in order
  muster local start N... [--wait 30s]     start host N again

Flags:
"""


_COMMANDS = "usage: muster local [status | kill N... | stop N... | start N...] [flags]"
OnReady = Callable[[str, layout.Layout], None]


def run(args: list[str], on_ready: OnReady | None = None, ports_by: str = "--base-port=12379, say") -> int:
    """Run one of them; the exit code. ``on_ready(data_dir, layout)``: a started cluster serves. ``ports_by``:
    how ports are chosen, for messages."""
    extra: list[str] = []
    if "--" in args:
        cut = args.index("--")
        args, extra = args[:cut], args[cut + 1 :]
    words, values = _split(args)
    if values["help"]:
        print(USAGE + flag_list(FLAGS))
        return 0
    command = words.pop(0) if words else ""
    _check_part(command, values)
    if not command:
        return _run(values, tuple(extra), on_ready, ports_by)
    actions: dict[str, Callable[[layout.LocalHost, Values], str]] = {
        "kill": _kill, "stop": _stop, "start": _start,
    }
    if command != "status" and command not in actions:
        raise UsageError(f'unknown command "{command}" for "muster local": {_COMMANDS}')
    found = layout.load(values["data-dir"])
    if command == "status" and not words:
        return _status(found, values["json"])
    if command == "status" or not words or extra:
        raise UsageError(_COMMANDS)
    for word in words:
        if not _is_number(word):
            raise UsageError(f'"{word}" is not the number of a host')
    hosts = [found.host(int(word)) for word in words]
    with ThreadPoolExecutor(len(hosts)) as pool:  # hosts at once, not one after the other
        for line in pool.map(lambda host: actions[command](host, values), hosts):
            print(line)
    return 0


def _split(args: list[str]) -> tuple[list[str], Values]:
    """Words and flags, in any order."""
    words: list[str] = []
    flags: list[str] = []
    while args:
        values = resolve(FLAGS, args, {}, use_environ=False)
        flags += args[: len(args) - len(values.rest)]
        words += values.rest[:1]
        args = values.rest[1:]
    return words, resolve(FLAGS, flags, {}, use_environ=False)


def _run(values: Values, extra: tuple[str, ...], on_ready: OnReady | None, ports_by: str) -> int:
    recorded = _follow_recorded(values)
    values.values["shards"] = config.shard_count(values["shards"], values["hosts"])
    values.values["fronts"] = config.front_count(values["fronts"], values["hosts"])
    hosts, processes = values["hosts"], values["shards"] + values["fronts"]
    pins = pinning.assign(values["cpus"], hosts * processes)
    shares = [pins[i * processes : (i + 1) * processes] for i in range(hosts)]
    yields = pinning.lets_go(values["cpus"])
    cpus = ["none" if -1 in share else pinning.written(share, yields=yields) for share in shares]
    made = layout.plan(
        values["data-dir"], hosts, values["shards"], values["base-port"], values["fronts"], cpus, extra)
    if not recorded:
        _check_ports(made, ports_by)
    data_dir = values["data-dir"]
    return local.run(data_dir, made, (lambda: on_ready(data_dir, made)) if on_ready else None)


def _check_ports(made: layout.Layout, ports_by: str) -> None:
    """ConfigError if a port of a new cluster is taken, before the ports are recorded."""
    for host in made.hosts:
        if told := ports.taken(_ADDRESS, (host.client_port, host.peer_port)):
            raise ConfigError(
                f"listen tcp {told}: another program has this port of host {host.index}, perhaps an etcd or "
                f"another muster: end it, or choose other ports with {ports_by}")


def _follow_recorded(values: Values) -> bool:
    """Take over a data directory's recorded hosts, shards and ports, part of its members' identity. Whether
    there are any."""
    try:
        recorded = layout.load(values["data-dir"])
    except layout.NoCluster:
        return False
    for flag, has in (
        ("hosts", len(recorded.hosts)), ("shards", recorded.shards),
        ("base-port", recorded.hosts[0].client_port),
    ):  # fmt: skip
        if values.is_set(flag) and values[flag] not in (has, AUTO):
            raise ConfigError(
                f"{values['data-dir']} was made with --{flag}={has}: it cannot run "
                f"with --{flag}={values[flag]}")
        values.values[flag] = has
    return True


def _check_part(command: str, values: Values) -> None:
    """UsageError if --shard or --front would be passed over, and a whole host hit."""
    given = [flag for flag in ("shard", "front") if values.is_set(flag)]
    if given and command != "kill":
        raise UsageError("--shard and --front are of `muster local kill` alone")
    if len(given) > 1:
        raise UsageError("give either --shard or --front")
    for flag in given:
        _number(values, flag)


def _kill(host: layout.LocalHost, values: Values) -> str:
    if values.is_set("shard"):
        return (
            f"killed node {values['shard']} of host {host.index} (process "
            f"{local.kill_node(host, _number(values, 'shard'))})")
    if values.is_set("front"):
        return (
            f"killed front {values['front']} of host {host.index} (process "
            f"{local.kill_front(host, _number(values, 'front'))})")
    return f"killed host {host.index} (process {local.kill(host)} and its children)"


def _stop(host: layout.LocalHost, values: Values) -> str:
    return f"stopped host {host.index} (process {local.stop(host)})"


def _start(host: layout.LocalHost, values: Values) -> str:
    return (
        f"started host {host.index} (process "
        f"{local.start(values['data-dir'], host, wait_s=values['wait'] / 1000)})")


def _is_number(word: str) -> bool:
    return word.isascii() and word.isdigit()


def _number(values: Values, flag: str) -> int:
    if not _is_number(values[flag]):
        raise UsageError(f'invalid value "{values[flag]}" for flag -{flag}: parse error')
    return int(values[flag])


def status(found: layout.Layout) -> dict[str, Any]:
    """The state of all hosts, and each shard's leader."""
    hosts: list[dict[str, Any]] = []
    for host in found.hosts:
        state = local.status_of(host)
        base = {
            "host": host.index, "name": host.name, "up": state is not None, "endpoint": host.endpoint,
            "log_file": host.log_file,
        }
        hosts.append({**base, **(state or {})})
    return {"hosts": hosts, "shards": _leaders(hosts, found.shards)}


def _status(found: layout.Layout, as_json: bool) -> int:
    told = status(found)
    if as_json:
        print(json.dumps(told))
        return 0
    for h in told["hosts"]:
        if not h["up"]:
            print(f"host {h['host']}  {h['endpoint']}  down")
            continue
        print(
            f"host {h['host']}  {h['endpoint']}  {'ready' if h['ready'] else 'not ready'}  member "
            f"{h['member_id']}  supervisor {h['pid']}")
        for n in h["nodes"]:
            where = f"{_process(n)}  term {n.get('term', '?')}  commit {n.get('commit_index', '?')}"
            print(
                f"  node {n['shard']}   {where}  applied {n.get('applied_index', '?')}  revision "
                f"{n.get('revision', '?')}{'  leader' if n['is_leader'] else ''}")
        for f in h["fronts"]:
            print(f"  front {f['front']}  {_process(f)}")
    for shard in told["shards"]:
        who = f"host {shard['leader_host']}" if shard["leader_host"] is not None else "no leader"
        print(f"shard {shard['shard']}  {who}  term {shard['term']}")
    return 0


def _process(p: dict[str, Any]) -> str:
    pin = f"cpu {p['cpu']}" if p["cpu"] >= 0 else "not pinned"
    return f"process {p['pid'] or 'down'}  {pin}{'' if p['ready'] else '  not ready'}"


def _leaders(hosts: list[dict[str, Any]], shards: int) -> list[dict[str, Any]]:
    """Each shard's leader, by the highest term that a node knows. ``shards``: as many as there were at the
    beginning, for hosts that are down."""
    by_member = {h["member_id"]: h["host"] for h in hosts if h["up"]}
    found = []
    for shard in sorted({n["shard"] for h in hosts if h["up"] for n in h["nodes"]}) or range(shards):
        nodes = [n for h in hosts if h["up"] for n in h["nodes"] if n["shard"] == shard and "term" in n]
        best = max(nodes, key=lambda n: (n["term"], bool(n["leader"])), default=None)
        leader = best["leader"] if best else ""
        found.append({
            "shard": shard, "leader": leader, "leader_host": by_member.get(leader),
            "term": best["term"] if best else 0,
        })  # fmt: skip
    return found
