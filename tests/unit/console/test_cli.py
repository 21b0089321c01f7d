"""What ``muster console`` refuses, before it asks anything."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any
from unittest.mock import AsyncMock

import pytest
import uvicorn

from tests.authority import Authority
from tools.console import app
from tools.console.guard import Receive, Scope, Send
from tools.muster import console as cli
from tools.muster.cli import run
from tools.muster.config.parse import ConfigError, resolve
from tools.muster.machine import everywhere


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--listen=127.0.0.1:8378"], "is no URL"),
        (["--listen=http://127.0.0.1"], "is no URL such as http://127.0.0.1:8378"),
        (["--listen=http://127.0.0.1:port"], "is no URL"),
        (["--listen=https://127.0.0.1:8378"], "goes with --cert-file and --key-file"),
        (["--cert-file=a", "--key-file=b"], "goes with --cert-file and --key-file"),
        (["--listen=https://127.0.0.1:1", "--cert-file=/none", "--key-file=/none"], "open /none: no such"),
        (["--endpoints="], "no endpoint is given"),
        (["--endpoints=host"], "has no port"),
        (["--cacert=/none"], "/none"),
        (["--cert=a"], "cert and key go together"),
        (["--user-certs=a"], "--user-certs goes with --trusted-ca-file and https --endpoints or --cacert"),
        (["--trusted-ca-file=a"], "--trusted-ca-file goes with --listen https://"),
        (["--client-cert-auth"], "--client-cert-auth and --client-crl-file go with --trusted-ca-file"),
    ],
)
def test_a_wrong_setting_is_named(capsys: pytest.CaptureFixture[str], flags: list[str], told: str) -> None:
    assert run(["console", *flags]) == 1
    said = capsys.readouterr().err
    assert told in said
    assert said.count("\n") == 1


def test_certificates_of_users_need_none_of_the_consoles_where_hosts_are_dialled_by_https(
    tmp_path: Path
) -> None:
    of = Authority(tmp_path).issue("ada", "127.0.0.1")
    (folder := tmp_path / "users").mkdir()
    (folder / "ada.pem").write_bytes(Path(of.cert).read_bytes())
    (folder / "ada-key.pem").write_bytes(Path(of.key).read_bytes())
    flags = ["--endpoints=https://127.0.0.1:1", "--trusted-ca-file=ca.pem", f"--user-certs={folder}"]
    with pytest.raises(ConfigError, match="--user-certs goes with"):
        cli._target(resolve(cli.FLAGS, ["--endpoints=127.0.0.1:2", *flags[1:]], {}, use_environ=False))
    target = cli._target(resolve(cli.FLAGS, flags, {}, use_environ=False))
    assert target.certificates is not None
    assert list(target.certificates.pairs()[0]) == ["ada"]


def test_a_hosts_flag_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    for url in ("x", "http://[::1", "https://127.0.0.1:1"):
        assert run(["--console", f"--console-listen={url}"]) == 1
        assert f"error verifying flags, --console-listen {url.partition('127')[0]}" in capsys.readouterr().err


def test_a_taken_port_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(app, "asgi", None)  # a process can build it once
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert run(["console", f"--listen=http://127.0.0.1:{port}"]) == 1
    assert f"listen tcp 127.0.0.1:{port}: bind: address already in use" in capsys.readouterr().err


@pytest.mark.parametrize(("proxies", "seen"), [("", "127.0.0.1"), ("127.0.0.1", "10.9.8.7")])
def test_a_client_says_another_address_than_its_own_only_through_a_named_proxy(
    monkeypatch: pytest.MonkeyPatch, proxies: str, seen: str
) -> None:
    """Each program of this machine passed for any number of clients, which take turns with log-ins."""
    clients: list[str] = []

    async def page(scope: Scope, receive: Receive, send: Send) -> None:
        clients.append(scope["client"][0])

    async def asked(server: uvicorn.Server, listener: socket.socket) -> None:
        headers = [(b"x-forwarded-for", b"10.9.8.7")]
        loaded: Any = server.config.loaded_app
        scope = {"type": "http", "client": ("127.0.0.1", 50_000), "headers": headers}
        await loaded(scope, AsyncMock(), AsyncMock())

    if proxies:
        monkeypatch.setenv("FORWARDED_ALLOW_IPS", proxies)
    else:
        monkeypatch.delenv("FORWARDED_ALLOW_IPS", raising=False)
    monkeypatch.setattr(app, "asgi", lambda *_, **__: page)
    monkeypatch.setattr(cli, "_until_told", asked)
    assert run(["console", "--listen=http://127.0.0.1:0"]) == 0
    assert clients == [seen]


def test_a_message_of_a_page_has_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is not whole is kept, and anybody may send it: uvicorn's bound is 16 MiB."""
    found: list[int] = []

    async def told(server: uvicorn.Server, listener: socket.socket) -> None:
        found.append(server.config.ws_max_size)

    monkeypatch.setattr(app, "asgi", lambda *_, **__: None)
    monkeypatch.setattr(cli, "_until_told", told)
    assert run(["console", "--listen=http://127.0.0.1:0"]) == 0
    assert found == [4_000_000]


def test_what_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "NEEDS", ("nicegui", "no_such_module"))
    with pytest.raises(ConfigError, match=r"needs no_such_module: pip install '.\[console\]'"):
        cli.require()


def test_unknown_words_and_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["console", "word"]) == 2
    assert run(["console", "--help"]) == 0
    assert "--read-only" in capsys.readouterr().out


def test_a_certificate_of_the_console_is_taken(tmp_path: Path) -> None:
    of = Authority(tmp_path).issue("console", "127.0.0.1")
    assert cli.listen_of("https://127.0.0.1:1", str(of.cert), str(of.key)) == ("https", "127.0.0.1", 1)


@pytest.mark.parametrize("host", ["::", "0.0.0.0"])
def test_all_addresses_are_those_of_both_families(host: str) -> None:
    with cli._bound(host, 0) as listener:
        port = listener.getsockname()[1]
        for address in ("127.0.0.1", "::1") if everywhere.knows_ipv6() else ("127.0.0.1",):
            socket.create_connection((address, port), 60).close()


@pytest.mark.parametrize("host", ["::", "0.0.0.0"])
def test_a_machine_without_ipv6_serves_ipv4(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    monkeypatch.setattr(cli, "knows_ipv6", lambda: False)
    with cli._bound(host, 0) as listener:
        assert listener.getsockname()[0] == "0.0.0.0"
