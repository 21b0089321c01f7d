"""The commands of ``muster local``."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from tools.muster import layout, local, pinning
from tools.muster.flag_docs import flag_list
from tools.muster.flags import Flag, Kind
from tools.muster.parse import UsageError, Values, resolve

FLAGS = {
    f.name: f
    for f in (
        Flag("hosts", Kind.UINT, "3", "number of hosts"),
        Flag("shards", Kind.UINT, "1", "number of shards"),
        Flag("data-dir", Kind.STR, "local.muster", "directory of all hosts' data and logs"),
        Flag("base-port", Kind.UINT, "2379", "client port of host 0; host i's is this + 100 * i, its peer ports start right after"),
        Flag("fronts", Kind.UINT, "1", "front processes of each host"),
        Flag("cpus", Kind.STR, "auto", 'CPUs to share out among the hosts: "auto", "none" or a list'),
        Flag("shard", Kind.STR, "", "kill: only the host's node of this shard"),
        Flag("front", Kind.STR, "", "kill: only this front of the host"),
        Flag("wait", Kind.DURATION, "0s", "start: wait at most so long until the host is ready"),
        Flag("json", Kind.BOOL, "false", "status: as JSON"),
        Flag("help", Kind.BOOL, "false", "print this"),
    )
}

USAGE = """Usage:

  muster local [flags] [-- server flags]   run the hosts in the foreground; prints "ready" once all of it serves
  muster local status [--json]             each host's processes and shards
  muster local kill N [--shard S]          kill -9 of host N's processes, or of one node
  muster local stop N                      stop host N in order
  muster local start N [--wait 30s]        start host N again

Flags:
"""


def run(args: list[str]) -> int:
    """Run one of them; the exit code."""
    extra: list[str] = []
    if "--" in args:
        cut = args.index("--")
        args, extra = args[:cut], args[cut + 1 :]
    words, values = _split(args)
    if values["help"]:
        print(USAGE + flag_list(FLAGS))
        return 0
    command = words.pop(0) if words else ""
    if not command:
        return _run(values, tuple(extra))
    actions: dict[str, Callable[[layout.LocalHost, Values], str]] = {"kill": _kill, "stop": _stop, "start": _start}
    found = layout.load(values["data-dir"])
    if command == "status" and not words:
        return _status(found, values["json"])
    if command not in actions or len(words) != 1 or extra:
        raise UsageError("usage: muster local [status | kill N | stop N | start N] [flags]")
    if not words[0].isdigit():
        raise UsageError(f'"{words[0]}" is not the number of a host')
    print(actions[command](found.host(int(words[0])), values))
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


def _run(values: Values, extra: tuple[str, ...]) -> int:
    hosts, processes = values["hosts"], values["shards"] + values["fronts"]
    pins = pinning.assign(values["cpus"], hosts * processes)
    shares = [pins[i * processes : (i + 1) * processes] for i in range(hosts)]
    cpus = ["none" if -1 in share else ",".join(map(str, share)) for share in shares]
    made = layout.plan(
        values["data-dir"], hosts, values["shards"], values["base-port"], values["fronts"], cpus, extra
    )
    return local.run(values["data-dir"], made)


def _kill(host: layout.LocalHost, values: Values) -> str:
    if values["shard"]:
        return f"killed node {values['shard']} of host {host.index} (process {local.kill_node(host, _number(values, 'shard'))})"
    if values["front"]:
        return f"killed front {values['front']} of host {host.index} (process {local.kill_front(host, _number(values, 'front'))})"
    return f"killed host {host.index} (process {local.kill(host)} and its children)"


def _stop(host: layout.LocalHost, values: Values) -> str:
    return f"stopped host {host.index} (process {local.stop(host)})"


def _start(host: layout.LocalHost, values: Values) -> str:
    return f"started host {host.index} (process {local.start(values['data-dir'], host, wait_s=values['wait'] / 1000)})"


def _number(values: Values, flag: str) -> int:
    if not values[flag].isdigit():
        raise UsageError(f'invalid value "{values[flag]}" for flag -{flag}: parse error')
    return int(values[flag])


def _status(found: layout.Layout, as_json: bool) -> int:
    hosts: list[dict[str, Any]] = []
    for host in found.hosts:
        state = local.status_of(host)
        base = {"host": host.index, "name": host.name, "up": state is not None, "endpoint": host.endpoint, "log_file": host.log_file}
        hosts.append({**base, **(state or {})})
    leaders = _leaders(hosts, found.shards)
    if as_json:
        print(json.dumps({"hosts": hosts, "shards": leaders}))
        return 0
    for h in hosts:
        if not h["up"]:
            print(f"host {h['host']}  {h['endpoint']}  down")
            continue
        print(f"host {h['host']}  {h['endpoint']}  {'ready' if h['ready'] else 'not ready'}  member {h['member_id']}  supervisor {h['pid']}")
        for n in h["nodes"]:
            where = f"{_process(n)}  term {n.get('term', '?')}  commit {n.get('commit_index', '?')}"
            print(f"  node {n['shard']}   {where}  applied {n.get('applied_index', '?')}  revision {n.get('revision', '?')}{'  leader' if n['is_leader'] else ''}")
        for f in h["fronts"]:
            print(f"  front {f['front']}  {_process(f)}")
    for shard in leaders:
        who = f"host {shard['leader_host']}" if shard["leader_host"] is not None else "no leader"
        print(f"shard {shard['shard']}  {who}  term {shard['term']}")
    return 0


def _process(p: dict[str, Any]) -> str:
    pin = f"cpu {p['cpu']}" if p["cpu"] >= 0 else "not pinned"
    return f"process {p['pid'] or 'down'}  {pin}{'' if p['ready'] else '  not ready'}"


def _leaders(hosts: list[dict[str, Any]], shards: int) -> list[dict[str, Any]]:
    """Each shard's leader, by the word of the highest term that any node knows."""
    by_member = {h["member_id"]: h["host"] for h in hosts if h["up"]}
    found = []
    for shard in range(shards):
        nodes = [n for h in hosts if h["up"] for n in h["nodes"] if n["shard"] == shard and "term" in n]
        best = max(nodes, key=lambda n: (n["term"], bool(n["leader"])), default=None)
        leader = best["leader"] if best else ""
        found.append({
            "shard": shard, "leader": leader, "leader_host": by_member.get(leader),
            "term": best["term"] if best else 0,
        })  # fmt: skip
    return found
