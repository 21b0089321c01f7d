"""Comparisons: what is run when time is short, ratios and targets, tables, charts."""

from __future__ import annotations

import asyncio
import json
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bench import counters
from bench.compare import comparison as compare
from bench.compare import figures, html, page
from bench.compare import report as compare_report
from bench.compare.comparison import Plan, _Clock, _key_of_shard
from bench.compare.matrix import PRESETS, Sizes, Target, cells, choose
from bench.load.spec import Spec
from bench.report import svg
from bench.systems.systems import System
from cluster.placement import Placement

METRICS = """# HELP x y
etcd_disk_wal_fsync_duration_seconds_bucket{le="+Inf"} 9
etcd_disk_wal_fsync_duration_seconds_count 7
muster_node_log_last_index_total{shard="0"} 5.0
muster_node_log_last_index_total{shard="1"} 6
broken line
"""


def run_of(throughput: float, p99: float = 10.0, **more: Any) -> dict[str, Any]:
    latency = {"mean": p99 / 5, "min": 0.1, "p50": p99 / 10, "p90": p99 / 2, "p95": p99 / 1.5, "p99": p99,
               "p99.9": p99 * 2, "max": p99 * 3}
    return {
        "operations": 1000,
        "errors": {},
        "throughput_per_s": throughput,
        "duration_s": 4.0,
        "latency_ms": latency,
        "timeline": [[i, 250] for i in range(4)],
        "extra": {},
        "client": {"limited": "no"},
        "others_busy_percent": 5.0,
        "counters": {"syncs": 30.0},
        "server": {"us_per_op": 40.0, "rss_bytes": 2**28, "written_bytes": 10**6, "setup_rss_bytes": 0},
        **more,
    }


def result_of(preset: str = "matrix") -> dict[str, Any]:
    names = ["etcd", "muster"]
    rows = []
    for cell in cells(Sizes(), preset):
        more = {"before": {"latency_ms": {"p99": 5.0}}, "disturbance": {"finished": 2}} \
            if cell.kind == "disturbed" else {}
        runs = {"etcd": [run_of(100.0, **more), run_of(120.0, **more)],
                "muster": [run_of(300.0, 5.0, **more), run_of(480.0, 5.0, **more)]}
        found = figures.ratios(runs, names)
        rows.append({"name": cell.name, "title": cell.title, "duration_s": 4.0, "runs": runs, "ratios": found,
                     "targets": figures.targets(cell, runs, found, names)})
    system = {
        "version": "1 <2>",
        "endpoints": [],
        "shards": 1,
        "flags": ["--fronts", "0"],
        "idle_cpu_percent": 1.0,
        "processes": [{"name": "node", "rss_bytes": 2**26, "pss_bytes": 2**25, "cpu_s": 3.0}],
    }
    return {
        "preset": preset,
        "title": "A & B",
        "started_at": "now",
        "notes": {"etcd flags": "-x"},
        "machine": {"cpu": "c", "cpus": 2, "memory_bytes": 2**34, "kernel": "6", "python": "3.11"},
        "storage": {"filesystem": "ext4", "sync_ms": 0.5},
        "plan": {"rounds": 2, "duration_s": 4.0, "leader_only": False},
        "systems": [{"name": name, **system} for name in names],
        "cells": rows,
    }


def test_a_ratio_is_of_the_same_round() -> None:
    found = figures.ratios(
        {"a": [run_of(100), {"failed": "x"}, run_of(50)], "b": [run_of(300), run_of(9), run_of(50)]},
        ["a", "b"],
    )
    assert found["b"]["throughput_per_s"] == {"median": 2.0, "low": 1.0, "high": 3.0}


