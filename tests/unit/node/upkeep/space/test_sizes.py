"""What the shards of a host have in use together."""

from __future__ import annotations

from pathlib import Path

from node.upkeep.space.sizes import Sizes, forget


def test_a_shard_knows_what_the_others_have_in_use(tmp_path: Path) -> None:
    shards = [Sizes(str(tmp_path), shard, 3) for shard in range(3)]
    assert [shard.others() for shard in shards] == [0, 0, 0]
    for size, shard in zip((1, 20, 300), shards, strict=True):
        shard.tell(size)
    assert [shard.others() for shard in shards] == [320, 301, 21]
    shards[1].close()
    shards[1].tell(4000)
    assert shards[0].others() == 320, "who has ended has as much as it had"
    again = Sizes(str(tmp_path), 0, 3)
    assert again.others() == 0, "node 0 begins anew, and whoever lives tells again"
    shards[2].tell(500)
    assert again.others() == 500
    assert again.shards == 3, "one has not told yet"
    born = [Sizes(str(tmp_path), shard, 3) for shard in (3, 7)]
    for one in born:
        one.tell(6)
    assert (again.others(), again.shards) == (512, 4)
    shards[1] = Sizes(str(tmp_path), 1, 3)
    shards[1].tell(1)
    assert (again.others(), again.shards) == (513, 5)
    assert (born[1].others(), born[1].shards) == (507, 4), "node 0 has not told yet"
    for one in (*shards, *born, again):
        one.close()


def test_without_others_or_a_place_for_it_nothing_is_told(tmp_path: Path) -> None:
    for one in (Sizes(str(tmp_path), 0, 1), Sizes(str(tmp_path / "none"), 0, 2), Sizes("", 0, 2)):
        one.tell(5)
        assert one.others() == 0
        one.close()
    assert list(tmp_path.iterdir()) == []


def test_a_dropped_shard_has_nothing_in_use(tmp_path: Path) -> None:
    """What it had filled the quota until node 0 started again."""
    shards = [Sizes(str(tmp_path), shard, 3) for shard in range(3)]
    for shard in shards:
        shard.tell(100)
    forget(str(tmp_path), 1)
    forget(str(tmp_path), 7)  # which has told nothing
    assert [shards[0].others(), shards[2].others()] == [100, 100]
    forget(str(tmp_path / "none"), 1)
    for shard in shards:
        shard.close()
