"""What is tried again, and that the page says so."""

from __future__ import annotations

import re
from pathlib import Path

import grpc
import pytest
from muster_client.wire import retries
from muster_client.wire.retries import Verdict, judge

from cluster import errors

Code = grpc.StatusCode
README = Path(__file__).parents[3] / "tools" / "client" / "README.md"


@pytest.mark.parametrize(("code", "details", "verdict"), [
    (Code.UNAVAILABLE, "not sent: the server goes away, HTTP/2 code 0", Verdict.REFUSED),
    (Code.UNAVAILABLE, "etcdserver: no leader", Verdict.REFUSED),
    (Code.UNKNOWN, "etcdserver: too many requests", Verdict.REFUSED),
    (Code.UNAVAILABLE, "etcdserver: rpc not supported for learner", Verdict.REFUSED),
    (Code.UNAUTHENTICATED, "etcdserver: invalid auth token", Verdict.STALE_TOKEN),
    (Code.INVALID_ARGUMENT, "etcdserver: revision of auth store is old", Verdict.STALE_TOKEN),
    (Code.UNAVAILABLE, "etcdserver: request timed out", Verdict.UNKNOWN),
    (Code.UNAVAILABLE, "etcdserver: server stopped", Verdict.UNKNOWN),
    (Code.UNAVAILABLE, "etcdserver: leader changed", Verdict.UNKNOWN),
    (Code.UNAVAILABLE, "Socket closed", Verdict.UNKNOWN),
    (Code.DEADLINE_EXCEEDED, "Deadline Exceeded", Verdict.UNKNOWN),
    (Code.UNKNOWN, "etcdserver: request cancelled", Verdict.UNKNOWN),
    (Code.INVALID_ARGUMENT, "etcdserver: key is not provided", Verdict.FINAL),
    (Code.NOT_FOUND, "etcdserver: requested lease not found", Verdict.FINAL),
    (Code.RESOURCE_EXHAUSTED, "etcdserver: mvcc: database space exceeded", Verdict.FINAL),
    (Code.UNKNOWN, "etcdserver: no leader, or so", Verdict.FINAL),
    (Code.FAILED_PRECONDITION, "muster: host-b has not said that it knows data of level 3", Verdict.FINAL),
    (Code.RESOURCE_EXHAUSTED, "grpc: received message larger than max (3 vs. 2)", Verdict.FINAL),
    (Code.UNKNOWN, "bcrypt: password length exceeds 72 bytes", Verdict.FINAL),
    (Code.UNKNOWN, "election: not leader", Verdict.FINAL),
    (Code.UNKNOWN, "mutex: session is expired", Verdict.FINAL),
    (Code.UNIMPLEMENTED, "unknown service etcdserverpb.KV", Verdict.FINAL),
    (Code.UNKNOWN, "context canceled", Verdict.UNKNOWN),
    (Code.UNKNOWN, "Stream removed", Verdict.UNKNOWN),
    (Code.RESOURCE_EXHAUSTED, "Received RST_STREAM with error code 11", Verdict.UNKNOWN),
    (Code.PERMISSION_DENIED, "Received RST_STREAM with error code 12", Verdict.UNKNOWN),
    (Code.UNAUTHENTICATED, "Received http2 header with status: 401", Verdict.UNKNOWN),
])  # fmt: skip
def test_verdicts(code: grpc.StatusCode, details: str, verdict: Verdict) -> None:
    assert judge(code, details) is verdict


def test_texts_are_those_of_the_server() -> None:
    """Each of etcd's texts that say "certainly not done" is one that muster sends, letter by letter."""
    known = {kind.text for kind in errors.by_name.values()}
    ours = [text for text in (*retries.REFUSED, *retries.STALE_TOKEN) if text.startswith("etcdserver:")]
    assert len(ours) > 4
    assert not set(ours) - known


def test_the_page_has_the_table() -> None:
    table = re.findall(r"(?m)^\|`([^`]+)`\|", README.read_text(encoding="utf-8"))
    assert table == [
        *retries.REFUSED, *retries.STALE_TOKEN, *(code.name for code in retries.UNKNOWN)]


def test_the_page_tells_the_server_s_words() -> None:
    page = README.read_text(encoding="utf-8")
    assert [prefix for prefix in retries.PREFIXES if f"`{prefix}`" not in page] == []