def of_two_etcds() -> dict[str, Any]:
    """A comparison with two etcds: one has the higher throughput, the other the lower latency."""
    names = ["etcd 1", "etcd 2", "muster"]
    result = result_of("puts-and-ranges")
    runs = {"etcd 1": [run_of(100.0, 10.0), run_of(100.0, 10.0)],
            "etcd 2": [run_of(200.0, 20.0), run_of(400.0, 20.0)],
            "muster": [run_of(400.0, 5.0), run_of(400.0, 5.0)]}
    rows = [compare._rows(cell, 4.0, runs, names, 2, judged=True)[0]
            for cell in cells(Sizes(), "puts-and-ranges")]
    systems = [{**result["systems"][0], "name": name} for name in names]
    return result | {"preset": "page", "systems": systems, "baselines": names[:2], "cells": rows}


def test_of_several_etcds_ratios_are_to_each_and_to_the_better_in_each_figure() -> None:
    cell = of_two_etcds()["cells"][0]
    assert set(cell["ratios_to"]["muster"]) == {"etcd 1", "etcd 2"}
    assert cell["ratios_to"]["muster"]["etcd 1"]["throughput_per_s"]["median"] == 4.0
    assert (cell["better"]["throughput_per_s"], cell["better"]["p99_ms"]) == ("etcd 2", "etcd 1")
    found = cell["ratios"]["muster"]
    assert found["throughput_per_s"] == {"median": 1.5, "low": 1.0, "high": 2.0}
    assert found["p99_ms"]["median"] == 0.5
    targets = {target["figure"]: target["value"]
               for cell in of_two_etcds()["cells"] if cell["name"] == "put-100" for target in cell["targets"]}
    assert targets == {"throughput_per_s": 1.5, "p99_ms": 0.5}


def test_idle_processes_that_are_elsewhere_are_not_told_as_none(tmp_path: Path) -> None:
    assert asyncio.run(compare._idle_percent(System("x", "", [], [], tmp_path), 60.0)) is None
    result = result_of()
    result["systems"][1]["idle_cpu_percent"] = None
    told = "\n".join(compare_report.context(result))
    assert "etcd: 1 <2> (--fronts 0); idle, its processes take 1.0% of a CPU." in told
    assert "its processes are not here." in told


def test_several_etcds_are_told_in_every_form(tmp_path: Path) -> None:
    result = of_two_etcds()
    rows = [row[:3] for row in compare_report.rows(result, by="name") if row[0] == "put-1"]
    assert [row[1] for row in rows] == ["etcd 1", "etcd 2", "muster", "muster / etcd 1", "muster / etcd 2",
                                        "muster / better etcd"]
    assert rows[-1][2] == "1.50 (1.00-2.00)"
    compare_report.write_into(tmp_path, result)
    assert "\tmuster / better etcd\t1.50" in (tmp_path / "page.tsv").read_text()
    report = html.page([result])
    assert "muster has 1.50 times the throughput" in report
    assert "of the better etcd." in report
    assert len(compare_report.targets(result)[0][1].split(", ")) == 1  # of the one system that has targets


def test_the_table_of_a_page_is_made_anew_between_its_marks(tmp_path: Path) -> None:
    file = tmp_path / "page.md"
    file.write_text(f"above\n{page.BEGIN}old\n{page.END}below\n")
    page.write_into(file, [of_two_etcds()])
    text = file.read_text()
    assert text.startswith(f"above\n{page.BEGIN}|work|etcd 1|etcd 2|muster|muster / better etcd|\n")
    assert text.endswith(f"{page.END}below\n")
    assert "old" not in text
    assert "|put, 100 clients|100/s|300/s|400/s|1.50 (1.00-2.00)|" in text
    assert "|put, 1000 clients: servers' CPU of each|40.00 µs|40.00 µs|40.00 µs|" in text
    page.write_into(file, [of_two_etcds()])
    assert file.read_text() == text
    file.write_text("nothing")
    with pytest.raises(ValueError, match="has no line"):
        page.write_into(file, [result_of()])
    assert page.BEGIN in (Path(__file__).parents[4] / "docs" / "benchmarks.md").read_text()


def test_each_row_of_the_page_is_a_cell_of_its_preset() -> None:
    assert {name for name, _ in page._ROWS} <= {cell.name for cell in cells(Sizes(), "page")}


