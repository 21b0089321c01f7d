"""What goes on beside a run, or after it: compaction at intervals, hashes, finding the leader."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

from bench.client import Client, RpcError, parse_endpoint
from bench.load.spec import Spec
from bench.load.traffic.workloads import RANGE
from cluster.pb import rpc_pb2 as pb

STATUS = "/etcdserverpb.Maintenance/Status"
COMPACT = "/etcdserverpb.KV/Compact"
HASH_KV = "/etcdserverpb.Maintenance/HashKV"


async def connect(spec: Spec, endpoints: Sequence[str] = ()) -> Client:
    """One connection to each endpoint, those of the spec by default."""
    found = [parse_endpoint(e) for e in endpoints or spec.endpoints]
    return await Client.open(found, len(found), tls=spec.tls(), user=spec.user)


async def revision_of(client: Client) -> int:
    answer = await client.unary(RANGE, pb.RangeRequest(key=b"\0", count_only=True), pb.RangeResponse)
    return answer.header.revision


async def compact(client: Client, revision: int, *, physical: bool = False, timeout_s: float = 60.0) -> None:
    """Compact; a revision that is compacted already is no error."""
    request = pb.CompactionRequest(revision=revision, physical=physical)
    try:
        await client.unary(COMPACT, request, pb.CompactionResponse, timeout_s=timeout_s)
    except RpcError as error:
        if "compacted" not in error.message:
            raise


@asynccontextmanager
async def compacting(spec: Spec, interval_s: float, delta: int) -> AsyncIterator[Counter[str]]:
    """Every ``interval_s`` (0: never) compact up to ``delta`` revisions before the present one.

    It yields the compactions that failed, by reason: the next one is due all the same.
    """
    failed: Counter[str] = Counter()
    if not interval_s:
        yield failed
        return

    async def again(client: Client) -> None:
        while True:
            await asyncio.sleep(interval_s)
            try:
                revision = await revision_of(client) - delta
                if revision > 0:
                    await compact(client, revision)
            except Exception as error:  # the load has its result, whatever becomes of this
                failed[f"compaction: {str(error) or 'no answer within the time limit'}"] += 1

    client = await connect(spec)
    task = asyncio.ensure_future(again(client))
    try:
        yield failed
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await client.close()


async def hash_kv(spec: Spec) -> dict[str, int]:
    """Each endpoint's hash at the lowest of their revisions."""
    client = await connect(spec)
    try:
        places = range(len(client.connections))
        revision = min([(await client.unary(STATUS, pb.StatusRequest(), pb.StatusResponse, connection=i))
                        .header.revision for i in places])
        request = pb.HashKVRequest(revision=revision)
        return {spec.endpoints[i]: (await client.unary(HASH_KV, request, pb.HashKVResponse, connection=i,
                                                       timeout_s=60.0)).hash
                for i in places}
    finally:
        await client.close()


async def to_leader(spec: Spec) -> Spec:
    """The same run at the leader's endpoint only. OSError if no endpoint leads."""
    return replace(spec, endpoints=(await leader_of(spec.endpoints, spec),))


async def leader_of(endpoints: Sequence[str], spec: Spec | None = None) -> str:
    """The endpoint of the member that leads by its own status. OSError if none does."""
    last = ""
    for endpoint in endpoints:
        try:
            client = await connect(spec or Spec("put", (endpoint,)), (endpoint,))
        except (OSError, RpcError) as error:  # a member without a quorum logs nobody in
            last = f": {error}"
            continue
        try:
            status = await client.unary(STATUS, pb.StatusRequest(), pb.StatusResponse)
        except (RpcError, TimeoutError):
            continue
        finally:
            await client.close()
        if status.leader == status.header.member_id:
            return endpoint
    raise OSError(f"no leader among {', '.join(endpoints)}{last}")
