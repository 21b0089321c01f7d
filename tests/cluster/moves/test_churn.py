"""Money moves between accounts while the shards that keep them come, go and change: no total is ever another,
and a watch has every revision once."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from cluster.pb import rpc_pb2 as pb
from tests.cluster.local_cluster import STEADY, local_cluster, until
from tests.cluster.moves.churn import Churn
from tests.faults.hosts import Hosts
from tests.faults.sharded.test_shards_bank import TOTAL, Bank, open_accounts, wait_for_revision
from tests.faults.shards import Background, Client, assert_equal_everywhere, clients

LIMIT_S = 300.0
MOVES, TRANSFERS, AUDITS = 3, 50, 30  # that are enough
PAUSE_S = 0.01  # leaves the hosts the CPU; nothing waits for it


class Watched:
    """All events from a revision on, applied one after the other."""

    def __init__(self, client: Client, first: int) -> None:
        self.revision = first - 1
        self.faults: list[str] = []
        self._balances: dict[bytes, int] = {}
        self._client = client
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow)

    def __enter__(self) -> Watched:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._client.close()
        self._thread.join(LIMIT_S)

    def _follow(self) -> None:
        watch = self._client.channel.stream_stream(
            "/etcdserverpb.Watch/Watch", request_serializer=lambda m: m.SerializeToString(),
            response_deserializer=pb.WatchResponse.FromString)

        def asked():  # type: ignore[no-untyped-def]
            create = pb.WatchCreateRequest(key=b"\0", range_end=b"\0", start_revision=self.revision + 1)
            yield pb.WatchRequest(create_request=create)
            self._stop.wait()

        try:
            for answer in watch(asked()):
                if answer.canceled:
                    self.faults.append(f"cancelled: {answer.cancel_reason}")
                    return
                self._take(answer.events)
        except Exception as error:  # of the call that ends with the test, too
            if not self._stop.is_set():
                self.faults.append(str(error))

    def _take(self, events: list[pb.WatchResponse]) -> None:
        """Whole revisions, as a watch brings them."""
        by_revision: dict[int, dict[bytes, int]] = {}
        for event in events:
            by_revision.setdefault(event.kv.mod_revision, {})[event.kv.key] = int(event.kv.value)
        for revision, balances in by_revision.items():
            if revision != self.revision + 1:
                self.faults.append(f"revision {revision} after {self.revision}")
            self.revision = revision
            self._balances.update(balances)
            if sum(self._balances.values()) != TOTAL:
                self.faults.append(f"another total at revision {revision}")


def paused(work: Callable[[], None]) -> Callable[[], None]:
    def run() -> None:
        work()
        time.sleep(PAUSE_S)

    return run


@pytest.mark.timeout(700)
def test_no_money_is_lost_while_keys_and_shards_come_and_go(tmp_path: Path) -> None:
    with local_cluster(tmp_path / "c", 3, "--shards=1", extra=STEADY) as cluster:
        hosts = Hosts(cluster)
        churn = Churn(cluster.endpoints(), 28, compacts=True)
        churn.grow()
        with clients(hosts) as found:
            first = open_accounts(found[0])
            bank = Bank(first)
            wait_for_revision(found, first)

            def enough() -> bool:
                return (churn.done["moved"] >= MOVES and bank.transfers >= TRANSFERS
                        and bank.audits >= AUDITS)

            with Watched(Client(hosts, 0), first) as one, Watched(Client(hosts, 1), first) as other:
                work = [*(bank.transfer(client) for client in found[:2]),
                        *(bank.audit(client, serializable=at == 2) for at, client in enumerate(found))]
                with Background(*map(paused, work), churn.step) as background:
                    until(lambda: background.errors or one.faults or other.faults or enough(), LIMIT_S)
                last = int(found[0].everything().header.revision)
                for watched in (one, other):
                    until(lambda w=watched: w.faults or w.revision >= last, LIMIT_S)
                    assert watched.faults == []
            print(f"{bank.transfers} transfers, {bank.audits} audits, {dict(churn.done)}")
            assert_equal_everywhere(found)
        churn.close()