def test_each_system_has_targets_of_its_own() -> None:
    cell = next(cell for cell in cells(Sizes(), "shards") if cell.name == "put-1000")
    names = ["muster-1", "muster-2", "muster-4"]
    runs = {name: [run_of(100.0, server={**run_of(1)["server"], "us_per_op": cpu})]
            for name, cpu in zip(names, (20.0, 25.0, 31.0), strict=True)}
    found = figures.targets(cell, runs, figures.ratios(runs, names), names)
    assert [(t["system"], t["wanted"], t["value"], t["met"]) for t in found] == [
        ("muster-2", "R <= 1.3", 1.25, True), ("muster-4", "R <= 1.5", 1.55, False)]
    assert [t["system"] for t in figures.targets(cell, runs, figures.ratios(runs, names), names[:2])] == [
        "muster-2"
    ]


def test_a_target_is_met_by_the_median_ratio_or_by_the_figure_itself() -> None:
    assert Target("throughput_per_s", False, 3).met(3.0)
    assert not Target("throughput_per_s", False, 3).met(2.9)
    assert Target("p99_ms", True, 0.7).met(0.7)
    by_name = {cell["name"]: cell["targets"] for cell in result_of()["cells"]}
    throughput, cpu = by_name["put-1000"]
    assert (throughput["value"], throughput["met"]) == (3.5, True)
    assert (cpu["value"], cpu["met"]) == (40.0, False)
    assert [t["value"] for t in by_name["put-during-compaction"]] == [1.0]  # 5 ms now, 5 ms before


def test_errors_of_one_round_are_errors_also_where_nothing_was_done() -> None:
    cell = next(cell for cell in cells(Sizes(), "matrix") if cell.name == "watch-prefix")
    for lost in ({"errors": {"lost": 7}}, {"errors": {"lost": 7}, "operations": 0}):
        runs = {"etcd": [run_of(1.0)] * 3, "muster": [run_of(1.0), run_of(1.0), run_of(1.0, **lost)]}
        [found] = [target for target in figures.targets(cell, runs, {}, ["etcd", "muster"])
                   if target["figure"] == "errors"]
        assert (found["value"], found["met"]) == (7.0, False)
        assert figures.has_failures({"cells": [{"runs": runs}]})
    assert not figures.has_failures(result_of())
    assert figures.has_failures({"cells": [{"runs": {"etcd": [{"failed": "x"}]}}]})


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_is_told_in_files_and_on_chart(preset: str, tmp_path: Path) -> None:
    result = result_of(preset)
    name, folder = compare_report.file_name(result), tmp_path / "figures"
    folder.mkdir()
    (folder / "runs.tsv").write_text(f"figures\thow it was measured\nabove\t1\n{name}\told\nbelow\t2\n")
    (folder / f"{name}.tsv").write_text("old\n")
    compare_report.write_into(folder, result)
    runs = (folder / "runs.tsv").read_text()
    assert runs.startswith("figures\thow it was measured\nabove\t1\nbelow\t2\n")
    assert f"{name}\t{result['started_at']}" in runs
    for file in folder.iterdir():
        text = file.read_text()
        assert "old" not in text
        assert len({line.count("\t") for line in text.splitlines()}) == 1
    text = (folder / f"{name}.tsv").read_text()
    for cell in result["cells"]:
        assert cell["title"] in text
    report = html.page([result])
    tree = ElementTree.fromstring(report.partition("\n")[2].replace("<meta charset=\"utf-8\">", ""))
    assert len(tree.findall(".//svg")) >= len(result["cells"])
    assert "A &amp; B" in report
    assert "src=" not in report
    assert "href=" not in report  # nothing is loaded
    assert report.count("<script>") == 1
    assert 'name="viewport"' in report
    assert report.index("verdict</h2>") < report.index("<svg")
    if preset in ("kubernetes", "v2"):  # nothing of these is in the headline
        with pytest.raises(ValueError, match="headline"):
            html.headline([result])
        return
    chart = ElementTree.fromstring(html.headline([result]))
    bars = [bar.find("{*}title") for bar in chart.iter("{http://www.w3.org/2000/svg}rect")]
    assert any(bar is not None and (bar.text or "").endswith(": 1.00 ") for bar in bars)  # the first system's


