"""Keys move by command, gRPC and JSON in a cluster that runs; what may not be is refused with a reason."""

from __future__ import annotations

import base64
import json
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from cluster.pb import shards_pb2
from tests import forks
from tests.cluster.local_cluster import LIMIT_S, STEADY, LocalCluster, local_cluster, until
from tests.cluster.serving.test_births import grow, musterctl, told

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    folder = tmp_path_factory.mktemp("moves") / "c"
    with local_cluster(folder, 3, "--shards=1", extra=STEADY) as made:
        assert "run `musterctl shard enable-growth` first" in musterctl(
            made, "shard", "move", "k", "--to", "1").stderr
        grow(made)
        for shard in (1, 2):
            until(lambda: musterctl(made, "shard", "add").returncode == 0, look_s=0.5)
            assert shard in {facts["shard"] for facts in told(made, "list")}
        yield made


def put(cluster: LocalCluster, *keys: str) -> int:
    """The revision of the last one."""
    for key in keys:
        done = musterctl(cluster, "put", key, "v", "-w", "json")
        assert done.returncode == 0, done.stderr
    return int(json.loads(done.stdout)["header"]["revision"])


def compact(cluster: LocalCluster) -> None:
    """Old revisions are gone, so what has moved may go back."""
    done = musterctl(cluster, "compaction", str(put(cluster, "after")))
    assert done.returncode == 0, done.stderr


def owner(cluster: LocalCluster, key: str) -> list[int]:
    found = told(cluster, "of", key)["shards"]
    assert isinstance(found, list)
    return found


def refused(cluster: LocalCluster, *words: str) -> str:
    done = musterctl(cluster, "shard", *words)
    assert done.returncode == 1, done.stdout
    return done.stderr


def asked(cluster: LocalCluster, method: str, body: dict[str, Any]) -> dict[str, Any]:
    """An answer of the gateway."""
    url = f"http://{cluster.endpoints()[0]}/v3/shards/{method}"
    with urllib.request.urlopen(url, json.dumps(body).encode(), timeout=LIMIT_S) as answer:
        found = json.load(answer)
        assert isinstance(found, dict)
        return found


def of(key: bytes) -> str:
    return base64.b64encode(key).decode()


def test_a_move_by_command_is_followed_to_its_end(cluster: LocalCluster) -> None:
    put(cluster, "/one/a", "/one/b")
    (done,) = told(cluster, "move", "--prefix", "/one/", "--to", "1")
    assert (done["step"], done["key"], done["range_end"]) == ("switched", "/one/", "/one0")
    assert (done["sources"], done["target"]) == ([0], 1)
    assert owner(cluster, "/one/a") == [1]
    assert musterctl(cluster, "get", "/one/b", "--print-value-only").stdout == "v\n"
    last = put(cluster, "/one/c")
    assert told(cluster, "of", "/one/a", "--rev", "2")["shards"] == [0]
    assert f"shard 0 had a part of the span up to revision {last - 1}" in refused(
        cluster, "move", "--prefix", "/one/", "--to", "0")
    assert "shard 1 owns a part of the span already" in refused(cluster, "move", "/one/a", "--to", "1")
    assert "there is no shard 9" in refused(cluster, "move", "/one/a", "--to", "9")
    listed = {one["move"]: one for one in told(cluster, "moves")}
    assert listed[done["move"]]["step"] == "switched"


def test_a_split_moves_the_rest_of_a_span(cluster: LocalCluster) -> None:
    put(cluster, "/two/a", "/two/m", "/two/z")
    (done,) = told(cluster, "move", "/two/", "/two0", "--to", "1")
    (done,) = told(cluster, "split", "/two/m", "--to", "2")
    assert (done["key"], done["range_end"]) == ("/two/m", "/two0")
    assert [owner(cluster, f"/two/{last}") for last in "amz"] == [[1], [2], [2]]


def test_a_move_is_cancelled_by_its_number(cluster: LocalCluster) -> None:
    put(cluster, "/three/a")
    told(cluster, "move", "--prefix", "/three/", "--to", "1")
    compact(cluster)
    host = str((cluster.leader() + 1) % 3)
    cluster.ok("kill", host)  # a move to shard 0 waits for every host's copy
    try:
        (begun,) = told(cluster, "move", "--prefix", "/three/", "--to", "0", "--no-wait")
        number = str(begun["move"])
        assert f"move {number} is under way" in refused(cluster, "move", "other", "--to", "2")
        (ended,) = told(cluster, "cancel", number)
        assert ended["step"] == "cancelled"
        assert owner(cluster, "/three/a") == [1]
        assert f"no move {number} is under way" in refused(cluster, "cancel", number)
    finally:
        cluster.ok("start", host, "--wait", "60s")
    (done,) = told(cluster, "move", "--prefix", "/three/", "--to", "0")
    assert done["step"] == "switched"
    assert musterctl(cluster, "get", "/three/a", "--print-value-only").stdout == "v\n"


