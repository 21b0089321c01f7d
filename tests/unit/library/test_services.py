"""Configuration from texts, schedules, and what a namespace makes of requests."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import enum
import typing
from decimal import Decimal
from types import SimpleNamespace
from typing import Any, Literal, NewType

import muster_client as m
import pydantic
import pytest
from muster_client.errors import of_status
from muster_client.model import KeyValue
from muster_client.pb import kv_pb2
from muster_client.pb import rpc_pb2 as pb
from muster_client.ranges import EVERYTHING, KeyRange, prefix
from muster_client.services.config import Config, built
from muster_client.services.cron import Cron, Run
from muster_client.services.registry import Registration, instance_of, value_of
from muster_client.wire.spaces import Space

from tests.unit.library.scripted import Code, scripted
from tests.unit.library.test_places import Line, there


class Level(enum.Enum):
    LOW = "low"
    HIGH = "high"


class Rank(enum.IntEnum):
    FIRST = 1
    SECOND = 2


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
    rank: Rank = Rank.FIRST
    mode: Literal["fast", "safe"] = "safe"
    limit: int | None = None
    weights: dict[str, int] = dataclasses.field(default_factory=dict)
    raw: bytes = b""


def test_a_dataclass_of_texts() -> None:
    found = built(Settings, {
        "pool": {"size": "3", "hosts": '["a"]'}, "rate": "2.5", "debug": "Yes", "level": "high", "rank": "2",
        "mode": "fast", "limit": "7", "weights": {"a": "1", "b": "2"}, "raw": "é", "unknown": "x"})
    assert found == Settings(
        Pool(3, ["a"]), rate=2.5, debug=True, level=Level.HIGH, rank=Rank.SECOND, mode="fast", limit=7,
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
    ({"pool": {"size": "1"}, "rank": "3"}, "rank: '3' is no Rank"),
    ({"pool": {"size": "1"}, "mode": "slow"}, "one of"),
    ({"pool": {"size": "1", "hosts": "{}"}}, "another kind"),
])  # fmt: skip
def test_what_is_wrong_is_named(tree: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        built(Settings, tree)


@dataclasses.dataclass
class Listener:
    port: int | Literal["auto"] = "auto"
    share: int | float | None = None


def test_a_union_takes_its_first_type_that_fits() -> None:
    assert built(Listener, {"port": "auto", "share": "0.5"}) == Listener("auto", 0.5)
    assert built(Listener, {"port": "80", "share": ""}) == Listener(80, None)
    for tree in ({"port": "none"}, {"port": ""}, {"share": "x"}):
        with pytest.raises(ValueError, match=f"{next(iter(tree))}: "):
            built(Listener, tree)


Port = NewType("Port", int)
Statement: Any = getattr(typing, "TypeAliasType", NewType)  # what makes ``type Port = int``, of Python 3.12


@pytest.mark.parametrize("kind", [Port, Statement("Port", int), Statement("Other", Port | None)])
def test_another_name_of_a_type_is_that_type(kind: Any) -> None:
    model = dataclasses.make_dataclass("Listening", [("port", kind)])
    assert built(model, {"port": "80"}) == model(80)


@dataclasses.dataclass
class Picky:
    price: Decimal = Decimal(0)
    tags: set[str] = dataclasses.field(default_factory=set)

    def __post_init__(self) -> None:
        if self.price < 0:
            raise TypeError("it is paid for")


@pytest.mark.parametrize("tree", [{"price": "x"}, {"tags": "[[1]]"}, {"tags": "[" * 100_000}])
def test_whatever_a_type_raises_is_named(tree: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(tree))}: "):
        built(Picky, tree)


def test_a_state_that_is_not_valid_ends_no_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Exception] = []
    config = Config(m.Client("127.0.0.1:1"), "/c", Picky, told.append)
    for price, valid in ((b"2", True), (b"-1", False), (b"3", True)):
        kv = KeyValue(b"/c/price", price, 1, 1, 1)
        monkeypatch.setattr(config._mirror, "copy", lambda kv=kv: {kv.key: kv})
        config._step()
        assert (config.error is None) is valid
    assert config._value == Picky(Decimal(3))
    assert [str(one) for one in told] == ["it is paid for"]


@pytest.mark.parametrize(("keys", "wrong"), [
    ({b"/c/price": b"2", b"/c/notes": b"x", b"/c/notes/a": b"y", b"/c/notes/a/b": b"z"}, ""),
    ({b"/c/price": b"2", b"/c/price/old": b"1"}, "price: it has a value, and keys below it, too"),
])  # fmt: skip
def test_a_key_with_keys_below_it_is_wrong_only_for_a_field(
    keys: dict[bytes, bytes], wrong: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = Config(m.Client("127.0.0.1:1"), "/c", Picky, None)
    kvs = {key: KeyValue(key, value, 1, 1, 1) for key, value in keys.items()}
    monkeypatch.setattr(config._mirror, "copy", lambda: kvs)
    config._step()
    assert str(config.error or "") == wrong
    assert config._value == (None if wrong else Picky(Decimal(2)))


def test_a_job_that_fails_behind_its_leadership_ends_no_cron() -> None:
    """Whatever it raises: this program stands as a candidate again."""

    class Store:
        async def get(self, key: bytes) -> KeyValue:
            return KeyValue(key, b'{"done": 0}', 1, 1, 1)

        async def txn(self, txn: object, *, repeatable: bool, on_send: object) -> SimpleNamespace:
            return SimpleNamespace(revision=2)

    async def job(run: Run) -> None:
        raise KeyError("the process stood still")

    lost: Any = SimpleNamespace(lost=True, token=1, held=m.key("/c/leader/1").create_revision == 1)
    store: Any = Store()
    with pytest.raises(m.NotHeld):
        asyncio.run(Cron(store, "/c", 1.0, job, 10, True, "UTC")._one(lost))


@pytest.mark.parametrize(("code", "wrapped", "again"), [
    (Code.UNAVAILABLE, False, True), (Code.UNAVAILABLE, True, True), (Code.INVALID_ARGUMENT, False, False)])
def test_a_run_whose_end_got_no_answer_is_not_ended_without_its_writes(
    code: Code, wrapped: bool, again: bool
) -> None:
    """They are done once with it, as is said. The run was over, and they were not done."""
    done = list[int]()

    class Store:
        async def get(self, key: bytes) -> KeyValue:
            return KeyValue(key, b'{"done": 0}', 1, 1, 1)

        async def txn(self, txn: m.Txn, *, repeatable: bool, on_send: object) -> SimpleNamespace:
            if len(txn.success) > 1:
                raise of_status(code, "etcdserver: some reason", maybe_done=True)
            done.append(len(txn.success))
            return SimpleNamespace(revision=2)

    async def job(run: Run) -> None:
        try:
            await run.finish(m.put("written", "1"))
        except m.MusterError as error:
            if wrapped:
                raise KeyError("the job's own") from error
            raise

    leading: Any = SimpleNamespace(lost=False, token=1, held=m.key("/c/leader/1").create_revision == 1)
    store: Any = Store()
    cron = Cron(store, "/c", 1.0, job, 10, True, "UTC")
    with pytest.raises(m.Unavailable) if again else contextlib.nullcontext():
        asyncio.run(cron._one(leading))
    assert done == ([1] if again else [1, 1]), "its begin, and its end where the job failed by itself"


@pytest.mark.parametrize("perhaps", [False, True])
def test_it_is_told_that_a_run_may_have_been_ended(perhaps: bool) -> None:
    """By an attempt without an answer, before another led and wrote over it. NotHeld said that it was not."""
    leadership: Any = SimpleNamespace(lost=True, token=5, held=m.key("/c/leader/1").create_revision == 5)
    unsure = [(Code.UNAVAILABLE, "etcdserver: request timed out")] if perhaps else []

    async def main() -> None:
        async with m.Client(address) as client:
            job: Any = None
            run = Run(Cron(client, "/c", 1.0, job, 10, True, "UTC"), leadership, 60.0, 1, 6)
            with pytest.raises(m.NotHeld) as met:
                await run.finish(m.ops.put("done", "1"))
            assert met.value.maybe_done == perhaps

    with scripted(Line(*unsure, there(b'{"by": 9, "done": 60.0}', 2, 9)).methods) as address:
        asyncio.run(main())


def test_a_check_that_ends_its_registration_is_cancelled() -> None:
    """By what it wakes, in the turn of the loop in which it ends."""

    async def main() -> None:
        async def healthy() -> bool:
            asyncio.get_running_loop().call_soon(checking.cancel)
            return True

        registration: Any = SimpleNamespace(key=b"s")
        checking = asyncio.create_task(stay(registration, healthy))
        await asyncio.wait((checking,), timeout=2)
        assert checking.cancelled()

    async def stay(registration: Any, healthy: Any) -> None:
        await Registration._asked(registration, healthy)
        await asyncio.sleep(0)

    asyncio.run(main())


def test_a_mirror_that_failed_holds_none_of_its_callers() -> None:
    client: Any = None
    mirror = m.Mirror(client, EVERYTHING, None)

    async def main() -> None:
        mirror._task, mirror._failure = asyncio.create_task(asyncio.sleep(0)), m.MusterError("it failed")
        lengths = set()
        for _ in range(5):
            with pytest.raises(m.MusterError, match="it failed") as met:
                len(mirror)
            lengths.add(len(met.traceback))
        assert len(lengths) == 1

    asyncio.run(main())


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


class Inner(pydantic.BaseModel):
    size: int = 0


class Other(pydantic.BaseModel):
    color: str


CHOICES = pydantic.AliasChoices("one", pydantic.AliasPath("two", 0))


class Open(pydantic.BaseModel):
    ports: dict[str, Any] = {}
    named: str = pydantic.Field("", alias="as")
    chosen: str = pydantic.Field("", validation_alias=CHOICES)
    inner: Inner | None = None
    texts: dict[str, str] = {}
    either: Inner | Other | None = None


@pytest.mark.parametrize(("keys", "wrong"), [
    (("ports/a", "ports/a/old"), "ports/a"),
    (("ports/a/b", "ports/a/b/c"), "ports/a/b"),
    (("as", "as/old"), "as"),
    (("two", "two/0"), "two"),
    (("inner/size", "inner/size/a"), "inner/size"),
    (("inner/note", "inner/note/a"), ""),
    (("named", "named/a"), ""),
    (("either/note", "either/note/a"), ""),
    (("texts/a",), ""),
])  # fmt: skip
def test_values_with_keys_below_them_are_not_left_out_of_a_model(
    keys: tuple[str, ...], wrong: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = Config(m.Client("127.0.0.1:1"), "/c", Open, None)
    found = {f"/c/{key}".encode(): KeyValue(f"/c/{key}".encode(), b"[1]", 1, 1, 1) for key in keys}
    monkeypatch.setattr(config._mirror, "copy", lambda: found)
    config._step()
    assert str(config.error or "") == (f"{wrong}: it has a value, and keys below it, too" if wrong else "")


def test_a_field_of_an_item_of_a_list() -> None:
    assert built(Open, {"two": '["a", "b"]'}).chosen == "a"


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
