"""The policy's driver at a node: what it hears, says and does, and that its mistakes end it alone."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cluster.errors import MOVE_SETTLES, SHARD_BUSY, EtcdError
from cluster.features import births, moves
from cluster.features.growth import OWN
from cluster.growth.bounds import LOOK_S
from cluster.growth.facts import Host, Shard
from cluster.growth.limits import Past
from cluster.growth.policy import Policy
from cluster.growth.sample import Weighed
from cluster.growth.wishes import Kind, Wish
from cluster.members.table import Host as Member
from cluster.pb import shards_pb2
from cluster.placement import Table
from cluster.placement.base import Base
from cluster.placement.changes import Moved, take_move, take_moved, take_shard
from cluster.placement.table import Move, State
from cluster.settings import Common, NodeSettings, Peer
from cluster.wire.messages import HEAD, Method, Status
from node.slicing.slicer import Slices
from node.upkeep.growth import advising as module
from node.upkeep.growth.advising import Advising
from node.upkeep.growth.gathering import Gathering
from node.upkeep.growth.host import HostLook
from node.upkeep.growth.sampling import Sampling

IDS = (1, 2, 3)
NAMES = [b"/%c/%02d" % (letter, number) for letter in b"abcd" for number in range(25)]
BOUNDS = "for_s=0,after_election_s=0"


class Link:
    def __init__(self) -> None:
        self.answers: list[tuple[int, bytes]] = []

    def answer(self, rid: int, status: int, body: bytes) -> None:
        self.answers.append((status, body))

    def ok(self, rid: int, revision: int, term: int, tail: bytes) -> None:
        self.answers.append((Status.OK, HEAD.pack(revision, term) + tail))


class Node:
    """Host 1's node 0, as far as the driver needs it. Shard 0's leader is hot, shard 1's idle."""

    def __init__(self, path: Path, mode: str = "auto", shard: int = 0, bounds: str = BOUNDS) -> None:
        peers = tuple(Peer(i, f"h{i}", "h", 1) for i in IDS)
        common = Common(1, 1, "h1", 1, 2, peers, "")
        self.settings = NodeSettings(common, shard, str(path), growth=mode, growth_bounds=bounds)
        self.now_s, self.used_s = 10_000.0, 0.0
        self.room = moves.Room()
        machine: Any = SimpleNamespace(
            now_ms=lambda: int(self.now_s * 1000), monotonic=lambda: self.now_s, cpu_s=lambda: self.used_s)
        table = take_shard(Table.initial(Base(1, 2)), 1, State.FORMING, 1, IDS)
        self.table = take_shard(table, 1, State.SERVING, 0, ())
        store: Any = SimpleNamespace(
            placement=lambda: self.table, alarms=lambda: self.alarms, size_in_use_bytes=lambda: 1000,
            compact_revision=5, revision=9,
            counts=SimpleNamespace(keys=lambda: 100, marks=lambda most: []))
        heard: Any = SimpleNamespace(match=7, heard_ms=1 << 60)
        self.raft: Any = SimpleNamespace(
            id=1, term=3, is_leader=True, takes_proposals=True, leader_id=1, last_index=9,
            peers=lambda: {2: heard, 3: heard},
            configuration=SimpleNamespace(voters=frozenset(IDS)))
        growing: Any = SimpleNamespace(
            growth=SimpleNamespace(level=3, spoken=dict.fromkeys(IDS, OWN)), room=lambda: self.room)
        sampling = Sampling(lambda: int(self.now_s * 1000), 1) if mode != "off" else None
        self.admission = SimpleNamespace(sampling=sampling)
        self.executed: list[tuple[int, bytes]] = []
        self.refusal: EtcdError | None = None
        self.writes = SimpleNamespace(leader=SimpleNamespace(term=3, execute=self._execute))
        members = {i: Member(i, f"h{i}", (f"http://h{i}:1",), False) for i in IDS}
        self.roster = SimpleNamespace(
            table=SimpleNamespace(hosts=members), changes=SimpleNamespace(settled=True))
        self.sent: list[tuple[int, bytes, bytes]] = []
        self.peers = SimpleNamespace(
            versions=dict.fromkeys(IDS, 12), send=lambda *frame: self.sent.append(frame))
        self.role = SimpleNamespace(ask_leader=self._ask)
        self.asked: list[tuple[int, int, bytes]] = []
        self.works: list[Slices] = []  # that has begun
        self.woken = 0
        self.alarms: list[tuple[int, int]] = []
        self.slicer = SimpleNamespace(start=self.works.append)
        self.told = Shard(2, 1, 0.05, 100.0, 0, 1000, 1).encode()
        fake: Any = self
        self.advising = Advising(fake, self.settings, machine, store, self.raft, growing)

    def _execute(self, method: int, body: bytes) -> None:
        if self.refusal is not None:
            raise self.refusal
        self.executed.append((method, body))

    def _ask(self, shard: int, method: int, body: Any, answered: Any) -> None:
        self.asked.append((shard, method, body(12)))
        answered(Status.OK, self.told)

    def wake(self) -> None:
        self.woken += 1

    def mark_dirty(self, link: object) -> None: ...

    def work(self) -> None:
        works, self.works = self.works, []
        for work in works:
            for _ in work: ...

    def look(self, times: int = 1, busy: float = 0.9) -> None:
        for _ in range(times):
            for name in NAMES:
                if self.admission.sampling is not None:
                    self.admission.sampling.sample.take(int(self.now_s * 1000), name, 10.0)
            self.now_s += LOOK_S
            self.used_s += LOOK_S * busy
            for member in (2, 3):
                self.advising.told(member, Host(4.0, 2.0, 0.9).encode())
            self.advising.second()

    def ask(self) -> shards_pb2.AdviceResponse:
        link: Any = Link()
        self.advising.handlers()[Method.ADVICE](link, 1, 0, b"")
        status, body = link.answers[0]
        assert status == Status.OK
        return shards_pb2.AdviceResponse.FromString(body[HEAD.size:])