def test_a_headline_chart_needs_its_work() -> None:
    with pytest.raises(ValueError, match="none of the headline"):
        html.headline([{"cells": []}])


def test_a_folder_whose_runs_are_of_another_form_is_refused(tmp_path: Path) -> None:
    (tmp_path / "runs.tsv").write_text("nothing")
    with pytest.raises(ValueError, match="how it was measured"):
        compare_report.write_into(tmp_path, result_of())
    assert (tmp_path / "runs.tsv").read_text() == "nothing"
    assert [file.name for file in tmp_path.iterdir()] == ["runs.tsv"]


def test_figures_of_the_documentation_are_tables_of_which_is_known_how_they_were_measured() -> None:
    folder = Path(__file__).parents[4] / "docs" / "figures"
    tables = {file.stem: file.read_text(encoding="utf-8").splitlines() for file in folder.iterdir()}
    assert len(tables) > 30
    for name, lines in tables.items():
        assert len(lines) > 1, name
        assert len({line.count("\t") for line in lines}) == 1, name
        assert all(lines[0].split("\t")), name
    for name in ("runs", "notes"):
        assert {line.split("\t")[0] for line in tables[name][1:]} <= set(tables)
    for preset in ("shards", "matrix", "keys"):
        name = compare_report.file_name({"preset": preset, "plan": {}})
        assert tables[name][0].split("\t") == compare_report.HEADINGS
        assert any(line.startswith(f"{name}\t") for line in tables["runs"])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"# muster", "not a result of muster-bench: not JSON"),
        (b"\xff", "not a result of muster-bench: not JSON"),
        (b"3", "not a result of muster-bench"),
        (b'[{"schema": 2}]', "not a result of muster-bench"),
        (b'{"schema": "muster-bench/1"}', "not a comparison that this version wrote, but muster-bench/1"),
    ],
)
def test_a_file_that_holds_no_comparison_is_named(text: bytes, words: str, tmp_path: Path) -> None:
    file = tmp_path / "README.md"
    file.write_bytes(text)
    with pytest.raises(ValueError) as error:
        compare.saved(file)
    assert str(error.value) == f"{file}: {words}"


def test_a_saved_comparison_is_read(tmp_path: Path) -> None:
    file = tmp_path / "saved.json"
    one = {"schema": compare.SCHEMA, "preset": "matrix"}
    for loaded, results in ((one, [one]), ([one, one], [one, one])):
        file.write_text(json.dumps(loaded))
        assert compare.saved(file) == results


def test_bars_are_as_high_as_their_values() -> None:
    chart = svg.bars("t", ["a", "b"], [("one", [50.0, None]), ("two", [100.0, 25.0])], "u")
    heights = [float(rect.get("height", "")) for rect in ElementTree.fromstring(chart).findall("rect")
               if rect.find("title") is not None]
    assert len(heights) == 3
    assert heights[1] == pytest.approx(2 * heights[0], rel=0.01)
    assert heights[1] == pytest.approx(4 * heights[2], rel=0.01)


def test_the_lowest_and_the_highest_round_are_drawn_and_told() -> None:
    chart = svg.bars("t", ["a"], [("one", [50.0])], "u", spread=[[(40.0, 60.0)]], x_title="work")
    tree = ElementTree.fromstring(chart)
    assert [bar.findtext("title") for bar in tree.findall("rect") if bar.find("title") is not None] == [
        "one, a: 50.00 u (40.00 to 60.00)"]
    assert len(tree.findall("path[@class='w']")) == 1
    assert "work" in [text.text for text in tree.findall("text")]
    line = ElementTree.fromstring(
        svg.lines("t", [svg.Series("one", [(1, 5.0)], [(4.0, 6.0)])], "u", [(1, "1")])
    )
    assert line.findtext("circle/title") == "one: 5.00 u (4.00 to 6.00)"


