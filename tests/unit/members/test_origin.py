"""What a data directory began with, and which of them make one cluster."""

from __future__ import annotations

import json

import pytest

from cluster.members.described import Running
from cluster.members.origin import NEW, Origin

BACKUP = "00000000000000a7"


def test_hosts_that_began_alike_go_together_and_no_others() -> None:
    restored = Origin.parse(BACKUP, 2, 1)
    assert restored == Origin(0xA7, 2, 1)
    others = [Origin(0xA8, 2, 1), Origin(0xA7, 1, 1), Origin(0xA7, 2, 2), Origin(0, 2, 1)]
    assert [other.differs(restored) for other in others] == [True] * 4
    assert [restored.differs(other) for other in others] == [True] * 4
    assert not restored.differs(Origin(0xA7, 2, 1))
    assert not Origin(0, 1, 1).differs(Origin(0, 3, 2)), "the order's first record says which layout counts"


def test_an_origin_on_the_wire_and_in_words() -> None:
    for text in (NEW, BACKUP):
        origin = Origin.parse(text, 2, 1)
        assert origin is not None
        assert Origin.decode(origin.encode()) == origin
    assert str(origin) == "restored from backup 00000000000000a7 to --shards=2 --shard-depth=1"
    for odd in (b"", b"O", origin.encode()[:-1], b"P" + origin.encode()[1:]):
        assert Origin.decode(odd) is None
    assert Origin.parse("", 2, 1) is None, "a directory of an older version"


@pytest.mark.parametrize("text", ["0", "-1", "1" + "0" * 16, "old"])
def test_what_is_no_origin_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        Origin.parse(text, 1, 1)
    told = {"cluster_id": "7", "shards": 1, "depth": 1, "members": [], "removed": []}
    assert Running.decode(json.dumps(told).encode()).origin == ""
    assert Running.decode(json.dumps({**told, "origin": BACKUP}).encode()).origin == BACKUP
    with pytest.raises(ValueError, match=r"."):
        Running.decode(json.dumps({**told, "origin": text}).encode())