@pytest.fixture(autouse=True)
def _free_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(HostLook, "look", lambda self, now_s: Host(4.0, 2.0, 0.9))


def test_it_moves_a_span_as_an_operator_would_ask_for_it(tmp_path: Path) -> None:
    node = Node(tmp_path)
    node.look(4)
    (method, body), = node.executed
    wish = moves.Wish.decode(body[1:])
    assert (method, body[0], wish.target) == (Method.SHARD_CHANGE, moves.MOVE, 1)
    assert node.woken == 1
    assert node.advising.figures()["begun"]["move"] == 1
    assert (1, Method.LOADS, b"\1") in node.asked
    told = node.ask()
    assert told.action == "move"
    assert list(told.holds) == ["what the last action brings is not known yet"]
    assert [round(shard.cpu, 2) for shard in told.shards] == [0.9, 0.05]
    assert [host.name for host in told.hosts if host.tells] == ["h1", "h2", "h3"]


@pytest.mark.parametrize("mode", ["advise", "off"])
def test_only_auto_acts(tmp_path: Path, mode: str) -> None:
    node = Node(tmp_path, mode)
    node.look(20)
    assert node.executed == []
    assert node.ask().mode == mode
    assert node.ask().action == ("move" if mode == "advise" else "")
    assert bool(node.asked) == (mode == "advise")


def test_a_refusal_is_told_and_not_repeated_at_once(tmp_path: Path) -> None:
    node = Node(tmp_path)
    node.refusal = EtcdError(SHARD_BUSY, "shard 1 is busy")
    node.look(20)
    assert "it was refused: shard 1 is busy" in node.ask().holds
    node.refusal = None
    node.look(10)
    assert node.executed == []
    node.look(60)
    assert len(node.executed) == 1


