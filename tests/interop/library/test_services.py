"""Services, configuration, leaders and jobs by the clock, over lost leases and dead holders."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import muster_client as m
import pydantic
import pytest
from muster_client import lease, sync
from muster_client.pb import rpc_pb2 as pb
from muster_client.services.channels import AioServiceChannel

from tests.interop.hosts import Hosts

Run = Callable[[Coroutine[Any, Any, None]], None]


async def until(holds: Callable[[], Any]) -> None:
    async with asyncio.timeout(20.0):
        while not holds():
            await asyncio.sleep(0.01)


def test_services_are_found_while_they_live(hosts: Hosts, directory: str, run: Run) -> None:
    service = f"{directory}web"

    async def main() -> None:
        async with m.Client(hosts.all) as client, client.discover(service, zone="a") as found:
            with pytest.raises(m.NoInstance):
                found.pick()
            healthy = True

            async def check() -> bool:
                return healthy

            async with (
                client.register(service, "a1:80", zone="a", ttl=2, healthy=check) as one,
                client.register(service, "a2:80", zone="a"),
                client.register(service, "b1:80", zone="b"),
                client.discover(service) as everywhere,
                client.discover(service, balance="least_used") as idle,
            ):
                assert len(await found.wait_for(3)) == 3
                assert Counter(found.pick().address for _ in range(6)) == {"a1:80": 3, "a2:80": 3}
                assert {everywhere.pick().address for _ in range(3)} == {"a1:80", "a2:80", "b1:80"}
                with idle.using() as first, idle.using() as second, idle.using() as third:
                    assert len({first.address, second.address, third.address}) == 3
                healthy = False
                await until(lambda: len(found.instances()) == 2)
                assert {found.pick().address for _ in range(3)} == {"a2:80"}
                await until(lambda: not one.found)  # the change is seen before its answer
                healthy = True
                await until(lambda: len(found.instances()) == 3)
                # its lease is gone: it is registered anew
                assert one._lease is not None
                before = {instance.token for instance in found.instances()}
                await client._caller.unary(lease._REVOKE, pb.LeaseRevokeRequest(ID=one._lease.id))
                await until(lambda: one.found and len(found.instances()) == 3 and
                            {instance.token for instance in found.instances()} != before)
            await until(lambda: not found.instances())

    run(main())


def test_a_change_between_a_look_and_a_wait_is_no_longer_waited_for(
    hosts: Hosts, directory: str, run: Run
) -> None:
    service = f"{directory}web"

    async def main() -> None:
        async with m.Client(hosts.all) as client, client.discover(service) as found:

            def picks() -> bool:  # is no look at all of them
                try:
                    return bool(found.pick())
                except m.NoInstance:
                    return False

            assert not found.instances()
            async with client.register(service, "a:80"):
                await until(picks)
                async with asyncio.timeout(20):
                    await found.changed()
                assert len(found.instances()) == 1
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.2):
                        await found.changed()

    run(main())


def test_a_registration_tells_how_it_ended(hosts: Hosts, directory: str, run: Run) -> None:
    service = f"{directory}web"

    async def main() -> None:
        told: list[m.MusterError] = []
        async with (
            m.Client(hosts.all) as client,
            client.register(service, "a:80", ttl=30, anew=False) as removed,
            client.register(service, "b:80", ttl=30, anew=False) as ended,
            client.register(service, "c:80", ttl=30) as again,
        ):
            again.on_lost(told.append)
            waiting = [asyncio.create_task(one.wait_lost()) for one in (removed, ended)]
            await asyncio.sleep(0)
            for one in (removed, again):
                await client.delete(one.key)
            assert ended._lease is not None
            await client._caller.unary(lease._REVOKE, pb.LeaseRevokeRequest(ID=ended._lease.id))
            async with asyncio.timeout(20):
                errors = await asyncio.gather(*waiting)
            assert [type(error) for error in errors] == [m.Removed, m.LeaseLost]
            assert (removed.lost, ended.lost) == tuple(errors)
            assert not removed.found
            assert await removed.wait_lost() is errors[0]
            await until(lambda: again.found and told)
            assert [type(error) for error in told] == [m.Removed]
            assert await client.get(again.key)
            assert not await client.get(removed.key)
            # a lease that another ends is noticed by the key it takes along, and replaced at once
            assert again._lease is not None
            await client._caller.unary(lease._REVOKE, pb.LeaseRevokeRequest(ID=again._lease.id))
            await until(lambda: again.found and len(told) == 2)
            assert isinstance(told[1], m.LeaseLost)
            assert again.lost is None

    run(main())


def test_a_registration_tells_its_end_without_asyncio(hosts: Hosts, directory: str) -> None:
    with sync.Client(hosts.all) as client, client.register(f"{directory}web", "a:80", anew=False) as one:
        with pytest.raises(TimeoutError):
            one.wait_lost(timeout=0.01)
        told: list[m.MusterError] = []
        one.on_lost(told.append)
        client.delete(one.key)
        assert isinstance(one.wait_lost(timeout=20), m.Removed)
        assert told == [one.lost]


class _Names(grpc.GenericRpcHandler):
    def __init__(self, name: bytes) -> None:
        self._name = name

    def service(self, handler_call_details: Any) -> Any:
        return grpc.unary_unary_rpc_method_handler(lambda request, context: self._name)


def test_a_channel_follows_its_service(hosts: Hosts, directory: str, run: Run) -> None:
    service = f"{directory}grpc"
    servers = {}
    for name in (b"one", b"two"):
        server = grpc.server(ThreadPoolExecutor(2), handlers=[_Names(name)])
        servers[f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"] = server
        server.start()

    async def main() -> None:
        first, second = servers
        async with m.Client(hosts.all) as client, client.discover(service) as found:
            channel = AioServiceChannel(found)
            call = channel.unary_unary("/names/Name")
            async with client.register(service, first):
                await found.wait_for(1)
                assert {await call(b"") for _ in range(3)} == {b"one"}
                async with client.register(service, second):
                    await found.wait_for(2)
                    assert {await call(b"") for _ in range(4)} == {b"one", b"two"}
                await until(lambda: len(found.instances()) == 1)
                assert {await call(b"") for _ in range(3)} == {b"one"}
            await channel.close()

    try:
        run(main())
    finally:
        for server in servers.values():
            server.stop(0).wait(5)


@dataclasses.dataclass
class Pool:
    size: int = 4
    hosts: list[str] = dataclasses.field(default_factory=list)


@dataclasses.dataclass
class Settings:
    database: str
    debug: bool = False
    pool: Pool = dataclasses.field(default_factory=Pool)


class Model(pydantic.BaseModel):
    database: str
    debug: bool = False
    pool: dict[str, Any] = {}


@pytest.mark.parametrize("kind", [Settings, Model])
def test_configuration_is_followed(kind: Any, hosts: Hosts, directory: str, run: Run) -> None:
    async def main() -> None:
        async with m.Client(hosts.all) as client:
            with pytest.raises(ValueError, match="database"):
                async with client.config(directory, kind):
                    pass
            await client.put(f"{directory}database", "db-1")
            await client.put(f"{directory}pool/size", "8")
            errors: list[Exception] = []
            async with client.config(directory, kind, on_error=errors.append) as config:
                assert (config.value.database, config.value.debug) == ("db-1", False)
                changes = config.changes()
                assert (await anext(changes)) is config.value
                await client.when().then(
                    m.put(f"{directory}database", "db-2"), m.put(f"{directory}debug", "true"),
                    m.put(f"{directory}pool/hosts", '["a", "b"]'), m.put(f"{directory}other", "x"))
                value = await asyncio.wait_for(anext(changes), 10)
                assert (value.database, value.debug) == ("db-2", True)
                pool = value.pool if isinstance(value.pool, dict) else dataclasses.asdict(value.pool)
                assert (int(pool["size"]), pool["hosts"]) == (8, ["a", "b"])
                await client.put(f"{directory}debug", "perhaps")
                await until(lambda: errors)
                assert config.value is value
                assert config.error is errors[0]
                await client.put(f"{directory}debug", "off")
                assert not (await asyncio.wait_for(anext(changes), 10)).debug
                assert config.error is None
            with pytest.raises(m.MusterError, match="async with"):
                _ = config.value

    run(main())


def test_work_moves_with_the_leadership(hosts: Hosts, directory: str, run: Run) -> None:
    """Its lease ends under it: the work is cancelled, and begins again under a later token."""
    begun: list[int] = []
    ended: list[int] = []

    async def main() -> None:
        async with m.Client(hosts.all) as client, m.Client(hosts.all) as other:

            async def work(leadership: m.Leadership) -> str:
                begun.append(leadership.token)
                try:
                    if len(begun) < 3:
                        await other._caller.unary(
                            lease._REVOKE, pb.LeaseRevokeRequest(ID=leadership.lease.id))
                        await asyncio.sleep(60)
                    return "done"
                finally:
                    ended.append(leadership.token)

            told = await asyncio.wait_for(client.while_leading(f"{directory}l", work, ttl=2), 30)
            assert (told, len(begun)) == ("done", 3)
            assert begun == ended == sorted(set(begun))
            assert await client.count(m.prefix(f"{directory}l/")) == 0

    run(main())


WORKER = """
import asyncio, sys, muster_client as m
async def job(run):
    print("run", run.due, run.attempt, flush=True)
    await asyncio.sleep(0.3)
    await run.finish(m.put(f"{sys.argv[2]}runs/{run.due:.1f}", str(run.token)))
