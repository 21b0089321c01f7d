"""``shard list`` and ``shard of``, of muster only: from ``/muster/shards`` and ``/muster/placement`` of its
hosts."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any

import grpc
from muster_client.pb import rpc_pb2

from cluster.errors import FUTURE_REV, EtcdError
from cluster.gotext import quote, raw, si_bytes
from cluster.pb import shards_pb2
from cluster.placement import Placement, Table
from tools.musterctl.client import RequestError, Session, failing_with, session
from tools.musterctl.command import Exit, Invocation
from tools.musterctl.commands.keys.kv import span
from tools.musterctl.pages import page
from tools.musterctl.printing import layout
from tools.musterctl.printing.printer import choose

HEADER = (
    "SHARD", "HOST", "ROLE", "TERM", "COMMIT", "APPLIED", "ORDER", "LAG", "REVISION", "KEYS", "SIZE", "CPU",
    "FEED FROM")
UNSURE = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED)
_FORMATS = ("simple", "table", "json", "fields")

Facts = dict[str, Any]


def list_shards(invocation: Invocation) -> None:
    """Every shard on every host of the cluster, also with one endpoint."""
    if invocation.args:
        raise Exit(128, "shard list command accepts no arguments")
    s = session_of(invocation)
    with failing_with(1, "failed to fetch endpoints from the cluster's member list: {}"):
        request = rpc_pb2.MemberListRequest(linearizable=False)
        members = (
            s.client()
            .unary("Cluster/MemberList", request, rpc_pb2.MemberListResponse, s.timeout_s, True)
            .members)
    found: list[Facts] = []
    silent: list[str] = []
    for member in sorted(members, key=lambda m: m.name):
        host = ask_any(s, list(member.clientURLs), "/muster/shards")
        if host is None:
            silent.append(member.name or f"{member.ID:x}")
        else:
            found += [
                {"host": host["name"], "member_id": host["member_id"], **facts} for facts in host["shards"]
            ]
    found.sort(key=lambda facts: (facts["shard"], facts["host"]))
    newest = max((facts["order_index"] for facts in found if facts["up"]), default=0)
    for facts in found:
        if facts["up"]:
            facts["order_lag"] = newest - facts["order_index"]
    names = {facts["member_id"]: facts["host"] for facts in found}
    show(s, HEADER, [_row(facts, names) for facts in found], found, found)
    _show_growth(s, found, names)
    for facts in found:
        if lacking := facts.get("shards_lacking"):
            shards = ", ".join(map(str, lacking))
            print(f"host {facts['host']} lacks up to {facts['records_lacking']} order records of shards "
                  f"{shards}: a forced start of it alone would lose writes", file=sys.stderr)
    for name in silent:
        print(f"host {name} does not answer", file=sys.stderr)
    if silent:
        raise Exit(1)


def _show_growth(s: Session, found: list[Facts], names: dict[str, str]) -> None:
    """What the cluster's data may hold, as the host says that has applied most of the order."""
    said = [facts for facts in found if facts["up"] and facts["shard"] == 0 and "growth" in facts]
    if s.printer.kind != "table" or not said:
        return
    newest = max(said, key=lambda facts: facts["order_index"])
    lacking = ", ".join(names.get(member, member) for member in newest["growth_lacking"])
    known = f"level {newest['growth_known']}"
    print(f"growth: level {newest['growth']}; "
          + (f"not said yet that they know {known}: {lacking}" if lacking else f"all hosts know {known}"))


def enable_growth(invocation: Invocation) -> None:
    """The cluster's data may grow from here on (``cluster.features.growth``)."""
    if invocation.args:
        raise Exit(128, "shard enable-growth command accepts no arguments")
    s = session_of(invocation)
    request = shards_pb2.EnableGrowthRequest()
    r = s.ask("musterpb.Shards/EnableGrowth", request, shards_pb2.EnableGrowthResponse)
    facts = {"level": r.level}
    show(s, ("LEVEL",), [[str(r.level)]], [facts], facts)


def _row(facts: Facts, names: dict[str, str]) -> list[str]:
    if not facts["up"]:
        role = facts["state"] if facts.get("state") == "forming" else "down"
        return [str(facts["shard"]), facts["host"], role, *[""] * (len(HEADER) - 3)]
    feed = facts.get("feed_from", "")
    return [
        str(facts["shard"]), facts["host"], facts["role"], str(facts["term"]), str(facts["commit_index"]),
        str(facts["applied_index"]), str(facts["order_index"]), str(facts["order_lag"]),
        str(facts["revision"]),
        str(facts["keys"]) if facts["keys"] >= 0 else "?", si_bytes(facts["size_bytes"]),
        f"{facts['cpu_share']:.0%}",
        names.get(feed, feed),
    ]  # fmt: skip


