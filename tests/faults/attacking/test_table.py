"""docs/run/attacks.tsv has each attack that ``table`` runs, in the form that it prints."""

from __future__ import annotations

from tests.cluster.local_cluster import ROOT
from tests.faults.attacking import table


def test_the_page_has_every_attack() -> None:
    header, *rows = (ROOT / "docs" / "run" / "attacks.tsv").read_text(encoding="utf-8").splitlines()
    assert tuple(header.split("\t")) == table.HEADER
    found = table.attacks()
    shown = [row.split("\t") for row in rows]
    assert {row[0] for row in shown} == found.keys()
    for name, what, *figures in shown:
        assert what == table.meaning(found[name])
        assert len(figures) == 2 * len(table.FIGURES)
        assert all(int(figure) < 10_000 for figure in (*figures[:4], *figures[5:9]))