@pytest.mark.parametrize("high", [0.0003, 1.0, 9.9, 10.0, 12_345.0])
def test_an_axis_reaches_above_its_highest_value_with_few_marks(high: float) -> None:
    axis = svg._Axis(0.0, high, 200, 20)
    assert axis.place(high) >= 19.9
    assert axis.place(0.0) == 200
    assert 2 <= len(axis.grid(100)) // 2 <= 8


class Moment:
    now = 0.0

    def monotonic(self) -> float:
        return self.now


def plan_of(names: str, budget_s: float, rounds: int = 3) -> Plan:
    preset = "puts-and-ranges"
    return Plan(choose(names.split(","), Sizes(), preset), rounds, 5.0, 0.0, budget_s=budget_s, preset=preset)


def test_turns_get_shorter_then_rounds_fewer_then_the_last_cells_are_left_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    moment = Moment()
    monkeypatch.setattr(compare, "time", moment)
    plan = plan_of("put-*", 1000.0)
    assert _Clock(plan, 2, 0.0).duration_s(plan.cells[0], plan.cells, 2, first=True) == 5.0
    plan.budget_s = 60.0  # 9 turns of each of 2 systems
    assert _Clock(plan, 2, 0.0).duration_s(plan.cells[0], plan.cells, 2, first=True) == \
        pytest.approx(60 / 18 - compare.TURN_OVERHEAD_S)
    plan.budget_s = 20.0  # only one round
    assert _Clock(plan, 2, 0.0).duration_s(plan.cells[0], plan.cells, 2, first=True) == \
        pytest.approx(20 / 6 - compare.TURN_OVERHEAD_S)
    # not even for that: no warm-ups, and turns as short as they get
    plan.warm_up_s, plan.budget_s = 1.0, 12.0
    clock = _Clock(plan, 2, 0.0)
    assert clock.duration_s(plan.cells[0], plan.cells, 2, first=True) == pytest.approx(
        12 / 6 - compare.TURN_OVERHEAD_S
    )
    assert clock.hurry
    plan.warm_up_s, plan.budget_s = 0.0, 20.0
    moment.now = 19.9
    assert (
        _Clock(plan, 2, 0.0).duration_s(plan.cells[2], plan.cells[2:], 2, first=True)
        == compare.SHORTEST_TURN_S
    )
    assert _Clock(plan, 2, 0.0).duration_s(plan.cells[2], plan.cells[2:], 1, first=False) == 0.0
    moment.now = 20.1
    assert _Clock(plan, 2, 0.0).duration_s(plan.cells[2], plan.cells[2:], 2, first=True) == 0.0


@pytest.mark.parametrize("shards", [1, 2, 4])
@pytest.mark.parametrize("shard", [0, 1])
def test_a_key_of_its_own_lives_on_the_shard_asked_for(shard: int, shards: int) -> None:
    spec = _key_of_shard(Spec("put", ("a:1",), total=1), shard, shards)
    spec.check()
    if shard < shards:
        assert Placement(shards).shard_of(f"{spec.key_prefix}0".encode()) == shard


def test_cells_are_chosen_by_pattern_and_every_spec_can_be_run() -> None:
    for preset in ("", *PRESETS):
        for cell in cells(Sizes(), preset):
            replace(cell.spec, endpoints=("a:1",), duration_s=1.0).check()
    chosen = choose(["put-1*"], Sizes(), "puts-and-ranges")
    assert [cell.name for cell in chosen] == ["put-1", "put-100", "put-1000"]
    with pytest.raises(ValueError, match="no cell matches nothing"):
        choose(["put-1", "nothing"], Sizes())


def test_counters_are_summed_over_labels_and_begin_anew_with_their_process() -> None:
    found = counters.parse(METRICS)
    assert found["etcd_disk_wal_fsync_duration_seconds_count"] == 7
    assert found["muster_node_log_last_index_total"] == 11
    assert counters.grown({"syncs": 5.0, "log_bytes": 9.0}, {"syncs": 7.0, "log_bytes": 4.0}) == \
        {"syncs": 2.0, "log_bytes": 4.0}
