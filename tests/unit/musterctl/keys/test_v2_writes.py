"""Writes of ``musterctl --api 2``: an import, and files in order."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path

import pytest

from tests.unit.v2.host import Said, host
from tools.musterctl import cli
from tools.musterctl.v2.client import Client
from tools.musterctl.v2.exchange import Connections, RequestError
from tools.musterctl.v2.keys import Keys

SET = {"action": "set", "node": {"key": "/k", "value": "v", "modifiedIndex": 8, "createdIndex": 8}}


def test_a_password_is_asked_for_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each thread asked again, where no signal can be caught: a traceback, and nothing was copied."""
    nodes = [{"key": f"/k{n}", "value": "v"} for n in range(5)]
    saved = tmp_path / "saved.json"
    saved.write_text(json.dumps({"node": {"dir": True, "nodes": nodes}}), encoding="utf-8")
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"rp\nmore\n")))
    with host(lambda asked: (200, SET)) as (url, seen):
        line = ["--api", "2", "--no-sync", "--endpoints", url, "-u", "root", "import", "-c", "2"]
        assert cli.run([*line, "--snap", str(saved)]) == 0
    assert sorted(asked.line for asked in seen) == [f"PUT /v2/keys/k{n}" for n in range(5)]
    assert {asked.authorization for asked in seen} == {"Basic " + base64.b64encode(b"root:rp").decode()}


@pytest.mark.parametrize(
    ("ttl", "sent"),
    [(0, 0), (-5, 0), (9_223_372_036, 9_223_372_036), (9_223_372_037, 0), ((1 << 63) - 1, 0),
     (2 * 10**10, 1_553_255_926)],
)
def test_of_a_ttl_whose_nanoseconds_are_beyond_64_bits_goes_what_etcdctl_sends(ttl: int, sent: int) -> None:
    """The host wraps as well: the key was gone at once, and its old value with it."""
    with host(lambda asked: (200, SET)) as (url, seen):
        keys = Keys(Client([url], Connections(None), 10, 10))
        keys.put("/k", "v", ttl, True)
        keys.create_in_order("/q", "v", ttl)
    assert [asked.body for asked in seen] == [f"ttl={sent}&value=v" if sent else "value=v"] * 2


@pytest.mark.parametrize("said", [None, (503, "")])
def test_a_file_in_order_is_made_once(said: Said | None) -> None:
    """A host that has no leader keeps the request, and does it later: a job was in its queue three times."""
    with host(lambda asked: said) as (url, seen):
        keys = Keys(Client([url, url], Connections(None), 10, 10))
        with pytest.raises(RequestError):
            keys.create_in_order("/q", "job")
    assert [asked.line for asked in seen] == ["POST /v2/keys/q"]


def test_a_file_in_order_goes_to_an_endpoint_that_can_be_reached() -> None:
    with host(lambda asked: (201, SET)) as (url, seen):
        keys = Keys(Client(["http://127.0.0.1:1", url], Connections(None), 10, 10))
        assert keys.create_in_order("/q", "job").action == "set"
    assert len(seen) == 1
