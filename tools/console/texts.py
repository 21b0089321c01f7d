"""Every word that the console shows, in English and Chinese: the table ``static/texts.tsv``."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

LANGUAGES = {"en": "English", "zh": "中文"}
_TABLE = Path(__file__).parent / "static" / "texts.tsv"


@cache
def table() -> dict[str, dict[str, str]]:
    """Texts by name, each by language."""
    head, *rows = (line.split("\t") for line in _TABLE.read_text(encoding="utf-8").splitlines() if line)
    return {row[0]: dict(zip(head[1:], row[1:], strict=True)) for row in rows}


@cache
def _reasons() -> dict[str, re.Pattern[str]]:
    """How the console's own reasons look in English, by name."""
    return {
        name: re.compile(re.sub(r"\\{(\w+)\\}", r"(?P<\1>.*)", re.escape(texts["en"])), re.DOTALL)
        for name, texts in table().items()
        if name.startswith("why.")
    }


class Words:
    """The texts of one language."""

    def __init__(self, language: str) -> None:
        self.language = language

    @classmethod
    def preferred(cls, asked: str) -> Words:
        """The first language that a browser asks for and that there is: ``zh-CN,zh;q=0.9``; else English."""
        for item in asked.lower().split(","):
            name = item.partition(";")[0].strip().partition("-")[0]
            if name in LANGUAGES:
                return cls(name)
        return cls("en")

    def __call__(self, name: str, **values: Any) -> str:
        text = table()[name][self.language]
        return text.format(**values) if values else text

    def reason(self, told: str) -> str:
        """Why something is refused: what the console itself says in this language, and the store's own words
        as they are."""
        for name, form in _reasons().items():
            if found := form.fullmatch(told):
                return self(name, **found.groupdict())
        return told
