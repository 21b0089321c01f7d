"""The table of members: rows of the order replace what a host was made with."""

from __future__ import annotations

import pytest

from cluster.members.table import Host, Table, decode_all
from cluster.settings import Peer

SEED = (
    Peer(1, "a", "127.0.0.1", 2380, ("http://127.0.0.1:2380",)),
    Peer(2, "b", "127.0.0.1", 3380, ("http://127.0.0.1:3380",)),
)


def row(member_id: int, port: int = 4380, **more: bool) -> bytes:
    return Host(member_id, "", (f"http://127.0.0.1:{port}",), **more).encode()


def test_it_begins_with_its_seed() -> None:
    table = Table(SEED)
    assert table.peers == SEED
    assert [h.name for h in table.members] == ["a", "b"]


def test_rows_add_change_and_remove_hosts() -> None:
    table = Table(SEED)
    told: list[int] = []
    table.subscribe(lambda: told.append(len(table.members)))
    table.take([row(3)])
    table.take([row(1, 9380)])
    table.take([row(2, 3380, removed=True)])
    assert told == [3, 3, 2]
    assert [(p.member_id, p.name, p.port) for p in table.peers] == [(1, "a", 9380), (3, "", 4380)]
    assert table.removed(2)
    assert table.former == [2]
    assert table.peer(2).port == 3380  # known until every group has let it go
    table.take([row(2, 3380, removed=True)])
    assert told == [3, 3, 2]  # that is no news


def test_tables_of_different_seeds_come_to_the_same_members() -> None:
    rows = [row(3), row(1, removed=True), row(3, 5380), row(4, learner=True)]
    old, joined = (
        Table(SEED, rows),
        Table((*SEED, Peer(3, "c", "127.0.0.1", 4380, ("http://127.0.0.1:4380",))), rows),
    )
    assert [(h.member_id, h.peer_urls, h.learner) for h in old.members] == [
        (h.member_id, h.peer_urls, h.learner) for h in joined.members
    ]
    assert old.learner(4)


def test_a_state_that_was_replaced_brings_its_own_rows() -> None:
    table = Table(SEED, [row(3)])
    table.replace([row(3, removed=True), row(4)])
    assert [p.member_id for p in table.peers] == [1, 2, 4]


def test_another_process_gets_the_whole_table() -> None:
    table, other = Table(SEED, [row(3), row(2, removed=True)]), Table(())
    other.follow(decode_all(table.encode_all()))
    assert other.hosts == table.hosts
    with pytest.raises(ValueError, match="cut short"):
        decode_all(table.encode_all()[:-1])


@pytest.mark.parametrize("data", [b"", b"\0", b"\0\xff\xff", b"\0\x12\x01a"])
def test_a_damaged_row_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="host"):
        Host.decode(data)


def test_a_url_without_a_port_is_reached_by_nobody() -> None:
    assert Host(1, "", ("unix://x",)).peer.port == 0