@pytest.mark.parametrize("mode", ["auto", "advise"])
def test_a_move_of_its_own_that_does_not_end_is_cancelled(tmp_path: Path, mode: str) -> None:
    node = Node(tmp_path, mode)
    node.look(4)
    if mode == "advise":  # an operator begins what it advises
        node.executed.append((Method.SHARD_CHANGE, b""))
    (first, _), = node.executed
    node.table = take_move(node.table, Move(1, b"/a/", b"/b/", (0,), 1), 1)
    node.advising.placed(node.table)
    node.now_s += 3600 - 8 * LOOK_S
    node.look(3)
    assert len(node.executed) == 1
    node.refusal = EtcdError(MOVE_SETTLES)
    node.look(6)
    node.refusal = None
    node.look()
    cancel = first, bytes((moves.CANCEL,)) + moves.cancel_body(1)
    assert node.executed[1:] == ([cancel] if mode == "auto" else [])
    node.table = take_moved(node.table, Moved(1, False, 0, 0), 1)
    node.advising.placed(node.table)
    node.look()
    assert cancel not in node.executed[2:]


def test_a_follower_tells_the_leader_and_says_who_leads(tmp_path: Path) -> None:
    node = Node(tmp_path)
    node.raft.is_leader, node.raft.leader_id, node.writes.leader = False, 2, None
    node.look(2)
    assert [member for member, *_ in node.sent] == [2, 2]
    assert Host.decode(node.sent[0][2]).cpus == 4.0
    link: Any = Link()
    node.advising.handlers()[Method.ADVICE](link, 1, 0, b"")
    assert link.answers[0][0] == Status.NOT_LEADER
    node.peers.versions[2] = 11
    node.look()
    assert len(node.sent) == 2, "an older leader is told nothing"


def test_while_leadership_is_handed_over_or_an_alarm_is_raised_it_waits(tmp_path: Path) -> None:
    node = Node(tmp_path)
    node.raft.takes_proposals = False
    node.look(5)
    assert node.executed == []
    node.raft.takes_proposals, node.alarms = True, [(1, 1)]
    node.look(5)
    assert node.executed == []
    assert "an alarm is raised" in node.ask().holds
    node.alarms.clear()
    node.look(2)
    assert len(node.executed) == 1


@pytest.mark.parametrize("room", [moves.Room(quota=-1), moves.Room(disk=-1)])
def test_without_room_for_a_copy_it_waits(tmp_path: Path, room: moves.Room) -> None:
    node = Node(tmp_path)
    node.room = room
    node.look(5)
    assert node.executed == []
    assert any("what the quota and the disk leave it is 0" in why for why in node.ask().holds)
    node.room = moves.Room()
    node.look(2)
    assert len(node.executed) == 1


def test_another_leadership_begins_anew(tmp_path: Path) -> None:
    node = Node(tmp_path, bounds="for_s=0,after_election_s=100")
    node.look(19)
    assert node.executed == []
    node.writes.leader.term = 4
    node.look(19)
    assert node.executed == [], "elected less than 100 s ago"
    node.look(5)
    assert len(node.executed) == 1


def test_while_a_host_is_older_nobody_is_asked(tmp_path: Path) -> None:
    node = Node(tmp_path)
    del node.advising._gathering._growing.growth.spoken[2]
    node.look(5)
    assert node.asked == []
    assert node.executed == []


def test_what_makes_no_sense_is_as_if_it_were_not_told(tmp_path: Path) -> None:
    node = Node(tmp_path)
    with pytest.raises(ValueError):
        node.advising.told(2, b"{}")
    node.told = b"nonsense"
    node.look(5)
    assert node.executed == []
    assert [shard.shard for shard in node.ask().shards] == [0]


def test_a_mistake_of_the_policy_ends_the_policy_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = Node(tmp_path)
    node.look()

    def mistake(*_: object) -> None:
        raise AssertionError("of the policy")

    monkeypatch.setattr(module.Policy, "look", mistake)
    node.look(5)
    monkeypatch.undo()
    node.look(5)
    assert node.executed == []
    assert node.advising.figures()["failed"] == 1
    assert "a bug of muster" in node.ask().stopped


