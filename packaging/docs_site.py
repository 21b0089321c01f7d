"""Build the docs as a site with search: ``python packaging/docs_site.py [FOLDER]`` (``make docs-site``).

The pages are those of ``docs/``; the front pages are README.md and README.zh.md. What they link to outside of
``docs/`` becomes text, since a site has no source code.
"""

from __future__ import annotations

import os
import posixpath
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGES = ROOT / ".interop" / "site" / "pages"
_LINK = re.compile(r"(!?)\[((?:[^\]\[]|\[[^\]]*\])*)\]\(([^)\s]+)\)")
_FENCE = re.compile(r"(?ms)(^```.*?^```\n?)")
# pages of the site by their files, beside those of docs/
FRONT = {"README.md": "index.md", "README.zh.md": "zh/index.md", "tools/client/README.md": "client.md"}


def _place(file: str) -> str | None:
    """Where a file of the project lies in the site; None: nowhere."""
    if file in FRONT:
        return FRONT[file]
    if not file.startswith("docs/"):
        return None
    return "pages.md" if file == "docs/README.md" else file.removeprefix("docs/")


def rewritten(text: str, file: str) -> str:
    """A page of the project with the links that it has in the site."""
    here = _place(file)
    assert here is not None

    def link(found: re.Match[str]) -> str:
        picture, label, target = found.groups()
        path, hash_, anchor = target.partition("#")
        if re.match(r"\w+:", target) or not path:
            return found[0]
        place = _place(posixpath.normpath(posixpath.join(posixpath.dirname(file), path)))
        if place is None or not (ROOT / posixpath.join(posixpath.dirname(file), path)).is_file():
            return str(label)
        there = posixpath.relpath(place, posixpath.dirname(here) or ".")
        return f"{picture}[{label}]({there}{hash_}{anchor})"

    parts = _FENCE.split(text)
    return "".join(part if part.startswith("```") else _LINK.sub(link, part) for part in parts)


def lay_out(folder: Path) -> None:
    """All pages and pictures in an empty folder."""
    shutil.rmtree(folder, ignore_errors=True)
    files = [*FRONT, *(str(path.relative_to(ROOT)) for path in (ROOT / "docs").rglob("*") if path.is_file())]
    for file in files:
        place = _place(file)
        assert place is not None
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        if file.endswith(".md"):
            (folder / place).write_text(rewritten((ROOT / file).read_text(encoding="utf-8"), file), "utf-8")
        else:
            shutil.copyfile(ROOT / file, folder / place)


def main() -> int:
    """Lay out and build; the exit code."""
    lay_out(PAGES)
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / ".interop" / "site" / "html"
    return subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--config-file",
         ROOT / "packaging/mkdocs.yml", "--site-dir", folder.resolve()],
        check=False, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"}).returncode  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