def test_the_same_by_grpc_and_by_json(cluster: LocalCluster) -> None:
    put(cluster, "/four/a", "/four/b")
    with grpc.insecure_channel(cluster.endpoints()[1]) as channel:
        def call(method: str, request: Any, response: Any) -> Any:
            return channel.unary_unary(
                f"/musterpb.Shards/{method}", request_serializer=type(request).SerializeToString,
                response_deserializer=response.FromString)(request, timeout=LIMIT_S)

        begun = call("Move", shards_pb2.MoveRequest(key=b"/four/", range_end=b"/four0", target=2),
                     shards_pb2.MoveResponse)

        def ended() -> bool:
            found = call("Moves", shards_pb2.MovesRequest(), shards_pb2.MovesResponse)
            return any(
                one.move == begun.move and one.step == shards_pb2.Move.SWITCHED for one in found.moves)

        until(ended)
    assert owner(cluster, "/four/a") == [2]
    body = {"key": of(b"/five/"), "range_end": of(b"/five0"), "target": 1}
    number = int(asked(cluster, "move", body)["move"])
    assert number == begun.move + 1
    until(lambda: [one for one in asked(cluster, "moves", {})["moves"]
                   if int(one["move"]) == number and one.get("step") == "SWITCHED"])
    number = int(asked(cluster, "split", {"key": of(b"/five/k"), "target": 2})["move"])
    until(lambda: [one for one in asked(cluster, "moves", {})["moves"]
                   if int(one["move"]) == number and one.get("step") == "SWITCHED"])
    with pytest.raises(urllib.error.HTTPError) as unknown:
        asked(cluster, "cancel-move", {"move": number})
    assert unknown.value.code == 404
    unknown.value.close()


def test_a_shard_with_keys_retires_over_two_calls(cluster: LocalCluster) -> None:
    """The first one is killed while keys move."""
    put(cluster, "/six/a", "/seven/a")
    for directory in ("/six/", "/seven/"):
        if owner(cluster, f"{directory}a") != [1]:
            told(cluster, "move", "--prefix", directory, "--to", "1")
    compact(cluster)
    first = forks.popen(
        [*forks.MUSTERCTL, f"--endpoints={','.join(cluster.endpoints())}", "shard",
         "retire", "1", "--to", "2"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    until(lambda: {facts["state"] for facts in told(cluster, "list") if facts["shard"] == 1} == {"retiring"})
    first.kill()
    first.wait()
    assert told(cluster, "retire", "1", "--to", "2") == {"shard": 1, "state": "retiring"}
    assert owner(cluster, "/six/a") == owner(cluster, "/seven/a") == [2]
    assert "shard 1 does not serve" in refused(cluster, "retire", "2", "--to", "1")
    compact(cluster)
    assert told(cluster, "retire", "1") == {"shard": 1, "state": "dropped"}
    assert musterctl(cluster, "get", "/six/a", "--print-value-only").stdout == "v\n"
    assert "shard 0 has the order of all changes, and stays" in refused(cluster, "retire", "0")


def test_only_root_sees_and_moves_what_moves_while_users_are_on(cluster: LocalCluster) -> None:
    put(cluster, "/eight/a")
    for words in (("user", "add", "root:r"), ("user", "grant-role", "root", "root"),
                  ("user", "add", "alice:a"), ("auth", "enable")):
        done = musterctl(cluster, *words)
        assert done.returncode == 0, done.stderr
    root = "--user=root:r"
    try:
        for words in (("move", "--prefix", "/eight/", "--to", "2"), ("split", "/eight/a", "--to", "2"),
                      ("cancel", "1"), ("moves",)):
            assert "permission denied" in refused(cluster, *words, "--user=alice:a")
            assert "user name is empty" in refused(cluster, *words)
        (done,) = told(cluster, "move", "--prefix", "/eight/", "--to", "2", root)
        assert done["step"] == "switched"
    finally:
        assert musterctl(cluster, "auth", "disable", root).returncode == 0