@pytest.mark.parametrize("step", ["placed", "told", "ask", "figures"])
def test_a_mistake_outside_of_the_look_ends_the_policy_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    node = Node(tmp_path)
    node.look(2)

    def mistake(*_: object) -> None:
        raise AssertionError("of the policy")

    monkeypatch.setattr(Past, "took", mistake)
    monkeypatch.setattr(Gathering, "told", mistake)
    monkeypatch.setattr(module, "_shown", mistake)
    if step == "placed":
        node.advising.placed(node.table)
    elif step == "told":
        node.advising.told(2, b"")
    elif step == "ask":
        assert "a bug of muster" in node.ask().stopped
    else:
        node.advising._policy = 1  # type: ignore[assignment]
        node.advising.figures()
    assert node.advising.figures()["failed"] == 1


@pytest.mark.parametrize(("of", "name", "executed"), [(module, "_request", 0), (Policy, "began", 1)])
def test_a_mistake_around_an_action_ends_the_policy_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, of: Any, name: str, executed: int
) -> None:
    node = Node(tmp_path)

    def mistake(*_: object) -> None:
        raise AssertionError("of the policy")

    monkeypatch.setattr(of, name, mistake)
    node.look(5)
    assert node.advising.failed
    assert (len(node.executed), node.woken) == (executed, executed)


def test_a_mistake_of_the_sample_ends_the_policy_alone(tmp_path: Path) -> None:
    node = Node(tmp_path)
    node.look()
    assert node.admission.sampling is not None
    node.admission.sampling.failed = ZeroDivisionError()
    node.look(5)
    assert node.advising.failed
    assert node.executed == []


def test_a_broken_leader_is_no_mistake_of_the_policy(tmp_path: Path) -> None:
    """What is half evaluated must end the process, as an operator's request would."""
    node = Node(tmp_path)

    def torn(method: int, body: bytes) -> None:
        raise AssertionError("half done")

    node.writes.leader.execute = torn
    with pytest.raises(AssertionError, match="half done"):
        node.look(5)


def test_other_shards_leaders_tell_their_load(tmp_path: Path) -> None:
    node = Node(tmp_path, shard=1)
    assert node.admission.sampling is not None
    node.admission.sampling.sample.take(int(node.now_s * 1000), b"/k", 2.0)
    handler = node.advising.handlers()[Method.LOADS]
    link: Any = Link()
    for wanted in (b"\1", b"\0"):
        handler(link, 1, 0, wanted)
    assert not link.answers, "it is told in slices: its leader has much to do"
    node.work()
    told = [Shard.decode(body) for _, body in link.answers]
    assert told[0].sample == (Weighed(b"/k", 2.0, 0.0),)
    assert told[1].sample == ()
    assert told[0].behind == 2
    node.raft.is_leader = False
    handler(link, 1, 0, b"\1")
    assert link.answers[2][0] == Status.NOT_LEADER
    node.look(5)
    assert node.asked == []


def test_a_leader_knows_that_a_front_is_in_its_process(tmp_path: Path) -> None:
    node = Node(tmp_path)
    node.look(3)
    assert "shard 0's leader takes 90% of a CPU" in node.ask().text
    for _ in range(100):
        node.admission.sampling.sample.take(int(node.now_s * 1000), b"/k", 1.0, joined=True)
    node.look(3)
    assert "shard 0's leader, with the front of its host, takes 90% of a CPU" in node.ask().text


def test_each_action_has_its_request() -> None:
    assert module._request(Wish(Kind.ADD, "")) == bytes((births.ADD,))
    retire = module._request(Wish(Kind.RETIRE, "", 7))
    assert retire[0] == births.RETIRE
    assert shards_pb2.RetireShardRequest.FromString(retire[1:]).shard == 7
    away = module._request(Wish(Kind.RETIRE, "", 7, b"a", b"b", 2))
    assert away[0] == moves.MOVE


def test_this_machine_has_cpus_and_a_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    look = HostLook(str(tmp_path))
    assert look.look(0.0).free_cpus == 0.0, "nothing to compare with"
    found = look.look(1000.0)
    assert found.cpus > 0
    assert 0 <= found.free_cpus <= found.cpus
    assert 0 < found.free_disk <= 1
