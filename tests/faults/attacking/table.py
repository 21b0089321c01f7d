"""Every attack at muster and at an etcd, one after the other, as rows of docs/run/attacks.tsv.

``python -m tests.faults.attacking.table [NAME...]`` starts three hosts with two shards and three members of
an etcd on this machine, and a bystander at the leader of each. Nothing is judged here: the tests do that. Of
each system a row has the bystander's p99 in turns without the attack and beside it (medians, milliseconds),
requests of his that failed, what the attacked host grew by meanwhile and what is left of that ten seconds
later (MB), and whether a process or a leader is another one.
"""

from __future__ import annotations

import contextlib
import functools
import signal
import socket
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import psutil

from bench.systems.systems import System, start_etcd
from cluster.pb import rpc_pb2 as pb
from tests.faults.attacking import (
    rows,
    test_attacks,
    test_attacks_http2,
    test_attacks_loops,
    test_attacks_memory,
)
from tests.faults.attacking.beside import TURN_S, Attacked, attacked, watching
from tests.faults.attacking.bystander import Bystander, Turn

TURNS = 2
REST_S = 5.0
_LIMIT_S = 20.0

Attack = Callable[[str], object]

FIGURES = ("p99 without, ms", "p99 beside, ms", "grown, MB", "left, MB", "notes")
HEADER = ("attack", "what", *(f"{system}: {figure}" for system in ("muster", "etcd") for figure in FIGURES))


def sent_by_four(flood: Callable[[socket.socket], bytes], endpoint: str) -> None:
    """A turn of four connections that send the same again and again, and come back when they are closed."""
    host, _, port = endpoint.rpartition(":")
    until = time.monotonic() + TURN_S

    def send() -> None:
        while time.monotonic() < until:
            with (
                contextlib.suppress(OSError),
                socket.create_connection((host, int(port)), timeout=_LIMIT_S) as connection,
            ):
                data = flood(connection)
                connection.settimeout(0.05)
                while time.monotonic() < until:
                    with contextlib.suppress(TimeoutError):
                        connection.sendall(data)
                    with contextlib.suppress(TimeoutError):
                        if not connection.recv(1 << 20):
                            break

    threads = [threading.Thread(target=send) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def attacks() -> dict[str, Attack]:
    """All of them, by name. Those that an etcd does not serve fail there at once."""
    listed: list[Attack] = [
        *test_attacks_loops.ATTACKS, test_attacks_loops.crowd, *test_attacks_memory.ATTACKS,
        test_attacks_http2.zero_windows, test_attacks_http2.compressed, test_attacks_http2.slow_clients,
        test_attacks_loops.lists,
    ]
    found = {attack.__name__: attack for attack in listed}
    for flood in (test_attacks.pipelined_versions, test_attacks.huffman_headers):
        found[flood.__name__] = functools.partial(sent_by_four, flood)
    for kind in test_attacks_http2.FLOODS:
        frames = kind if callable(kind) else kind.values[0]
        found[frames.__name__] = functools.partial(_flooded, frames)
    return found


def meaning(attack: Attack) -> str:
    """The first sentence about it."""
    while isinstance(attack, functools.partial):
        attack = attack.args[0]
    return " ".join((attack.__doc__ or "").split()).partition(". ")[0].rstrip(".")


def _flooded(frames: Callable[..., bytes], endpoint: str) -> None:
    test_attacks_http2.flooding(endpoint, 4, frames)


class Etcd(Attacked):
    """Three members of an etcd in place of muster's hosts."""

    def __init__(self, system: System, bystander: Bystander, endpoint: str) -> None:
        self._system, self._bystander, self.endpoint, self.fronts = system, bystander, endpoint, 0

    def standing(self) -> list[object]:
        """Processes, leaders and terms."""
        found: list[object] = list(self._system.pids)
        for endpoint in self._system.endpoints:
            status = _status(endpoint)
            found.append((status.leader, status.raftTerm))
        return found

    def memory(self) -> list[int]:
        """What each member has to itself."""
        return [psutil.Process(pid).memory_full_info().uss for pid in self._system.pids]


def _status(endpoint: str) -> pb.StatusResponse:
    with grpc.insecure_channel(endpoint) as channel:
        ask = channel.unary_unary("/etcdserverpb.Maintenance/Status",
                                  response_deserializer=pb.StatusResponse.FromString)
        answer: pb.StatusResponse = ask(b"", timeout=_LIMIT_S)
        return answer


@contextlib.contextmanager
def etcd(folder: Path) -> Iterator[Etcd]:
    """Attacked where it leads, and with the same rows in it."""
    system = start_etcd(folder, flags=("--enable-v2", "--heartbeat-interval=100", "--election-timeout=2000"))
    try:
        statuses = {str(endpoint): _status(str(endpoint)) for endpoint in system.endpoints}
        at = next(e for e, status in statuses.items() if status.header.member_id == status.leader)
        rows.load(at)
        with Bystander(at, ["/a/b/c", "/d/e/f"]) as bystander:
            yield Etcd(system, bystander, at)
    finally:
        system.stop()


@dataclass
class Row:
    """What came of one attack at one system."""

    quiet: list[Turn] = field(default_factory=list)
    beside: list[Turn] = field(default_factory=list)
    grown: int = 0
    left: int = 0
    notes: list[str] = field(default_factory=list)

    def cells(self) -> list[str]:
        """As ``FIGURES`` names them."""
        p99 = [statistics.median(turn.p99_s for turn in turns) * 1e3 if turns else 0.0
               for turns in (self.quiet, self.beside)]
        failed = sum(len(turn.failures) for turn in self.beside)
        notes = "; ".join(self.notes + ([f"{failed} failed"] if failed else []))
        return [*(f"{ms:.0f}" for ms in p99), f"{self.grown / 1e6:+.0f}", f"{self.left / 1e6:+.0f}", notes]


def look(system: Attacked, attack: Attack) -> Row:
    """Turns without and with it, by turns."""
    row, standing, memory = Row(), system.standing(), system.memory()
    with watching(system.memory) as peaks:
        for _ in range(TURNS):
            row.quiet.append(system.turn(TURN_S))
            try:
                row.beside.append(system.turn(TURN_S, lambda: attack(system.endpoint)))
            except (AssertionError, OSError) as error:
                row.notes.append(f"the attack ended early: {type(error).__name__}")
                return row
    at = max(range(len(peaks)), key=lambda host: peaks[host] - memory[host])
    row.grown = peaks[at] - memory[at]
    time.sleep(REST_S)
    row.left = system.memory()[at] - memory[at]
    if system.standing() != standing:
        row.notes.append("another leader, term or process")
    return row


def main(names: list[str]) -> None:
    """Print a row as soon as it is there."""
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(1))  # what was started ends with it
    found = attacks()
    if unknown := [name for name in names if name not in found]:
        sys.exit(f"no attack {', '.join(unknown)}; there are {', '.join(found)}")
    with (
        tempfile.TemporaryDirectory() as folder,
        attacked(Path(folder, "muster"), 0) as muster,
        etcd(Path(folder, "etcd")) as other,
    ):
        print("\t".join(HEADER), flush=True)
        for name in names or found:
            if name == "lists":
                for system in (muster, other):
                    test_attacks_loops.leases(system.endpoint)
            cells = [cell for system in (muster, other) for cell in look(system, found[name]).cells()]
            print("\t".join((name, meaning(found[name]), *cells)), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
