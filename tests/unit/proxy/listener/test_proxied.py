"""What a proxy counts, and what it says while it reaches no member."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from proxy.http.requests import BrokenBody, HttpRequest
from proxy.listener.proxied import Proxied


class Asked(HttpRequest):
    """Keeps its answer."""

    def __init__(self, method: str, path: str, body: bytes = b"") -> None:
        super().__init__(method, path, "", {}, body, "peer")
        self.status = 0
        self.answer = b""

    def start(self, status: int, headers: Iterable[tuple[str, str]] = ()) -> None:
        self.started, self.status = True, status
        if self.on_start is not None:
            self.on_start(status)

    def write(self, chunk: bytes) -> None:
        self.answer += chunk

    def end(self) -> None:
        self.closed = True


def served(request: HttpRequest) -> None:
    """A handler."""
    request.respond(201 if request.method == "PUT" else 200, b"served")


def ask(proxied: Proxied, method: str, path: str, body: bytes = b"") -> tuple[int, bytes]:
    request = Asked(method, path, body)
    proxied.pass_on(request, served)
    return request.status, request.answer


def counted(proxied: Proxied) -> dict[str, float]:
    return {
        " ".join((sample.name, *sample.labels.values())): sample.value
        for family in proxied.samples()
        for sample in family.samples
        if not sample.name.endswith(("_bucket", "_sum"))
    }


def test_requests_count_by_method_and_answer_and_own_paths_do_not() -> None:
    proxied = Proxied(lambda: True, lambda: 0.0)
    assert ask(proxied, "GET", "/v2/keys/a") == (200, b"served")
    assert ask(proxied, "PUT", "/v2/keys/a") == (201, b"served")
    assert ask(proxied, "GET", "/version") == (200, b"served")
    for path in ("/metrics", "/v2/config/local/proxy"):
        assert ask(proxied, "GET", path) == (200, b"served")
    assert counted(proxied) == {
        "etcd_proxy_requests_total GET": 2,
        "etcd_proxy_requests_total PUT": 1,
        "etcd_proxy_handled_total GET 200": 2,
        "etcd_proxy_handled_total PUT 201": 1,
        "etcd_proxy_handling_duration_seconds_count GET": 2,
        "etcd_proxy_handling_duration_seconds_count PUT": 1,
    }


def test_who_reaches_no_member_says_so_as_an_etcd() -> None:
    proxied = Proxied(lambda: False)
    nobody = (503, b'{"message":"httpproxy: zero endpoints currently available"}')
    for method, path in (("GET", "/v2/keys/a"), ("PUT", "/v2/keys/a"), ("GET", "/v2/members")):
        assert ask(proxied, method, path) == nobody
    assert ask(proxied, "GET", "/v2/config/local/proxy") == (200, b'{"endpoints":[]}\n')
    assert ask(proxied, "GET", "/metrics") == (200, b"served")
    assert counted(proxied)["etcd_proxy_dropped_total GET zero_endpoints"] == 2
    assert not any("handled" in name for name in counted(proxied))


@pytest.mark.parametrize("reached", [True, False])
@pytest.mark.parametrize("mistake", ["unexpected EOF", "invalid byte in chunk length"])
def test_a_body_that_breaks_off_changes_nothing(mistake: str, reached: bool) -> None:
    """A member takes it: without a form's type, it is none."""
    proxied = Proxied(lambda: reached)
    body = BrokenBody()
    body.mistake = mistake
    refused = b'{"message":"httpproxy: failed to read request body: ' + mistake.encode() + b'"}'
    assert ask(proxied, "PUT", "/v2/keys/a", body) == (500, refused)
    assert counted(proxied) == {"etcd_proxy_requests_total PUT": 1}


def test_who_has_lost_all_members_says_so_on_every_path_of_theirs_for_a_while() -> None:
    now, failed = 100.0, 0
    proxied = Proxied(lambda: False, lambda: now, lambda: failed, 5.0)
    nobody = (503, b'{"message":"httpproxy: zero endpoints currently available"}')
    assert ask(proxied, "GET", "/version") == nobody, "none has been tried yet"
    failed = 3
    lost = (502, b'{"message":"httpproxy: unable to get response from 3 endpoint(s)"}')
    assert ask(proxied, "GET", "/v2/keys/a") == lost
    for path in ("/v2/keys/a", "/version", "/health", "/v3/kv/range", "/nothing"):
        assert ask(proxied, "GET", path) == nobody
    for path in ("/metrics", "/muster/shards"):
        assert ask(proxied, "GET", path) == (200, b"served")
    assert ask(proxied, "GET", "/v2/config/local/proxy") == (200, b'{"endpoints":[]}\n')
    now += 4.9
    assert ask(proxied, "PUT", "/v2/keys/a") == nobody
    now += 0.2
    assert ask(proxied, "PUT", "/version") == lost, "they count as tried again"
    assert ask(proxied, "PUT", "/version") == nobody
    assert counted(proxied) == {
        "etcd_proxy_requests_total GET": 7,
        "etcd_proxy_requests_total PUT": 3,
        "etcd_proxy_dropped_total GET zero_endpoints": 6,
        "etcd_proxy_dropped_total GET failed_sending_request": 3,
        "etcd_proxy_dropped_total GET failed_getting_response": 1,
        "etcd_proxy_dropped_total PUT zero_endpoints": 2,
        "etcd_proxy_dropped_total PUT failed_sending_request": 3,
        "etcd_proxy_dropped_total PUT failed_getting_response": 1,
    }


def test_who_reached_a_member_meanwhile_tries_again() -> None:
    reached = False
    proxied = Proxied(lambda: reached, lambda: 100.0, lambda: 1, 5.0)
    assert [ask(proxied, "GET", "/version")[0] for _ in range(2)] == [502, 503]
    reached = True
    assert ask(proxied, "GET", "/version") == (200, b"served")
    reached = False
    assert [ask(proxied, "GET", "/version")[0] for _ in range(2)] == [502, 503]


def test_a_proxy_of_version_3_serves_its_other_paths_itself() -> None:
    proxied = Proxied(lambda: False, lambda: 100.0, lambda: 3)
    assert ask(proxied, "GET", "/v2/keys/a")[0] == 503
    for path in ("/version", "/health", "/v3/kv/range"):
        assert ask(proxied, "GET", path) == (200, b"served")


def test_a_proxy_that_counted_nothing_has_no_samples() -> None:
    assert counted(Proxied(lambda: True)) == {}


def test_words_of_a_client_s_own_count_as_one() -> None:
    reached = True
    proxied = Proxied(lambda: reached, lambda: 0.0)
    for number in range(20):
        assert ask(proxied, f"X{number}", "/v2/keys/a") == (200, b"served")
    reached = False
    for number in range(20):
        assert ask(proxied, f"X{number}", "/v2/keys/a")[0] == 503
    assert counted(proxied) == {
        "etcd_proxy_requests_total OTHER": 40,
        "etcd_proxy_handled_total OTHER 200": 20,
        "etcd_proxy_dropped_total OTHER zero_endpoints": 20,
        "etcd_proxy_handling_duration_seconds_count OTHER": 20,
    }
