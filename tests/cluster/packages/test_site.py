"""The docs as a site: every page, with links that lead somewhere, and a search that finds both languages."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.cluster.local_cluster import ROOT, environment


def test_the_site_has_all_pages_and_finds_them(tmp_path: Path) -> None:
    line = [sys.executable, ROOT / "packaging/docs_site.py", tmp_path]
    done = subprocess.run(
        line, check=False, capture_output=True, text=True, timeout=100, env=environment())
    assert done.returncode == 0, done.stdout + done.stderr
    pages = [path.relative_to(ROOT / "docs") for path in (ROOT / "docs").rglob("*.md")]
    for page in pages:
        name = page.parent if page.name == "README.md" else page.with_suffix("")
        if page != Path("README.md"):
            assert (tmp_path / name / "index.html").is_file(), page
    found = json.loads((tmp_path / "search/search_index.json").read_text(encoding="utf-8"))["docs"]
    places = {entry["location"] for entry in found}
    assert {"", "zh/", "pages/", "use/testing/", "client/"} <= places
    assert any(entry["location"].startswith("zh/") and "部署" in entry["title"] for entry in found)
