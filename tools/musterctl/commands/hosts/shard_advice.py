"""``shard advice``, of muster only: what the policy of growth finds, and the figures that it went by."""

from __future__ import annotations

from typing import Any

from cluster.gotext import si_bytes
from cluster.pb import shards_pb2
from tools.musterctl.command import Exit, Invocation
from tools.musterctl.commands.hosts.shard import Facts, session_of, show

HEADER = ("SHARD", "LEADER", "CPU", "PUTS/S", "LIVE", "HOTTEST KEY", "OF IT")
_NOTHING = "all is well: no shard is needed, none is to spare"
_UNKNOWN = "the leader of shard 0 knows of no load yet"
_OFF = "the leader of shard 0 runs with --growth off"


def advice(invocation: Invocation) -> None:
    if invocation.args:
        raise Exit(128, "shard advice command accepts no arguments")
    s = session_of(invocation)
    r = s.ask("musterpb.Shards/Advice", shards_pb2.AdviceRequest(), shards_pb2.AdviceResponse)
    names = {host.member: host.name for host in r.hosts}
    rows = [
        [str(shard.shard), names.get(shard.leader, f"{shard.leader:x}"), f"{shard.cpu:.0%}",
         f"{shard.rate:.0f}", si_bytes(shard.live_bytes), _key(shard.hottest_key),
         f"{shard.hottest_share:.0%}" if shard.hottest_key else ""]
        for shard in r.shards]
    facts = _facts(r)
    if s.printer.kind == "simple":
        print(_said(r))
        return
    show(s, HEADER, rows, [{name: value for name, value in facts.items() if not _nested(value)}], facts)
    if s.printer.kind == "table":
        for host in r.hosts:
            told = (f"{host.free_cpus:.1f} of {host.cpus:.0f} CPUs free, {host.free_disk:.0%} of the disk"
                    if host.tells else "does not tell")
            print(f"host {host.name}: {told}")
        print(f"advice ({r.mode}): {_said(r)}")
        for text in r.holds:
            print(f"not now: {text}")
        if r.last:
            print(f"last: {r.last}")
        if r.stopped:
            print(f"stopped: {r.stopped}")


def _said(r: Any) -> str:
    if r.mode == "off":
        return _OFF
    if not r.shards:
        return _UNKNOWN
    return f"{r.text} (for {r.for_s:.0f} s)" if r.text else _NOTHING


def _facts(r: Any) -> Facts:
    """For programs; keys as text, other bytes than UTF-8 with backslashes."""
    facts: Facts = {
        "mode": r.mode, "action": r.action, "text": r.text, "shard": r.shard, "target": r.target,
        "key": _key(r.key), "range_end": _key(r.range_end), "share": round(r.share, 3),
        "for_s": round(r.for_s, 1), "holds": list(r.holds), "last": r.last, "stopped": r.stopped}
    facts["shards"] = [
        {"shard": shard.shard, "leader": f"{shard.leader:x}", "cpu": round(shard.cpu, 3),
         "rate": round(shard.rate), "live_bytes": shard.live_bytes, "hottest_key": _key(shard.hottest_key),
         "hottest_share": round(shard.hottest_share, 3)}
        for shard in r.shards]
    facts["hosts"] = [
        {"host": host.name, "member_id": f"{host.member:x}", "tells": host.tells, "cpus": host.cpus,
         "free_cpus": round(host.free_cpus, 2), "free_disk": round(host.free_disk, 3)}
        for host in r.hosts]
    return facts


def _nested(value: object) -> bool:
    return isinstance(value, list) and any(isinstance(part, dict) for part in value)


def _key(key: bytes) -> str:
    return key.decode(errors="backslashreplace")
