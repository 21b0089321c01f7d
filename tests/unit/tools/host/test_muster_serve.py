"""What a host's processes are told."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import structlog
import zmq
from structlog.testing import capture_logs

from cluster.members.table import Host, Table
from cluster.settings import FrontSettings, Peer, loads
from cluster.wire.messages import SEQUENCE, STATE_BODY, Status, answer
from proxy.http.http2 import Limits
from proxy.listener.limits import limits_of, limits_of_metrics
from tools.muster.config import settings as config
from tools.muster.config.flags import SERVER_FLAGS
from tools.muster.config.parse import resolve
from tools.muster.host import nodestate, rundir, serve
from tools.muster.host.identity import bootstrap
from tools.muster.host.identity.bootstrap import Identity
from tools.muster.host.specs import child_specs

MIB = 1 << 20


def told(kind: str, shards: int, *args: str, born: int = 0) -> list[str]:
    """Each process of that kind, of a host with so many shards, and so many that were born."""
    built = config.with_shards(
        config.build(resolve(SERVER_FLAGS, [f"--shards={shards}", "--fronts=1", *args], {})), shards
    )
    identity = Identity(
        1, 2, 3, shards, 2, (Peer(2, "default", "localhost", 2380, ("http://localhost:2380",)),),
        born=tuple((shards + n, (2,)) for n in range(born)))
    specs = child_specs(built, identity, "/run")
    return [spec.settings(3)[0] for spec in specs if spec.kind == kind]


def node_settings(shards: int, *args: str) -> list[dict[str, int]]:
    """Of each node of a host with so many shards."""
    return [json.loads(text) for text in told("node", shards, *args)]


def limits(*args: str, descriptors: int = 500) -> Limits:
    """Of the one front of a host with these flags."""
    (text,) = told("front", 1, *args)
    return limits_of(loads(FrontSettings, text), lambda: descriptors)


def test_limits_to_clients_are_those_of_the_flags() -> None:
    found = limits("--client-head-timeout=7s", "--http1-idle-timeout=90s", "--max-header-bytes=8192",
                   "--max-request-bytes=20000000", "--client-stall-timeout=5s")
    assert (found.handshake_timeout_s, found.head_timeout_s, found.http1_idle_timeout_s) == (7.0, 7.0, 90.0)
    assert (found.max_header_list_bytes, found.max_http1_header_bytes) == (8192, 8192)
    assert found.stalled_s == 5.0
    assert found.max_body_bytes == 40_000_000  # what a request may have, as base64 in JSON
    assert found.max_connections == 500
    found = limits("--max-control-frames=100", "--max-control-frame-rate=7", "--max-stream-resets=101",
                   "--max-stream-reset-rate=8")
    assert (found.control_burst, found.control_rate, found.reset_burst, found.reset_rate) == (100, 7, 101, 8)


@pytest.mark.parametrize("off", ["--grpc-keepalive-interval=0", "--grpc-keepalive-timeout=0"])
def test_keep_alive_pings_without_one_of_their_flags_are_those_of_grpc(off: str) -> None:
    """As in etcd, which sets both or none."""
    found = limits("--grpc-keepalive-interval=7s", "--grpc-keepalive-timeout=3s")
    assert (found.keepalive_interval_s, found.keepalive_timeout_s) == (7.0, 3.0)
    found = limits("--grpc-keepalive-interval=7s", "--grpc-keepalive-timeout=3s", off)
    assert (found.keepalive_interval_s, found.keepalive_timeout_s) == (7200.0, 20.0)


def test_a_request_of_the_largest_size_fits_while_it_comes() -> None:
    """Above 64 MiB it was refused, whatever --max-request-bytes said."""
    found = limits("--max-request-bytes=100000000")
    assert found.max_buffered_bytes > max(found.max_message_bytes, 100_000_000)
    assert limits().max_buffered_bytes == 67_108_864


def test_limits_without_flags_are_what_is_documented() -> None:
    found, usual = limits(), Limits()
    for name in ("control_burst", "control_rate", "reset_burst", "reset_rate",
                 "handshake_timeout_s", "head_timeout_s", "http1_idle_timeout_s", "max_header_list_bytes",
                 "max_http1_header_bytes", "max_body_bytes", "stalled_s"):
        assert getattr(found, name) == getattr(usual, name), name


def test_a_number_of_connections_takes_no_descriptors_from_the_disk() -> None:
    """A flush that finds none ends the node, and the host with it."""
    assert [limits(f"--max-client-connections={n}").max_connections for n in (499, 501)] == [499, 500]


@pytest.mark.parametrize(("fronts", "connections", "allowed"), [
    (0, "auto", 0), (0, "3072", 0), (0, "3073", 3072), (1, "3073", 3072), (2, "6144", 0), (2, "6145", 6144)])
def test_a_start_warns_of_connections_that_open_files_do_not_allow(
    monkeypatch: pytest.MonkeyPatch, fronts: int, connections: str, allowed: int
) -> None:
    of_a_process = "tools.muster.machine.process.descriptors.raise_limit"
    monkeypatch.setattr(of_a_process, lambda: 4096)
    log: Any = structlog.testing.CapturingLogger()
    built = config.build(resolve(
        SERVER_FLAGS, [f"--fronts={fronts}", f"--max-client-connections={connections}"], {}))
    serve.raise_open_files(built, log)
    assert [call.args for call in log.calls] == ([] if not allowed else [(
        f"--max-client-connections={connections}: the limit of open files allows {allowed} (LimitNOFILE=)",)])


@pytest.mark.parametrize(("clients", "metrics"), [(1, 1), (150, 18), (1 << 30, 256)])
def test_connections_for_metrics_are_few_and_there_is_always_one(clients: int, metrics: int) -> None:
    found = limits_of_metrics(limits(f"--max-client-connections={clients}", descriptors=clients))
    assert found.max_connections == metrics


@pytest.mark.parametrize(("fronts", "snapshots"), [(1, 3), (2, 1), (16, 1)])
def test_a_clients_share_is_divided_among_a_hosts_fronts(fronts: int, snapshots: int) -> None:
    texts = told("front", 1, f"--fronts={fronts}")
    assert len(texts) == fronts
    for settings in (loads(FrontSettings, text) for text in texts):
        assert settings.max_client_snapshots == snapshots


@pytest.mark.parametrize(("most", "of_each"), [(0, 0), (3, 1), (4, 1), (5, 2)])
def test_each_front_of_a_host_that_takes_few_v2_waits_takes_one(most: int, of_each: int) -> None:
    """Where these were fewer than fronts, all were refused."""
    texts = told("front", 1, "--fronts=4", f"--max-v2-waits={most}")
    assert [loads(FrontSettings, text).max_v2_waits for text in texts] == [of_each] * 4


@pytest.mark.parametrize(
    ("shards", "args", "write_buffer_bytes", "block_cache_bytes", "range_cache_bytes"),
    [
        (1, (), 32 * MIB, 64 * MIB, 32 * MIB),
        (2, (), 16 * MIB, 32 * MIB, 16 * MIB),
        (16, (), 8 * MIB, 4 * MIB, 2 * MIB),  # the least of the first two
        (
            2, ("--write-buffer-bytes=134217728", "--block-cache-bytes=268435456", "--range-cache-bytes=0"),
            64 * MIB, 128 * MIB, 0,
        ),
        (1, ("--write-buffer-bytes=0", "--block-cache-bytes=0"), 8 * MIB, 4 * MIB, 32 * MIB),
    ],
)
def test_a_hosts_memory_is_shared_among_its_shards(
    shards: int, args: tuple[str, ...], write_buffer_bytes: int, block_cache_bytes: int,
    range_cache_bytes: int,
) -> None:
    nodes = node_settings(shards, *args)
    assert len(nodes) == shards
    for node in nodes:
        assert node["write_buffer_bytes"] == write_buffer_bytes
        assert node["block_cache_bytes"] == block_cache_bytes
        assert node["range_cache_bytes"] == range_cache_bytes


def test_a_first_shard_that_has_retired_has_no_process() -> None:
    built = config.with_shards(config.build(resolve(SERVER_FLAGS, ["--shards=3", "--fronts=1"], {})), 3)
    peer = Peer(2, "default", "localhost", 2380, ("http://localhost:2380",))
    identity = Identity(1, 2, 3, 3, 2, (peer,), born=((3, (2,)),), dropped=(1,))
    specs = child_specs(built, identity, "/run")
    assert [spec.label for spec in specs] == ["node 0", "node 2", "node 3", "front 0"]


@pytest.mark.parametrize("fronts", [1, 2])
def test_fronts_share_memory_where_there_are_several(
    fronts: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rundir, "LONGEST_SOCKET_PATH", 1000)
    built = config.with_shards(config.build(resolve(SERVER_FLAGS, [f"--fronts={fronts}"], {})), 1)
    identity = Identity(1, 2, 3, 1, 2, (Peer(2, "default", "localhost", 2380, ("http://localhost:2380",)),))
    path = rundir.make_run_dir(str(tmp_path))
    try:
        specs = child_specs(built, identity, path)
        told = [json.loads(spec.settings(3)[0])["shown_fd"] for spec in specs if spec.kind == "front"]
        assert [spec.shared_fd for spec in specs] == [-1, *told]
        assert len(told) == fronts
        assert len({*told}) == 1
        assert (told[0] >= 0) == (fronts > 1)
    finally:
        rundir.remove_run_dir(str(tmp_path), path)


def test_shards_that_were_born_share_a_hosts_memory_too() -> None:
    nodes = [json.loads(text) for text in told("node", 1, born=3)]
    assert [node["shard"] for node in nodes] == [0, 1, 2, 3]
    assert {node["block_cache_bytes"] for node in nodes} == {16 * MIB}
    assert {node["write_buffer_bytes"] for node in nodes} == {8 * MIB}
    assert {node["range_cache_bytes"] for node in nodes} == {8 * MIB}


@pytest.mark.parametrize("is_new", [True, False])
def test_a_first_start_names_each_member_as_etcd_does(is_new: bool) -> None:
    urls = [("http://a:1", "http://a:2"), ("http://b:1",)]
    peers = tuple(Peer(0xA + n, f"h{n}", "h", 1, found) for n, found in enumerate(urls))
    identity = Identity(0xC1, 0xA, 3, 1, 2, peers)
    with capture_logs() as logs:
        serve._log_facts(
            structlog.get_logger(), config.build(resolve(SERVER_FLAGS, [], {})), identity, is_new=is_new)
    assert [line["event"] for line in logs if line["event"].startswith("added member")] == [
        "added member a [http://a:1 http://a:2] to cluster c1",
        "added member b [http://b:1] to cluster c1",
    ][: 2 * is_new]


def test_a_host_tells_programs_of_its_machine_where_it_listens(tmp_path: Path) -> None:
    """Besides what it advertises."""
    flags = ["--listen-client-urls=http://0.0.0.0:2379", "--advertise-client-urls=http://infra0.example:80"]
    host = Peer(0xA, "default", "localhost", 2380, ("http://localhost:2380",))
    supervisor: Any = SimpleNamespace(children=[], ready=True)
    told = serve.status_of(
        supervisor, config.build(resolve(SERVER_FLAGS, flags, {})), Identity(1, 0xA, 3, 1, 2, (host,)),
        str(tmp_path))
    assert told["client_urls"] == ["http://infra0.example:80"]
    assert told["listen_urls"] == ["http://127.0.0.1:2379"]


THREE = "h0=http://127.0.0.1:1,h1=http://127.0.0.1:2,h2=http://127.0.0.1:3,h2=http://127.0.0.1:4"


@pytest.mark.parametrize(
    ("cluster", "warned"),
    [
        (THREE, False),
        (",".join(reversed(THREE.split(","))), False),
        (THREE.replace("127.0.0.1:2,", "127.0.0.1:5,"), True),
        (THREE.replace("h1=", "h7="), True),
        (THREE.partition(",")[2], True),
    ],
)
def test_an_added_member_starts_again_without_a_warning_unless_its_flags_name_others(
    cluster: str, warned: bool
) -> None:
    """The cluster gave it an ID that its flags do not give."""
    made = bootstrap.peers_of(config.parse_initial_cluster(THREE), "t")
    peers = tuple(replace(peer, member_id=77) if peer.name == "h2" else peer for peer in made)
    identity = Identity(1, 77, 3, 1, 2, peers, joined=True)
    settings = config.build(
        resolve(SERVER_FLAGS, ["--name=h2", f"--initial-cluster={cluster}", "--initial-cluster-token=t"], {}))
    with capture_logs() as logs:
        serve._log_facts(structlog.get_logger(), settings, identity, is_new=False)
    said = [line for line in logs if "names other members than the flags" in line["event"]]
    assert bool(said) == warned
    settings = replace(settings, initial_cluster=())  # of a list that cannot be read, as a warning has said
    with capture_logs() as logs:
        serve._log_facts(structlog.get_logger(), settings, identity, is_new=False)
    assert not [line for line in logs if "names other members than the flags" in line["event"]]
    if warned:
        assert said[0]["members"] != said[0]["flags"]


@pytest.mark.parametrize("runs", [True, False])
def test_a_status_has_the_peer_urls_that_the_cluster_knows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, runs: bool
) -> None:
    """A member that has moved, and took another name; without its node, as the data directory has them."""
    first = Peer(2, "default", "localhost", 2380, ("http://localhost:2380",))
    moved = Table((first,), [Host(2, "", ("http://localhost:2390",)).encode()])
    greeting = b"".join((
        SEQUENCE.pack(1), answer(0, Status.STATE, STATE_BODY.pack(0, 2, 5, 9, 8, 7)),
        answer(0, Status.MEMBERS, moved.encode_all())))

    def greets() -> None:
        with context.socket(zmq.ROUTER) as node:
            node.bind(f"ipc://{tmp_path}/node-0.sock")
            bound.set()
            node.send_multipart([node.recv_multipart()[0], greeting])
            read.wait(20)

    monkeypatch.setattr(nodestate, "_LIMIT_S", 20.0)
    context, bound, read = zmq.Context(), threading.Event(), threading.Event()
    if runs:
        thread = threading.Thread(target=greets)
        thread.start()
        bound.wait(20)
    child = SimpleNamespace(
        spec=SimpleNamespace(kind="node", index=0, cpu=None), pid=1 if runs else 0, ready=runs, starts=1)
    supervisor: Any = SimpleNamespace(children=[child], ready=runs)
    settings = config.build(resolve(SERVER_FLAGS, ["--name=renamed", "--fronts=0"], {}))
    found = serve.status_of(supervisor, settings, Identity(1, 2, 3, 1, 2, (first,)), str(tmp_path))
    read.set()
    if runs:
        thread.join(20)
    context.destroy(linger=0)
    (node,) = found["nodes"]
    assert found["peer_urls"] == [f"http://localhost:{2390 if runs else 2380}"]
    assert (node["is_leader"], node["leader_name"]) == ((True, "renamed") if runs else (False, ""))
