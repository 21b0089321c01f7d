"""A state that is sent whole."""

from __future__ import annotations

from pathlib import Path

from node.storage import StateStore
from node.storage.snapshot import SnapshotSink, SnapshotSource


def sent(store: StateStore, tmp_path: Path, chunk_bytes: int = 10_000) -> list[bytes]:
    source = SnapshotSource.create(store, tmp_path / "outgoing")
    chunks = []
    while chunk := source.next_chunk(chunk_bytes):
        chunks.append(chunk)
    assert sum(map(len, chunks)) == source.size_bytes
    source.close()
    return chunks


def receive(store: StateStore, chunks: list[bytes]) -> SnapshotSink:
    sink = SnapshotSink(store.root)
    for chunk in chunks:
        sink.write(chunk)
    return sink


def take(sink: SnapshotSink, chunks: list[bytes]) -> None:
    for chunk in chunks:
        sink.write(chunk)
    sink.finish()
