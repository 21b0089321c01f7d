"""Money moved between accounts on five shards: nobody ever sees a total that is not the whole, at any
revision, on any host.

Every revision of a run is read again on every host when it is over. So that this takes a minute at most in
CI, transfers are bounded in number: ``MOST`` of them are begun in ``RUN_S``, evenly.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator

import grpc
import pytest

from bench.client import Client as AsyncClient
from bench.client import Endpoint
from cluster.pb import rpc_pb2 as pb
from tests.cluster.local_cluster import local_cluster
from tests.faults.hosts import Hosts, until
from tests.faults.shards import Background, Client, assert_equal_everywhere, clients, keys_of
from tests.soaking import amount

SHARDS = 5
ACCOUNTS = [key for shard in range(SHARDS) for key in keys_of(shard, SHARDS, 3)]
EACH = 100
TOTAL = EACH * len(ACCOUNTS)
RUN_S, MOST = amount(12.0, soak=100.0), amount(4_000, soak=10_000)
READERS = 4  # of all the revisions, on each host

pytestmark = [pytest.mark.longer, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosts]:
    folder = tmp_path_factory.mktemp("bank") / "c"
    with local_cluster(folder, 3, f"--shards={SHARDS}", extra=("--leader-placement=spread",)) as cluster:
        yield Hosts(cluster)


class Bank:
    """Transfers and audits, and what they have found so far."""

    def __init__(self, first: int) -> None:
        self.first = first  # the revision that opened the accounts
        self.early = 0  # audits of a replica that was restarted and has not come so far again
        self.transfers = 0
        self.conflicts = 0
        self.audits = 0
        self._next = 0.0  # when the next transfer may begin
        self._lock = threading.Lock()

    def _turn(self) -> None:
        """Wait for one's turn to begin a transfer."""
        with self._lock:
            now = time.monotonic()
            turn = max(self._next, now)
            self._next = turn + RUN_S / MOST
        time.sleep(turn - now)

    def transfer(self, client: Client) -> Callable[[], None]:
        """Read two accounts, then move some money if neither has changed: a compare-and-swap over two
        shards."""

        def move() -> None:
            self._turn()
            source, target = random.sample(ACCOUNTS, 2)
            with contextlib.suppress(grpc.RpcError):  # of unknown fate, perhaps: the total tells
                read = client.txn([], [_get(source), _get(target)])
                rows = [r.response_range.kvs[0] for r in read.responses]
                amount = random.randint(1, max(int(rows[0].value), 1))
                if int(rows[0].value) < amount:
                    return
                unchanged = [
                    pb.Compare(key=kv.key, target="MOD", result="EQUAL", mod_revision=kv.mod_revision)
                    for kv in rows
                ]
                answer = client.txn(
                    unchanged,
                    [_put(source, int(rows[0].value) - amount), _put(target, int(rows[1].value) + amount)],
                )
                with self._lock:
                    self.transfers += answer.succeeded
                    self.conflicts += not answer.succeeded

        return move

    def audit(self, client: Client, serializable: bool) -> Callable[[], None]:
        """A full range; the total is the whole, and a front's revisions never go back."""
        last = 0

        def look() -> None:
            nonlocal last
            with contextlib.suppress(grpc.RpcError):
                found = client.everything(serializable=serializable)
                if serializable and found.header.revision < self.first:
                    with self._lock:
                        self.early += 1
                    return
                assert total(found) == TOTAL, (found.header.revision, found)
                if not serializable:
                    assert found.header.revision >= last
                    last = found.header.revision
                with self._lock:
                    self.audits += 1

        return look

    def clients(self, found: list[Client]) -> list[Callable[[], None]]:
        """Four that move money, and on each host one that audits as it is and one that audits the replica."""
        movers = [self.transfer(found[i % 3]) for i in range(4)]
        return movers + [
            self.audit(client, serializable) for client in found for serializable in (False, True)
        ]


def total(found: pb.RangeResponse) -> int:
    assert len(found.kvs) == len(ACCOUNTS)
    return sum(int(kv.value) for kv in found.kvs)


