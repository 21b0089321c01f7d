"""What a node opens when it starts: its log, its state and the Raft member on them."""

from __future__ import annotations

from cluster.pacing.patience import COMMIT_RIDES_MS
from cluster.raft import Config, Configuration, Raft
from cluster.settings import NodeSettings
from node.machine import NodeMachine
from node.replica.clock import signs_of_life_ms
from node.storage import RaftLog, StateStore
from node.upkeep.space.disks import log_buffer_bytes


def open_disks(
    settings: NodeSettings, machine: NodeMachine, voters: Configuration
) -> tuple[RaftLog, StateStore]:
    """The log, whose first configuration is ``voters``, and the state, which must fit together."""
    log = machine.open_log(
        f"{settings.data_dir}/log", initial=voters, no_fsync=settings.unsafe_no_fsync,
        write_buffer_bytes=log_buffer_bytes(settings))
    store = machine.open_state(
        f"{settings.data_dir}/state", block_cache_bytes=settings.block_cache_bytes,
        write_buffer_bytes=settings.write_buffer_bytes, range_cache_bytes=settings.range_cache_bytes,
        shard=settings.shard)
    log.verify(store.position.shard_index)
    return log, store


def start_raft(settings: NodeSettings, machine: NodeMachine, log: RaftLog, applied_index: int) -> Raft:
    common = settings.common
    config = Config(
        id=common.member_id,
        heartbeat_ms=signs_of_life_ms(common) if settings.shard else common.heartbeat_interval_ms,
        election_timeout_ms=common.election_timeout_ms,
        soon_at_start=settings.initial_election_tick_advance,
        tells_commit=settings.shard == 0,  # C6: in other shards a cut tells
        commit_rides_ms=COMMIT_RIDES_MS,
    )
    raft = Raft(config, log, machine.random.random, machine.now_ms())
    raft.applied(applied_index)
    return raft
