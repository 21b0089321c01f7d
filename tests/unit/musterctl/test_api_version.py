"""Which API a line is for: ``--api`` stands anywhere before the subcommand, and wins over the environment."""

from __future__ import annotations

import pytest

from tools.musterctl import cli
from tools.musterctl.command import Exit


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MUSTERCTL_API", raising=False)
    monkeypatch.delenv("ETCDCTL_API", raising=False)


@pytest.mark.parametrize(
    ("line", "version", "rest"),
    [
        ("set /a b", "3", "set /a b"),
        ("--api 2 set /a b", "2", "set /a b"),
        ("--api=2 --endpoints X set /a b", "2", "--endpoints X set /a b"),
        ("--endpoints X --api 2 set /a b", "2", "--endpoints X set /a b"),
        ("--endpoints X --api=2 set /a b", "2", "--endpoints X set /a b"),
        ("--endpoints=X --debug --api 2 -o json set /a b", "2", "--endpoints=X --debug -o json set /a b"),
        ("-w json --api 3 get a", "3", "-w json get a"),
        ("-wjson --api 3 get a", "3", "-wjson get a"),
        ("--no-sync -C X -u root:1 --api 2 ls", "2", "--no-sync -C X -u root:1 ls"),
        ("--api 2 --api 3 get a", "3", "get a"),
        ("put a --api=2", "3", "put a --api=2"),
        ("put --api 2", "3", "put --api 2"),
        ("-- --api 2", "3", "-- --api 2"),
        ("--user --api get a", "3", "--user --api get a"),
    ],
)
def test_the_api_is_named_before_the_subcommand(line: str, version: str, rest: str) -> None:
    assert cli._api_version(line.split()) == (version, rest.split())


def test_the_line_wins_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ETCDCTL_API", "2")
    assert cli._api_version(["get", "a"])[0] == "2"
    assert cli._api_version(["put", "a", "--api=3"])[0] == "2"
    assert cli._api_version(["--debug", "--api", "3", "get", "a"])[0] == "3"


@pytest.mark.parametrize("line", ["--api", "--endpoints X --api", "--debug --api=4 get a"])
def test_another_api_is_refused(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(Exit):
        cli._api_version(line.split())
    assert capsys.readouterr().err.startswith("unsupported API version: ")