def _get(key: str) -> pb.RequestOp:
    return pb.RequestOp(request_range=pb.RangeRequest(key=key.encode()))


def _put(key: str, value: int) -> pb.RequestOp:
    return pb.RequestOp(request_put=pb.PutRequest(key=key.encode(), value=str(value).encode()))


def open_accounts(client: Client) -> int:
    """All of them in one transaction; the revision from which on the total is the whole."""
    return int(client.txn([], [_put(key, EACH) for key in ACCOUNTS]).header.revision)


def wait_for_revision(found: list[Client], revision: int) -> None:
    """Until every host shows it: a serializable read shows what its host has, and that may be from before."""
    until(lambda: all(client.everything(serializable=True).header.revision >= revision for client in found))


def check_every_revision(hosts: Hosts, found: list[Client], first: int) -> int:
    """The total at every revision there was, by every host's own replicas; how many."""
    last = int(found[0].everything().header.revision)
    wait_for_revision(found, last)
    began = time.monotonic()
    asyncio.run(_read_all(hosts, range(first, last + 1)))
    print(f"{last - first} revisions read on 3 hosts in {time.monotonic() - began:.1f} s")
    return last - first


async def _read_all(hosts: Hosts, revisions: range) -> None:
    """Each of them on each host."""

    async def read(host: int, left: Iterator[int]) -> None:
        client = await AsyncClient.open([Endpoint(*hosts.endpoints[host])])
        try:
            for revision in left:
                request = pb.RangeRequest(key=b"\0", range_end=b"\0", revision=revision, serializable=True)
                answer = await client.unary("/etcdserverpb.KV/Range", request, pb.RangeResponse)
                assert total(answer) == TOTAL, (host, revision, answer)
                # each is of one transfer: that very one is in what is shown
                assert max(kv.mod_revision for kv in answer.kvs) == revision, (host, revision, answer)
        finally:
            await client.close()

    lefts = [iter(revisions) for _ in hosts.endpoints]
    await asyncio.gather(*(read(host, left) for host, left in enumerate(lefts) for _ in range(READERS)))
    assert all(next(left, None) is None for left in lefts)


def test_the_total_is_constant_in_every_read(hosts: Hosts) -> None:
    with clients(hosts) as found:
        first = open_accounts(found[0])
        bank = Bank(first)
        wait_for_revision(found, first)
        with Background(*bank.clients(found)) as background:
            until(lambda: background.errors or (bank.transfers > 100 and bank.audits > 100), 180.0)
            time.sleep(0 if background.errors else RUN_S / 2)  # the load itself
        revisions = check_every_revision(hosts, found, first)
        assert_equal_everywhere(found)
    print(
        f"{bank.transfers} transfers, {bank.conflicts} refused, {bank.audits} audits, {revisions} revisions"
    )
    assert revisions >= bank.transfers


def test_the_total_is_constant_while_nodes_are_killed(hosts: Hosts) -> None:
    rng = random.Random(os.environ.get("MUSTER_SEED", "bank"))
    with clients(hosts) as found:
        first = open_accounts(found[0])
        bank = Bank(first)
        wait_for_revision(found, first)
        with Background(*bank.clients(found)) as background:
            end = time.monotonic() + RUN_S
            while (time.monotonic() < end or bank.transfers <= 50) and not background.errors:
                host, shard = rng.randrange(3), rng.randrange(SHARDS)
                before = bank.transfers
                with contextlib.suppress(ProcessLookupError):
                    os.kill(hosts.node_pid(host, shard), signal.SIGKILL)
                # the next one is killed once business goes on
                until(lambda: background.errors or bank.transfers > before + 20, 180.0)  # noqa: B023
        until(lambda: all(hosts.ready(host) for host in range(3)))
        revisions = check_every_revision(hosts, found, first)
        assert_equal_everywhere(found)
    print(
        f"{bank.transfers} transfers, {bank.conflicts} refused, {bank.audits} audits, {revisions} revisions"
    )
    print(f"{bank.early} audits of replicas that had not come so far again")
    assert bank.transfers > 50
