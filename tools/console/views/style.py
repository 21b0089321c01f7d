"""The console's one style sheet and its mark."""

from __future__ import annotations

from pathlib import Path

_STATIC = Path(__file__).parents[1] / "static"
CSS = (_STATIC / "console.css").read_text(encoding="utf-8")
MARK = (_STATIC / "icon.svg").read_text(encoding="utf-8")
