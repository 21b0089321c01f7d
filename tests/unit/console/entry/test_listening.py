"""Whom the console's https lets in, and by which files."""

from __future__ import annotations

import asyncio
import os
import ssl
import time
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from cluster.settings import Tls
from tests.authority import Authority, Pair
from tools.console import certificates
from tools.console.certificates import Certified, Listening
from tools.muster.cli import run

Ask = Callable[[Pair | None], Awaitable[tuple[str, int]]]


async def _users(scope: Any, _: Any, send: Any) -> None:
    """An app that answers with the name of the browser's certificate."""
    assert scope["type"] == "http"
    body = "".join(one.common_name for one in certificates.visitor(scope)[:1]).encode()
    headers = [(b"connection", b"close"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def visit(
    authority: Authority, listening: Listening, step: Callable[[Ask], Coroutine[Any, Any, None]]
) -> None:
    """Ask a console with a certificate: the answer's body, and the serial number that the console showed.
    "-": there is no answer."""

    async def main() -> None:
        config = uvicorn.Config(_users, log_level="error")
        config.load()
        loop = asyncio.get_running_loop()
        made = partial(Certified, listening, config=config, server_state=uvicorn.Server(config).server_state,
                       app_state={})  # fmt: skip
        server = await loop.create_server(made, "127.0.0.1", 0, ssl=listening.first)
        port = server.sockets[0].getsockname()[1]

        async def ask(pair: Pair | None) -> tuple[str, int]:
            context = ssl.create_default_context(cafile=str(authority.file))
            if pair is not None:
                context.load_cert_chain(pair.cert, pair.key)
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
                writer.write(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
                tls = writer.get_extra_info("ssl_object")
                serial = int(tls.getpeercert()["serialNumber"], 16)
                text = (await reader.read()).decode()
            except (ssl.SSLError, ConnectionError):
                return "-", 0
            writer.close()
            return text.partition("\r\n\r\n")[2] if text else "-", serial

        async with server, asyncio.timeout(60):
            await step(ask)

    asyncio.run(main())


def _listening(authority: Authority, own: Pair, crl: Path, *, required: bool = False) -> Listening:
    files = Tls(str(own.cert), str(own.key), trusted_ca_file=str(authority.file), crl_file=str(crl))
    return Listening(files, required=required)


def _aged(*paths: Path) -> None:
    """A file that has just been written is looked at again; one of a while ago only if it changes."""
    for path in paths:
        os.utime(path, (1e9, 1e9))


@pytest.mark.parametrize("required", [False, True])
def test_a_revoked_certificate_opens_nothing(tmp_path: Path, *, required: bool) -> None:
    authority = Authority(tmp_path)
    own, alice, mallory = (authority.issue(name, "127.0.0.1") for name in ("console", "alice", "mallory"))
    crl = authority.revoke(mallory.serial)
    _aged(own.cert, own.key, authority.file, crl)

    async def step(ask: Ask) -> None:
        assert (await ask(alice))[0] == "alice"
        assert (await ask(mallory))[0] == "-"
        assert (await ask(None))[0] == ("-" if required else "")
        authority.revoke(alice.serial)
        assert (await ask(alice))[0] == "-", "a list that changed counts from the next connection on"
        assert (await ask(mallory))[0] == "mallory"

    visit(authority, _listening(authority, own, crl, required=required), step)


def test_a_renewed_certificate_is_shown(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    own = authority.issue("console", "127.0.0.1")
    crl = authority.revoke()
    before = own.serial

    async def step(ask: Ask) -> None:
        assert (await ask(None))[1] == before
        renewed = authority.issue("console", "127.0.0.1")
        assert (await ask(None))[1] == renewed.serial != before
        renewed.key.unlink()
        assert (await ask(None))[1] == renewed.serial, "files that do not fit count for nothing"

    visit(authority, _listening(authority, own, crl), step)


def test_no_session_outlives_its_authority(tmp_path: Path) -> None:
    """One of TLS 1.2 would: all sessions are of the console's first context."""
    authority, other = Authority(tmp_path, "own"), Authority(tmp_path, "other")
    own, alice = authority.issue("console", "127.0.0.1"), authority.issue("alice", "127.0.0.1")
    trusted = tmp_path / "trusted.pem"
    files = Tls(str(own.cert), str(own.key), trusted_ca_file=str(trusted))
    browser = ssl.create_default_context(cafile=str(authority.file))
    browser.maximum_version = ssl.TLSVersion.TLSv1_2
    browser.load_cert_chain(alice.cert, alice.key)

    open_ones = list[ssl.SSLObject]()  # one that is dropped takes its session with it

    def visited(session: ssl.SSLSession | None = None) -> tuple[ssl.SSLSession | None, bool]:
        """The session, and whether it is the one of before."""
        to, back = ssl.MemoryBIO(), ssl.MemoryBIO()
        ours = browser.wrap_bio(back, to, server_hostname="127.0.0.1", session=session)
        theirs = listening.first.wrap_bio(to, back, server_side=True)
        left = [ours, theirs]
        open_ones.extend(left)
        while left:
            for one in list(left):
                try:
                    one.do_handshake()
                    left.remove(one)
                except ssl.SSLWantReadError:
                    pass
        return ours.session, bool(ours.session_reused)

    def trust(one: Authority) -> None:
        trusted.write_bytes(one.file.read_bytes())
        _aged(trusted, own.cert, own.key)

    trust(authority)
    listening = Listening(files, required=True)
    session, _ = visited()
    assert visited(session)[1], "it saves browsers a handshake"
    soon = time.time() + 3600  # of a machine whose clock was ahead: it is loaded again each second
    os.utime(trusted, (soon, soon))
    session, _ = visited()
    assert session is not None
    listening._loaded_s = session.time  # which is whole seconds
    listening._look_again_at = time.monotonic()
    made = listening.made
    assert visited(session)[1]
    assert listening.made == made + 1
    trust(other)
    for one in (session, None):
        with pytest.raises(ssl.SSLError):
            visited(one)
    trust(authority)
    session, _ = visited()
    assert session is not None
    listening._loaded_s = session.time  # which is whole seconds
    assert visited(session)[1]


@pytest.mark.parametrize(("content", "told"), [(None, "no such file"), ("words", "revocation list")])
def test_a_list_that_is_none_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str | None, told: str
) -> None:
    authority = Authority(tmp_path)
    own, crl = authority.issue("console", "127.0.0.1"), tmp_path / "crl.pem"
    if content is not None:
        crl.write_text(content)
    flags = ["--listen=https://127.0.0.1:1", f"--cert-file={own.cert}", f"--key-file={own.key}",
             f"--trusted-ca-file={authority.file}", f"--client-crl-file={crl}"]  # fmt: skip
    assert run(["console", *flags]) == 1
    said = capsys.readouterr().err
    assert told in said
    assert str(crl) in said
