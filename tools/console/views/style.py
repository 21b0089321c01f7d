"""The console's one style sheet, its mark, and the themes of editors, dark and light."""

from __future__ import annotations

from pathlib import Path
from typing import Any

_STATIC = Path(__file__).parents[1] / "static"
CSS = (_STATIC / "console.css").read_text(encoding="utf-8")
MARK = (_STATIC / "icon.svg").read_text(encoding="utf-8")
CODE: dict[bool | None, Any] = {True: "githubDark", False: "githubLight", None: "githubLight"}
