"""Whom ``musterctl --api 2 backup`` asks for a running host's data."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
import trustme
from muster_client.pb import rpc_pb2

from tests.ports import free_ports
from tools.muster.host import control
from tools.musterctl.command import Exit
from tools.musterctl.v2.commands import backup
from tools.musterctl.v2.line import parse
from tools.musterctl.v2.start import Run
from tools.musterctl.v2.table import GLOBAL

_OURS = (0xABC, 0x123)  # the cluster's ID and the member's


@contextlib.contextmanager
def serving(ids: tuple[int, int], data: bytes, cert: trustme.LeafCert | None = None) -> Iterator[str]:
    """The URL of a host of these IDs with this data, over TLS by its certificate."""

    def status(request: Any, context: Any) -> bytes:
        header = rpc_pb2.ResponseHeader(cluster_id=ids[0], member_id=ids[1])
        return rpc_pb2.StatusResponse(header=header).SerializeToString()

    parts = [rpc_pb2.SnapshotResponse(blob=data).SerializeToString()]
    handler = grpc.method_handlers_generic_handler("etcdserverpb.Maintenance", {
        "Status": grpc.unary_unary_rpc_method_handler(status),
        "Snapshot": grpc.unary_stream_rpc_method_handler(lambda request, context: iter(parts)),
    })  # fmt: skip
    server = grpc.server(ThreadPoolExecutor(1), handlers=(handler,))
    at = "127.0.0.1:0"
    if cert is None:
        port = server.add_insecure_port(at)
    else:
        pair = (cert.private_key_pem.bytes(), b"".join(blob.bytes() for blob in cert.cert_chain_pems))
        port = server.add_secure_port(at, grpc.ssl_server_credentials([pair]))
    server.start()
    try:
        yield f"http{'s' * (cert is not None)}://127.0.0.1:{port}"
    finally:
        server.stop(None)


def saved(folder: Path, advertised: str, *near: str, options: Sequence[str] = ()) -> bytes:
    """What a backup saves of the host whose control socket names these URLs."""
    told = {"cluster_id": "abc", "member_id": "123", "client_urls": [advertised], "listen_urls": list(near)}
    given, _ = parse(GLOBAL, ["--total-timeout", "1s", *options])
    backup._save(Run(given, given, []), told, folder / "saved")
    return (folder / "saved").read_bytes()


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """It waits for dead ones here."""
    monkeypatch.setattr(backup, "_STATUS_S", 1.0)
    if hasattr(backup, "_NEAR_S"):
        monkeypatch.setattr(backup, "_NEAR_S", 0.5)


def nobody() -> str:
    (port,) = free_ports(1)
    return f"http://127.0.0.1:{port}"


def test_a_host_is_saved_where_what_it_advertises_is_out_of_reach(tmp_path: Path) -> None:
    """A name of a load balancer, say."""
    with serving(_OURS, b"ours") as near:
        assert saved(tmp_path, nobody(), near) == b"ours"


def test_the_host_itself_is_saved_and_not_one_that_its_balancer_chooses(tmp_path: Path) -> None:
    with serving(_OURS, b"ours") as near, serving((0xABC, 0x456), b"other replica") as balancer:
        assert saved(tmp_path, balancer, near) == b"ours"


@pytest.mark.parametrize("ids", [(0xDEF, 0x123), (0xABC, 0x456)])
def test_who_else_listens_on_this_machine_is_passed_over(tmp_path: Path, ids: tuple[int, int]) -> None:
    """The data directory is that of a container."""
    with serving(_OURS, b"ours") as outer, serving(ids, b"theirs") as near:
        assert saved(tmp_path, outer, near) == b"ours"


@pytest.mark.parametrize("listens", [True, False])
def test_where_a_host_is_not_met_what_it_advertises_is_asked(tmp_path: Path, listens: bool) -> None:
    with serving(_OURS, b"ours") as outer:
        assert saved(tmp_path, outer, *[nobody()][:listens]) == b"ours"


def test_another_clusters_data_is_never_saved(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with serving((0xDEF, 0x123), b"theirs") as theirs, pytest.raises(Exit):
        saved(tmp_path, theirs, theirs)
    assert "belongs to another cluster" in capsys.readouterr().err
    assert not (tmp_path / "saved").exists()


def test_a_certificate_names_what_its_host_advertises(tmp_path: Path) -> None:
    """And not the loopback address where a host is met that listens at all."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    cert = authority.issue_cert("infra0.example")
    with serving(_OURS, b"ours", cert) as near:
        trusting = ("--ca-file", str(tmp_path / "ca.pem"))
        assert saved(tmp_path, "https://infra0.example:1", near, options=trusting) == b"ours"
        with pytest.raises(Exit):
            saved(tmp_path, "https://infra1.example:1", near, options=trusting)


@pytest.mark.parametrize("near", [True, False])
def test_a_host_of_another_network_is_sought_where_it_advertises_alone(
    near: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who listens here at a container's port would be told the name and the password."""
    urls = ["http://127.0.0.1:2379", "unix:///tmp/s"]
    monkeypatch.setattr(control, "ask", lambda *_: {"cluster_id": "abc", "listen_urls": urls})
    monkeypatch.setattr(control, "shares", lambda _, kind: near and kind == "net", raising=False)
    # files of a host of this network may be others, as by PrivateTmp
    assert backup._status(tmp_path)["listen_urls"] == urls[:near]


def test_an_older_host_does_not_tell_where_it_listens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control, "ask", lambda *_: {"cluster_id": "abc"})
    assert backup._status(tmp_path)["listen_urls"] == []