def of(invocation: Invocation) -> None:
    """The shards that a key or a range can touch, by the agreed layout."""
    s = session_of(invocation)
    if not invocation.args:
        raise Exit(128, "shard of command needs one argument as key and an optional argument as range_end")
    key, range_end = span(invocation.flags, invocation.args, "shard of")
    revision = _revision(s, invocation)
    placement = placement_at(s, list(s.config.endpoints))
    if placement is None:
        raise Exit(1, "no endpoint answers /muster/placement: it must be muster's")
    try:
        shards = placement.table.owners_at(key, range_end, revision) if revision else placement.shards_of(
            key, range_end)
    except EtcdError as error:
        raise Exit(1, error.text) from None
    prefix = placement.prefix_of(raw(invocation.args[0])) if len(shards) == 1 else b""
    text = prefix.decode(errors="surrogateescape")
    facts = {
        "shards": list(shards), "of": placement.shards, "depth": placement.table.base.depth,
        "placed_by": prefix.decode(errors="backslashreplace"), "generation": placement.table.generation,
    }  # fmt: skip
    show(s, ("SHARD", "PLACED BY"), [[str(shard), text] for shard in shards], [facts], facts)


def placement_at(s: Session, endpoints: Sequence[str]) -> Placement | None:
    """As the first of these endpoints tells it that answers; None if none does."""
    agreed = ask_any(s, endpoints, "/muster/placement")
    if agreed is None:
        return None
    placement = Placement(agreed["shards"], agreed["depth"])
    try:
        if "table" in agreed:
            placement.replace(Table.decode(bytes.fromhex(agreed["table"])))
        elif agreed.get("generation"):  # else a host of before growth tells the layout alone
            if not (table := _hidden_table(s, endpoints)):
                return None  # an older host, which does not tell it so
            placement.replace(Table.decode(table))
    except ValueError as error:
        raise Exit(1, f"the host's table of placement cannot be read: {error}") from None
    except RequestError as error:
        if error.code in UNSURE:
            return None
        raise Exit(1, str(error)) from None
    return placement


def _hidden_table(s: Session, endpoints: Sequence[str]) -> bytes:
    """While there are users, the role root alone may see the keys in it. RequestError."""
    request = shards_pb2.MovesRequest(table=True)
    return s.kept_client(*endpoints).unary(
        "musterpb.Shards/Moves", request, shards_pb2.MovesResponse, s.timeout_s, True).table


def _revision(s: Session, invocation: Invocation) -> int:
    """That was asked for; 0: now. A host that has not applied it does not know its owners yet."""
    revision = invocation.flags.number("rev")
    if revision < 0:
        raise Exit(128, "--rev must not be negative")
    host = ask_any(s, s.config.endpoints, "/muster/shards") if revision else None
    applied = [facts["revision"] for facts in host["shards"] if facts["up"]] if host else []
    if applied and revision > max(applied):
        raise Exit(1, FUTURE_REV.text)
    return revision


def session_of(invocation: Invocation) -> Session:
    s = session(invocation)
    if "write-out" not in invocation.flags.given:
        s.printer = choose("table", s.printer.as_hex)  # no etcdctl has another default
    if s.printer.kind not in _FORMATS:
        raise Exit(4, f"{s.printer.kind} not supported as output format")
    return s


def show(
    s: Session, header: Sequence[str], rows: list[list[str]], blocks: list[Facts], document: object
) -> None:
    """``rows`` for people, ``blocks`` (of lines) and ``document`` for programs."""
    if s.printer.kind == "json":
        print(json.dumps(document, separators=(",", ":")))
    elif s.printer.kind == "table":
        sys.stdout.write(layout.grid(header, rows))
    elif s.printer.kind == "fields":
        for block in blocks:
            print("".join(f'"{_field(name)}" : {_value(value)}\n' for name, value in block.items()))
    else:
        for row in rows:
            print(", ".join(row))


def _field(name: str) -> str:
    """``member_id`` in the format's spelling: MemberID."""
    return "".join(
        "ID" if word == "id" else "CPU" if word == "cpu" else word.capitalize() for word in name.split("_")
    )


def _value(value: object) -> str:
    if isinstance(value, str):
        return quote(value)
    if isinstance(value, bool):
        return str(value).lower()
    return f"[{' '.join(map(str, value))}]" if isinstance(value, list) else str(value)


def ask_any(s: Session, endpoints: Sequence[str], path: str) -> Facts | None:
    """A JSON document of the first endpoint that gives it; None if none does."""
    for endpoint in endpoints:
        try:
            document = json.loads(page(s.config, endpoint, path, s.timeout_s))
        except (OSError, ValueError):
            continue
        if isinstance(document, dict):
            return document
    return None