async def main():
    async with m.Client(sys.argv[1]) as client:
        await client.cron(sys.argv[2] + "job", 0.5, job, ttl=2)
asyncio.run(main())
"""


def test_no_run_is_lost_or_doubled_when_its_holder_dies(hosts: Hosts, directory: str, run: Run) -> None:
    """Three take part; the one that runs is killed in the middle of a run, twice."""
    line = [sys.executable, "-c", WORKER, hosts.all, directory]
    quiet = subprocess.PIPE

    async def main() -> None:
        workers = [subprocess.Popen(line, stdout=quiet, text=True) for _ in range(3)]
        told: dict[int, list[str]] = {i: [] for i in range(3)}

        def read(i: int) -> None:
            stream = workers[i].stdout
            assert stream is not None
            for text in stream:
                told[i].append(text)

        readers = [asyncio.create_task(asyncio.to_thread(read, i)) for i in range(3)]
        try:
            async with m.Client(hosts.all) as client, asyncio.timeout(60):
                killed: set[int] = set()
                for _ in range(2):
                    before = {i: len(told[i]) for i in range(3)}
                    await until(lambda before=before: any(  # type: ignore[misc]
                        len(told[i]) >= before[i] + 2 for i in range(3) if i not in killed))
                    runs = max((i for i in range(3) if i not in killed), key=lambda i: len(told[i]))
                    workers[runs].send_signal(signal.SIGKILL)
                    killed.add(runs)
                [last] = {0, 1, 2} - killed
                seen = len(told[last])
                await until(lambda: len(told[last]) >= seen + 6)
                workers[last].send_signal(signal.SIGKILL)
                runs_done = [kv async for kv in client.range(m.prefix(f"{directory}runs/"))]
            dues = sorted(float(kv.name.rpartition("/")[2]) for kv in runs_done)
            assert [kv.version for kv in runs_done] == [1] * len(runs_done), "a run was doubled"
            gaps = {round(later - due, 3) for due, later in itertools.pairwise(dues)}
            assert gaps == {0.5}, "a run was lost"
            assert any(text.split()[2] != "1" for texts in told.values() for text in texts), \
                "nobody was killed in the middle of a run"
        finally:
            for worker in workers:
                worker.kill()
            await asyncio.gather(*readers)
            for worker in workers:
                worker.wait()
                assert worker.stdout is not None
                worker.stdout.close()

    run(main())


def test_services_without_asyncio(hosts: Hosts, directory: str) -> None:
    with sync.Client(hosts.all) as client, client.discover(f"{directory}web") as found:
        with client.register(f"{directory}web", "a:1", healthy=lambda: True) as one:
            assert [two.address for two in found.wait_for(1, timeout=10)] == ["a:1"]
            assert one.found
            assert found.pick().address == "a:1"
        client.put(f"{directory}conf/size", "2")
        with client.config(f"{directory}conf", Pool) as config:
            changes = config.changes()
            assert next(changes).size == 2
            client.put(f"{directory}conf/size", "3")
            assert next(changes).size == 3
        assert client.while_leading(f"{directory}l", lambda leadership: leadership.token) > 0
        runs: list[float] = []
        with pytest.raises(TimeoutError):
            client.cron(f"{directory}c", 0.5, lambda run: runs.append(run.due), timeout=2.5)
        assert len(runs) >= 2
