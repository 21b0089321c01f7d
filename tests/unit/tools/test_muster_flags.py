"""The flag table against etcd's: names, defaults, variables and file keys."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from cluster import settings
from tools.muster import flag_docs
from tools.muster.config.flags import SERVER_FLAGS
from tools.muster.config.kinds import Kind, Support
from tools.muster.config.parse import convert

ROOT = Path(__file__).parents[3]
FACTS = [
    line.split("\t")
    for line in Path(__file__).with_name("etcd_flags.tsv").read_text(encoding="utf-8").splitlines()
    if not line.startswith("#")
]
OWN_DEFAULTS = {
    "enable-v2": "true",  # its users need not switch it on; etcd 3.6 has it no more
    "discovery-fallback": "proxy",  # as in etcd up to 3.5
    "experimental-warning-apply-duration": "100ms",  # etcd writes 0s for it and means 100ms
    "experimental-warning-unary-request-duration": "300ms",
}
UNTOLD = {"help", "experimental-backend-bbolt-freelist-type", "experimental-enable-v2v3"}


@pytest.mark.parametrize("fact", FACTS, ids=[f[0] for f in FACTS])
def test_every_flag_of_etcd_is_there_with_its_default_variable_and_key(fact: list[str]) -> None:
    name, default, variable, key, status = fact[0].lstrip("-"), *fact[1:]
    flag = SERVER_FLAGS[name]
    assert variable in ("-", f"ETCD_{flag.env_name}")
    if name not in UNTOLD:
        assert flag.default == OWN_DEFAULTS.get(name, default)
    if status != "removed":
        assert "/".join(flag.yaml_path) == ("" if key == "-" else key)
    if status == "ignored":
        assert flag.support is Support.IGNORED


def test_every_default_can_be_read() -> None:
    for flag in SERVER_FLAGS.values():
        convert(flag, flag.default)


def test_an_alias_stands_for_a_flag_of_the_same_kind() -> None:
    for flag in SERVER_FLAGS.values():
        if flag.alias and not flag.alias.startswith("feature-gates:"):
            target = SERVER_FLAGS[flag.alias]
            assert (flag.kind, flag.choices) == (target.kind, target.choices)


def test_two_flags_never_share_a_key_of_the_file() -> None:
    keys = [flag.yaml_path for flag in SERVER_FLAGS.values() if flag.yaml_path]
    assert len(keys) == len(set(keys))


def test_the_documented_page_is_the_table() -> None:
    page = Path(__file__).parents[3] / "docs" / "know" / "flags.md"
    assert page.read_text(encoding="utf-8") == flag_docs.markdown() + "\n", "run `make docs`"


def test_help_names_every_flag_that_works() -> None:
    text = flag_docs.usage({"local": "several hosts"})
    for flag in SERVER_FLAGS.values():
        if flag.support is Support.WORKS:
            assert f"  --{flag.name}" in text
    assert all(flag.choices for flag in SERVER_FLAGS.values() if flag.kind is Kind.ENUM)


def test_help_breaks_no_name_of_a_flag() -> None:
    text = flag_docs.usage({"local": "several hosts"})
    assert "a --peer-key-file or a" in " ".join(text.split()), "words are kept"
    assert not [line for line in text.splitlines() if line.endswith("-")]


def test_every_flag_that_works_is_read_somewhere() -> None:
    """No flag is accepted and dropped: here as far as its name goes, below as far as a process's settings
    go."""
    source = "".join(
        f.read_text(encoding="utf-8")
        for f in (ROOT / "tools" / "muster").rglob("*.py")
        if f.name != "flags.py"
    )
    dropped = [
        f.name for f in SERVER_FLAGS.values() if f.support is Support.WORKS and f'"{f.name}"' not in source
    ]
    assert dropped == []


def test_every_setting_of_a_process_is_read_there() -> None:
    files = [f for folder in ("node", "proxy", "tools/muster/machine") for f in (ROOT / folder).rglob("*.py")]
    source = "".join(f.read_text(encoding="utf-8") for f in (*files, ROOT / "tools" / "muster" / "joined.py"))
    for kind in (settings.Common, settings.NodeSettings, settings.FrontSettings):
        names = [field.name for field in dataclasses.fields(kind)]
        assert [name for name in names if not re.search(rf"\.{name}\b", source)] == []
