"""Configuration from texts, schedules, and what a namespace makes of requests."""

from __future__ import annotations

import dataclasses
import enum
from datetime import datetime
from typing import Any, Literal
from zoneinfo import ZoneInfo

import pydantic
import pytest
from muster_client.model import KeyValue
from muster_client.pb import kv_pb2
from muster_client.pb import rpc_pb2 as pb
from muster_client.ranges import EVERYTHING, KeyRange, prefix
from muster_client.services.config import built
from muster_client.services.cron import following
from muster_client.services.registry import instance_of, value_of
from muster_client.wire.spaces import Space


class Level(enum.Enum):
    LOW = "low"
    HIGH = "high"


@dataclasses.dataclass
class Pool:
    size: int
    hosts: list[str] = dataclasses.field(default_factory=list)


@dataclasses.dataclass
class Settings:
    pool: Pool
    name: str = "x"
    rate: float = 1.0
    debug: bool = False
    level: Level = Level.LOW
    mode: Literal["fast", "safe"] = "safe"
    limit: int | None = None
    weights: dict[str, int] = dataclasses.field(default_factory=dict)
    raw: bytes = b""


def test_a_dataclass_of_texts() -> None:
    found = built(Settings, {
        "pool": {"size": "3", "hosts": '["a"]'}, "rate": "2.5", "debug": "Yes", "level": "high",
        "mode": "fast", "limit": "7", "weights": {"a": "1", "b": "2"}, "raw": "é", "unknown": "x"})
    assert found == Settings(
        Pool(3, ["a"]), rate=2.5, debug=True, level=Level.HIGH, mode="fast", limit=7,
        weights={"a": 1, "b": 2}, raw="é".encode())
    assert built(Settings, {"pool": {"size": "3"}, "limit": "", "weights": '{"c": 3}'}) == Settings(
        Pool(3), weights={"c": 3})


@pytest.mark.parametrize(("tree", "said"), [
    ({}, "pool/size: there is no such key"),
    ({"pool": {"size": "three"}}, "pool/size: 'three' is no int"),
    ({"pool": "3"}, "pool: it has keys below it"),
    ({"pool": {"size": "1"}, "rate": {"a": "1"}}, "rate: it has a value"),
    ({"pool": {"size": "1"}, "debug": "maybe"}, "true or false"),
    ({"pool": {"size": "1"}, "level": "middle"}, "level"),
    ({"pool": {"size": "1"}, "mode": "slow"}, "one of"),
    ({"pool": {"size": "1", "hosts": "{}"}}, "another kind"),
])  # fmt: skip
def test_what_is_wrong_is_named(tree: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        built(Settings, tree)


class Model(pydantic.BaseModel):
    size: int
    tags: list[str] = []
    note: str = ""


def test_a_model_of_pydantic() -> None:
    found = built(Model, {"size": "3", "tags": '["a"]', "note": "[no list]"})
    assert found == Model(size=3, tags=["a"], note="[no list]")
    with pytest.raises(ValueError, match="size"):
        built(Model, {"size": "x"})
    with pytest.raises(TypeError, match="no dataclass"):
        built(int, {})


def test_seconds_between_runs() -> None:
    after = following(10, "UTC")
    assert [after(0), after(9.5), after(10), after(10.1)] == [10, 10, 20, 20]
    for wrong in (0, -1, float("inf"), float("nan")):
        with pytest.raises(ValueError, match="apart"):
            following(wrong, "UTC")


def test_five_fields_by_a_clock_that_is_set() -> None:
    """Each day once, also where an hour is left out or comes twice."""
    berlin = ZoneInfo("Europe/Berlin")
    after = following("30 2 * * *", "Europe/Berlin")
    for day, hours in (((2026, 3, 28), 24), ((2026, 10, 24), 25)):
        moment = datetime(*day, 12, tzinfo=berlin).timestamp()
        days = []
        for _ in range(3):
            later = after(moment)
            assert later > moment
            days.append(datetime.fromtimestamp(later, berlin).day)
            moment = later
        assert len(set(days)) == 3, (day, hours)
    with pytest.raises(ValueError, match="no schedule"):
        following("61 * * * *", "UTC")


def test_an_instance_is_stored_as_go_does() -> None:
    assert value_of("a:1", {"zone": "z"}) == '{"Op":0,"Addr":"a:1","Metadata":{"zone":"z"}}'

    def told(value: bytes) -> Any:
        return instance_of(KeyValue(b"s/a", value, 7, 8, 1))

    one = told(b'{"Op":0,"Addr":"a:1","Metadata":{"zone":"z"}}')
    assert (one.address, one.zone, one.token) == ("a:1", "z", 7)
    assert told(b'{"Addr":"a:1"}').zone == ""
    assert told(b'{"Addr":"a:1","Metadata":"text"}').metadata == "text"
    assert told(b"10.0.0.1:80") is None
    assert told(b"[1]") is None
    assert told(b"\xff") is None


def test_a_space_of_keys() -> None:
    space = Space(b"p/")
    assert space.range(EVERYTHING) == KeyRange(b"p/\0", b"p0")
    assert space.range(KeyRange(b"a", b"")) == KeyRange(b"p/a", b"")
    assert space.range(prefix("a")) == prefix("p/a")
    assert Space(b"\xff").range(KeyRange(b"a", b"\0")) == KeyRange(b"\xffa", b"\0")
    asked = pb.TxnRequest(
        compare=[pb.Compare(key=b"a", range_end=b"\0")], success=[pb.RequestOp(
            request_txn=pb.TxnRequest(failure=[pb.RequestOp(
                request_delete_range=pb.DeleteRangeRequest(key=b"b"))]))])
    whole = space.asked(asked)
    assert asked.compare[0].key == b"a", "the caller's request stays as it is"
    assert (whole.compare[0].key, whole.compare[0].range_end) == (b"p/a", b"p0")
    assert whole.success[0].request_txn.failure[0].request_delete_range.key == b"p/b"
    lease = pb.LeaseTimeToLiveResponse(keys=[b"p/a", b"q/a"])
    space.told(lease)
    assert list(lease.keys) == [b"a"]
    event = kv_pb2.Event(kv=kv_pb2.KeyValue(key=b"p/a"))
    space.event(event)
    assert (event.kv.key, event.HasField("prev_kv")) == (b"a", False)
