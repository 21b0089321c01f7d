"""What a node opens when it starts: its log, its state and the Raft member on them."""

from __future__ import annotations

from pathlib import Path

from cluster.pacing.patience import COMMIT_RIDES_MS
from cluster.raft import Config, Configuration, Raft
from cluster.settings import NodeSettings
from node.machine import NodeMachine
from node.replica.clock import signs_of_life_ms
from node.storage import RaftLog, StateStore
from node.upkeep.space.disks import log_buffer_bytes


def first_voters(settings: NodeSettings) -> Configuration:
    """The configuration with which a log begins."""
    own = {settings.common.member_id} if settings.joined else set()
    return Configuration(
        frozenset(settings.born or {peer.member_id for peer in settings.common.peers} - own))


def open_disks(
    settings: NodeSettings, machine: NodeMachine, voters: Configuration
) -> tuple[RaftLog, StateStore]:
    """The log, whose first configuration is ``voters``, and the state, which must fit together."""
    machine.remove_left_snapshots(Path(settings.data_dir))  # first: they may have filled the disk
    log = machine.open_log(
        f"{settings.data_dir}/log", initial=voters, no_fsync=settings.unsafe_no_fsync,
        write_buffer_bytes=log_buffer_bytes(settings))
    if settings.genesis:
        machine.begin_state(f"{settings.data_dir}/state", Path(settings.genesis))
    store = machine.open_state(
        f"{settings.data_dir}/state", block_cache_bytes=settings.block_cache_bytes,
        write_buffer_bytes=settings.write_buffer_bytes, range_cache_bytes=settings.range_cache_bytes,
        shard=settings.shard)
    log.verify(store.position.shard_index)
    return log, store


def start_raft(settings: NodeSettings, machine: NodeMachine, log: RaftLog, store: StateStore) -> Raft:
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
    raft.applied(store.position.shard_index)
    if settings.born:  # G12: without a state its shard would serve nothing, and no other replica could
        raft.may_campaign = lambda: store.position.order_index > 0
    return raft
