"""Comparisons as one page that loads nothing: the verdict, charts as inline SVG, tables with a sort script."""

from __future__ import annotations

import re
import statistics
from collections.abc import Callable, Sequence
from html import escape
from typing import Any

from bench.compare import report as tables
from bench.compare.figures import figures, good_runs, median
from bench.report.svg import Series, bars, lines

_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;color:#222;max-width:2000px;margin:1.5rem auto;padding:0 1.5rem}
h1{font-size:1.6rem} h2{font-size:1.25rem;margin-top:2.5rem;border-bottom:1px solid #ddd} h3{font-size:1rem}
table{border-collapse:collapse;font-size:13px;margin:1rem 0} td,th{padding:2px 10px 2px 0;text-align:right}
td:first-child,th:first-child,td:nth-child(2),th:nth-child(2),td:last-child{text-align:left}
tr.r td{font-weight:600;border-bottom:1px solid #ddd} .no{color:#b00020} .yes{color:#1b7f3b}
.c{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(34rem,100%),1fr));gap:1rem}
.t{overflow-x:auto} th{cursor:pointer} th:hover{text-decoration:underline} .v li{margin:.2rem 0}
@media(max-width:40rem){body{padding:0 .6rem;margin:.6rem auto} h1{font-size:1.3rem} .c{overflow-x:auto} svg{min-width:30rem}}
svg{background:#fafafa;border:1px solid #eee;width:100%;max-width:60rem;height:auto}
svg text{font:11px system-ui,sans-serif;fill:#333} svg .t{font-size:13px;font-weight:600}
svg .y{text-anchor:end;fill:#666} svg .x{text-anchor:middle} svg .v{text-anchor:middle;font-size:9px}
svg .u{fill:#666;font-size:10px} svg .g{stroke:#e4e4e4} svg .w{stroke:#222;fill:none;stroke-opacity:.55}
"""
# No character here that XML would have to escape: the page stays well-formed
_SORT = """
for (const head of document.querySelectorAll("th")) head.addEventListener("click", () => {
  const rows = Array.from(head.closest("table").rows).slice(1), at = head.cellIndex, up = head.dataset.up !== "1";
  head.dataset.up = up ? "1" : "0";
  const of = row => { const text = row.cells[at].textContent.replaceAll(",", ""), value = parseFloat(text);
    return isNaN(value) ? text : value; };
  const order = (a, b) => typeof a === typeof b ? (a > b ? 1 : a === b ? 0 : -1) : typeof a === "number" ? -1 : 1;
  rows.sort((a, b) => order(of(a), of(b)) * (up ? 1 : -1)).forEach(row => row.parentNode.append(row));
});
"""
#: The work of the headline chart, in few words.
_HEADLINES = {
    "put-1000": "put 1000 clients", "put-100": "put 100 clients", "put-1": "put 1 client",
    "range-l-1000": "linearizable read 1000 clients", "range-s-1000": "serializable read 1000 clients",
    "range-l-1": "linearizable read 1 client", "txn-1000": "transaction 1000 clients",
    "lease-keepalive": "lease keep-alive 100 clients",
}
_QUANTILES = ("p50", "p90", "p95", "p99", "p99.9")


def page(results: list[dict[str, Any]]) -> str:
    body = "\n".join([*(line for result in results for line in _verdict(result)), *map(_part, results)])
    return ("<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">"
            '<meta name="viewport" content="width=device-width, initial-scale=1"/><title>muster-bench</title>'
            f"<style>{_STYLE}</style></head><body>\n<h1>muster-bench compare</h1>\n{body}\n"
            f"<script>{_SORT}</script></body></html>\n")


def headline(results: list[dict[str, Any]]) -> str:
    """A chart of operations per second over the first system's, of the first comparison with headline work.

    ValueError if there is none."""
    for result in results:
        cells = {cell["name"]: cell for cell in result["cells"] if cell["name"] in _HEADLINES}
        if cells:
            break
    else:
        raise ValueError("none of the headline's work was measured")
    names = [system["name"] for system in result["systems"]]
    shown = [cells[name] for name in _HEADLINES if name in cells]

    def relative(cell: dict[str, Any], name: str) -> float | None:
        base = median(cell["runs"][names[0]], "throughput_per_s")
        value = median(cell["runs"][name], "throughput_per_s")
        return value / base if base and value is not None else None

    chart = bars(f"Operations per second, {names[0]} = 1", [_HEADLINES[cell["name"]] for cell in shown],
                 [(name, [relative(cell, name) for cell in shown]) for name in names], "")
    style = "".join(line for line in _STYLE.splitlines() if line.startswith("svg "))
    return chart.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" style="background:#fafafa" ', 1
                         ).replace(">", f"><style>{style}</style>", 1) + "\n"


def _title(result: dict[str, Any]) -> str:
    return escape(result["title"] or " beside ".join(system["name"] for system in reversed(result["systems"])))


def _part(result: dict[str, Any]) -> str:
    names = [system["name"] for system in result["systems"]]
    out = [f"<h2>{_title(result)}</h2>", "<ul>",
           *(f"<li>{escape(sentence)}</li>" for sentence in tables.context(result)), "</ul>"]
    if found := tables.targets(result):
        out += ["<h3>Targets</h3>", _table(tables.TARGET_HEADS, found, last=lambda row: row[-1])]
    out += [*_section("Scaling by clients", _by_clients(result, names)),
            *_section("Scaling by shards", _by_shards(result)),
            *_section("CPU of the servers for one operation", [_figure_bars(
                result, names, "server_us_per_op", "CPU per operation", "us")]),
            *_section("Written and synced", [
                _figure_bars(result, names, "written_per_op", "Bytes written per operation", "B"),
                _figure_bars(result, names, "syncs_per_op", "Syncs per operation, all members", "")]),
            *_section("Latency", [_latency(cell, names) for cell in result["cells"]]),
            *_section("Throughput over time", [_over_time(cell, names) for cell in result["cells"]]),
            *_section("Memory at the end", [_memory(result)]),
            "<h3>All figures</h3>",
            _table(tables.HEADINGS, tables.rows(result), whole=lambda row: "r" if " / " in row[1] else "")]
    return "\n".join(out)


def _verdict(result: dict[str, Any]) -> list[str]:
    first = "the " * ("baselines" in result) + tables.base_of(result)
    said = []
    for cell in result["cells"]:
        for name, found in cell["ratios"].items() if cell["name"] in _HEADLINES else ():
            parts = [f"{found[figure]['median']:.2f} times the {what}" for figure, what in
                     (("throughput_per_s", "throughput"), ("p99_ms", "p99"), ("server_us_per_op", "CPU"))
                     if figure in found]
            if parts:
                said.append(f"{cell['title']}: {name} has {', '.join(parts)} of {first}.")
    if found := tables.targets(result):
        missed = [f"{line[0]} ({line[1]} {line[3]}, wanted {line[2]})" for line in found if line[-1] == "no"]
        said.insert(0, f"{len(found) - len(missed)} of {len(found)} targets are met"
                    + (f"; missed: {'; '.join(missed)}." if missed else "."))
    if not said:
        return []
    return [f"<h2>{_title(result)}: verdict</h2>", '<ul class="v">',
            *(f"<li>{escape(one)}</li>" for one in said), "</ul>"]


def _section(title: str, charts: list[str]) -> list[str]:
    charts = [chart for chart in charts if chart]
    return [f"<h3>{escape(title)}</h3>", '<div class="c">', *charts, "</div>"] if charts else []


def _ends(cell: dict[str, Any], name: str, figure: str) -> tuple[float, float] | None:
    values = figures(cell["runs"][name], figure)
    return (min(values), max(values)) if values else None


def _by_clients(result: dict[str, Any], names: list[str]) -> list[str]:
    groups: dict[str, list[dict[str, Any]]] = {}
    for cell in result["cells"]:
        if match := re.fullmatch(r"(put|range-[ls])-\d+", cell["name"]):
            groups.setdefault(match[1], []).append(cell)
    charts = []
    for kind, members in groups.items():
        if len(members) < 2:
            continue
        clients = {cell["name"]: int(cell["name"].rpartition("-")[2]) for cell in members}
        for figure, title, unit in (("throughput_per_s", "throughput", "ops/s"), ("p99_ms", "p99", "ms")):
            series = [Series(name, [(clients[cell["name"]], value) for cell in members
                                    if (value := median(cell["runs"][name], figure)) is not None],
                             [ends for cell in members if (ends := _ends(cell, name, figure)) is not None])
                      for name in names]
            charts.append(lines(f"{kind}: {title} by clients", series, unit,
                                [(count, f"{count}") for count in clients.values()], log_x=True,
                                log_y=figure == "p99_ms", x_title="clients"))
    return charts


def _by_shards(result: dict[str, Any]) -> list[str]:
    systems = [s for s in result["systems"] if s["name"].startswith("muster")]
    if len({s["shards"] for s in systems}) < 2:
        return []
    charts = []
    for figure, title, unit in (("throughput_per_s", "Throughput", "ops/s"),
                                ("server_us_per_op", "CPU", "us/op")):
        series = [Series(cell["name"], [(s["shards"], value) for s in systems
                                        if (value := median(cell["runs"][s["name"]], figure)) is not None])
                  for cell in result["cells"] if not cell["name"].startswith(("put-1-", "range-all"))]
        charts.append(lines(f"{title} by shards", series, unit,
                            [(s["shards"], str(s["shards"])) for s in systems], x_title="shards"))
    return charts


def _figure_bars(result: dict[str, Any], names: list[str], figure: str, title: str, unit: str) -> str:
    cells = [cell for cell in result["cells"]
             if not cell["name"].startswith(("range-all", "range-paged", "range-1k"))]
    return bars(title, [cell["name"] for cell in cells],
                [(name, [median(cell["runs"][name], figure) for cell in cells]) for name in names], unit,
                spread=[[_ends(cell, name, figure) for cell in cells] for name in names], x_title="work")


def _latency(cell: dict[str, Any], names: list[str]) -> str:
    series = []
    for name in names:
        if good := [run for run in good_runs(cell["runs"][name]) if run["operations"]]:
            series.append(Series(name, [(i + 1, statistics.median(run["latency_ms"][q] for run in good))
                                        for i, q in enumerate(_QUANTILES)]))
    return lines(cell["title"], series, "ms", [(i + 1, q) for i, q in enumerate(_QUANTILES)], log_y=True,
                 x_title="so large a part of the operations was at most so slow")


def _over_time(cell: dict[str, Any], names: list[str]) -> str:
    """All rounds one after the other, second by second; only whole seconds."""
    series = []
    for name in names:
        points, second = [], 0.0
        for run in good_runs(cell["runs"][name]):
            for _, count in run["timeline"][: max(1, int(run["duration_s"]))]:
                points.append((second, float(count)))
                second += 1
        series.append(Series(name, points))
    longest = max((len(one.points) for one in series), default=0)
    if longest < 3:
        return ""
    return lines(cell["title"], series, "ops/s",
                 [(i, str(i)) for i in range(0, longest, max(1, longest // 8))],
                 x_title="seconds, one round after the other")


def _memory(result: dict[str, Any]) -> str:
    systems = result["systems"]
    return bars("Memory of all processes (PSS)", [s["name"] for s in systems],
                [("PSS", [sum(p["pss_bytes"] for p in s["processes"]) / 2**20 for s in systems])], "MiB")


def _table(heads: Sequence[str], rows: Sequence[list[str]],
           whole: Callable[[list[str]], str] = lambda row: "",
           last: Callable[[list[str]], str] = lambda row: "") -> str:
    """A table; ``whole`` and ``last`` give the class of a row and of its last cell."""
    def tag(name: str, style: str) -> str:
        return f'<{name} class="{style}">' if style else f"<{name}>"

    out = ['<div class="t"><table><tr>', *(f"<th>{escape(head)}</th>" for head in heads), "</tr>"]
    for row in rows:
        out.append(tag("tr", whole(row)) + "".join(f"<td>{escape(text)}</td>" for text in row[:-1])
                   + tag("td", last(row)) + f"{escape(row[-1])}</td></tr>")
    return "".join(out) + "</table></div>"
