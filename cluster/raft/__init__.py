"""Raft: one group of replicas that agree on one log. A pure state machine: ``core`` has the driver's loop.

Read in this order: ``types``, ``messages``, ``state``, ``election``, ``replication``, ``core``; then the
parts they use: ``log``, ``progress``, ``reads``, ``membership``. "Section" means the paper (Ongaro and
Ousterhout, "In Search of an Understandable Consensus Algorithm", extended version), "thesis" Ongaro's.
"""

from cluster.raft.core import Raft
from cluster.raft.messages import Kind, Message, decode_messages, encode_messages
from cluster.raft.types import (
    ENTRY_OVERHEAD,
    Config,
    Configuration,
    ConfigurationRefused,
    Entry,
    EntryKind,
    HardState,
    IntegrityError,
    LogContradiction,
    LogStorage,
    NotLeader,
    PeerStatus,
    ProposalDropped,
    RaftError,
    Ready,
    Role,
    SnapshotPosition,
    read_entry,
)

__all__ = [
    "ENTRY_OVERHEAD", "Config", "Configuration", "ConfigurationRefused", "Entry", "EntryKind", "HardState",
    "IntegrityError", "Kind", "LogContradiction", "LogStorage", "Message", "NotLeader", "PeerStatus",
    "ProposalDropped", "Raft", "RaftError", "Ready", "Role", "SnapshotPosition", "decode_messages",
    "encode_messages", "read_entry"]
