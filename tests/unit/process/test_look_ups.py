"""Names are looked up in threads that no end of a process waits for. Where no name server answers, they hang
for ten seconds and more."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import threading
from concurrent.futures import Future

import pytest

from tools.muster.machine.names import Names, Unawaited

PROGRAM = """
import asyncio, contextlib, socket, threading, time
from types import SimpleNamespace

asked = threading.Event()

def hangs(*given, **more):
    asked.set()
    time.sleep(100)

socket.getaddrinfo = socket.gethostbyaddr = hangs

async def until_asked(work):
    task = asyncio.ensure_future(work)
    while not asked.is_set():
        await asyncio.sleep(0.001)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task

"""
WAYS = {
    "of a peer": """
from tools.muster.machine.zmtp.lookups import LookUps
async def work():
    await LookUps().of(asyncio.get_running_loop(), "dead.invalid")
""",
    "of a client's address": """
from proxy.tls.addresses import by_name
from proxy.tls.certified import Certificate
from tools.muster.machine.names import NAMES
def work():
    return by_name(Certificate("x", 1, ("*.invalid",), ()), "127.0.0.1", NAMES)
""",
    "of a client's name": """
from proxy.tls.addresses import by_name
from proxy.tls.certified import Certificate
socket.gethostbyaddr = lambda address: ("a", [], [address])
from tools.muster.machine.names import NAMES
def work():
    return by_name(Certificate("x", 1, ("dead.invalid",), ()), "127.0.0.1", NAMES)
""",
    "of a gateway's endpoint": """
from tools.muster.gateway.forward import Endpoint, Forwarder
def work():
    return Forwarder((), None)._dial(Endpoint("dead.invalid", 2379))
""",
    "of members, as a proxy looks again": """
from tools.muster import proxy_cli
proxy_cli.REFRESH_S = 0.0
work = proxy_cli.Members(7, (), ["http://dead.invalid:2379"]).refresh
""",
    "of members, as a server looks again that is a proxy": """
from tools.muster.proxy_mode.found import Members, Running
given = {"proxy-refresh-interval": 100, "proxy-dial-timeout": 100, "proxy-failure-wait": 0}
config = SimpleNamespace(own_user_peers=False, values=given, peer_key_file="", peer_tls=None)
found = Members(config, ["http://dead.invalid:2380"], None)
work = lambda: found.refresh(SimpleNamespace(cluster_id=7, shards=1, depth=2))
""",
    "of members, as a proxy starts": """
from muster_client.wire.http2 import dialing
from tools.muster import proxy_cli
proxy_cli.ASK_LIMIT_S, dialing.DIAL_S = 0.0, 0.1
async def work():
    pass
with contextlib.suppress(proxy_cli.ConfigError):
    proxy_cli.members_of(["http://dead.invalid:2379"])
""",
}


@pytest.mark.parametrize("way", WAYS)
def test_no_end_of_a_process_waits_for_one(way: str) -> None:
    program = f"{PROGRAM}{WAYS[way]}\nasyncio.run(until_asked(work()))\nprint('asked')"
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "asked\n", "")


def test_few_look_at_once_and_their_threads_end() -> None:
    ends, began = threading.Event(), threading.Semaphore(0)
    threads = Unawaited(2, "few")

    def look(number: int) -> int:
        began.release()
        ends.wait(60)
        if number == 1:
            raise OSError("no such name")
        return number

    found: list[Future[int]] = [threads.submit(look, number) for number in range(4)]
    for _ in range(2):
        assert began.acquire(timeout=60)
    assert not began.acquire(blocking=False)
    assert found[3].cancel()
    looking = [thread for thread in threading.enumerate() if thread.name == "few"]
    assert len(looking) == 2
    ends.set()
    assert (found[0].result(60), found[2].result(60)) == (0, 2)
    with pytest.raises(OSError, match="no such name"):
        found[1].result(60)
    for thread in looking:
        thread.join(60)
        assert not thread.is_alive()
    assert threads.submit(look, 4).result(60) == 4


def test_clients_whose_names_hang_hold_up_no_look_up_of_an_address(monkeypatch: pytest.MonkeyPatch) -> None:
    ends = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *given, **more: ends.wait(60) and [])
    monkeypatch.setattr(socket, "gethostbyaddr", lambda address: ("a", ["b"], [address]))

    async def looks() -> None:
        names = Names()
        hanging = [asyncio.ensure_future(names.addresses("dead.invalid")) for _ in range(8)]
        await asyncio.sleep(0)
        assert await asyncio.wait_for(names.of("127.0.0.1"), 20) == ["a", "b"]
        ends.set()
        await asyncio.gather(*hanging)

    asyncio.run(looks())


def test_a_job_whose_thread_cannot_start_is_not_done_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody would wait for it any more."""
    done: list[int] = []
    ends, threads = threading.Event(), Unawaited(2, "few")
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuses)
        with pytest.raises(RuntimeError):
            threads.submit(done.append, 1)
    looks = threads.submit(ends.wait, 60)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuses)
        waits = threads.submit(done.append, 2)  # the other thread comes to it
    ends.set()
    assert looks.result(60)
    waits.result(60)
    assert done == [2]


def refuses(thread: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")
