"""A process that is short of files or threads dials on."""

from __future__ import annotations

import asyncio
import errno
import socket
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.unit.zmtp.test_sockets import free_port, run, until
from tools.muster.machine.zmtp import Dealer, LinkOptions, Router, lookups
from tools.muster.machine.zmtp import dealer as dealer_module
from tools.muster.machine.zmtp.lookups import LookUps


@pytest.mark.parametrize("transport", ["ipc", "tcp"])
def test_a_dealer_without_files_or_threads_for_a_moment_dials_again(
    transport: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error ended its process, as one of its loop. A literal address was asked of the resolver."""
    port = free_port()
    endpoint = f"ipc://{tmp_path}/s" if transport == "ipc" else f"tcp://127.0.0.1:{port}"
    names = ["somebody"] * (transport == "tcp")
    short, met, asked = {"files": 2, "threads": 2}, list[Any](), list[str]()
    of = LookUps.of

    def made(*given: Any) -> socket.socket:
        short["files"] -= 1
        if short["files"] >= 0:
            raise OSError(errno.EMFILE, "Too many open files")
        return socket.socket(*given)

    def looked_up(look_ups: Any, loop: Any, name: str) -> Any:
        asked.append(name)
        short["threads"] -= 1
        if short["threads"] >= 0:
            raise RuntimeError("can't start new thread")
        return of(look_ups, loop, name)

    monkeypatch.setattr(lookups, "_look_up", lambda name: [(socket.AF_INET, "127.0.0.1")])
    monkeypatch.setattr(LookUps, "of", looked_up)
    monkeypatch.setattr(dealer_module, "socket", SimpleNamespace(**{**vars(socket), "socket": made}))

    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: met.append(context))
        router = Router(loop, endpoint, lambda parts: None, LinkOptions(3))
        lost: list[str] = []
        dealers = [Dealer(loop, at, b"d%d" % n, lambda parts: None, LinkOptions(3), lost=lost.append)
                   for n, at in enumerate([endpoint, *(f"tcp://{name}:{port}" for name in names)])]
        await until(lambda: met or all(dealer.send([b"hello"]) for dealer in dealers))
        assert not met
        assert lost.count("Too many open files") == 2
        assert set(asked) == set(names)
        for each in (*dealers, router):
            each.close()

    run(scenario)
