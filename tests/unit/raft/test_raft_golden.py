"""Interactions as text: ``golden/*.txt`` hold commands (``> ...``) and what they must print.

Commands::

    group VOTERS [learner ID]    begin anew
    tick ID MS                   MS pass for everybody; only ID looks at the clock
    propose ID TEXT | read ID CONTEXT | transfer ID TARGET | configure ID VOTERS [LEARNERS] | compact ID INDEX
    install ID FROM              ID gets the state that FROM has applied
    disk ID slow|sync            from now on syncs wait for the command sync
    ready ID                     carry out what ID has to do; its messages go on the wire
    deliver [ID]                 deliver what is on the wire now (to ID only)
    lose                         what is on the wire is lost
    cut [ID ...]                 from now on nothing reaches or leaves these (in run)
    run                          ready and deliver until nobody has anything to say, quietly
    status                       one line per replica

After an intended change run with ``MUSTER_GOLDEN=write`` and read the difference line by line.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cluster.raft import Configuration, Kind, Message, RaftError, Ready
from tests.unit.raft.raft_harness import Group

_FOLDER = Path(__file__).parent / "golden"


def _message(m: Message) -> str:
    text = f"{m.sender}->{m.to} {Kind(m.kind).name} term={m.term}"
    for name in ("index", "log_term", "commit", "round", "hint"):
        if getattr(m, name):
            text += f" {name}={getattr(m, name)}"
    if m.flag:
        text += " yes"
    for e in m.entries:
        text += f" [{e.index}@{e.term} {e.data.decode() if e.kind == 1 else e.kind}]"
    return text


def _ready(ready: Ready) -> list[str]:
    lines = []
    if ready.hard_state is not None:
        hard = ready.hard_state
        lines.append(f"write term={hard.term} vote={hard.vote} commit={hard.commit}")
    if ready.entries:
        lines.append("write " + " ".join(f"{e.index}@{e.term}" for e in ready.entries))
    if ready.must_sync:
        lines.append("sync")
    if ready.committed[1] > ready.committed[0]:
        lines.append(f"apply ({ready.committed[0]}, {ready.committed[1]}]")
    lines += [f"read {context} at {index}" for context, index in ready.reads]
    lines += [f"read {context} failed" for context in ready.reads_failed]
    lines += [f"snapshot to {peer} from {index}" for peer, index in ready.snapshots_to]
    if ready.configuration is not None:
        lines.append(
            f"configuration {sorted(ready.configuration.voters)} {sorted(ready.configuration.learners)}"
        )
    return lines


class Script:
    """One golden file's state."""

    def __init__(self) -> None:
        self.group = Group()

    def do(self, line: str) -> list[str]:
        command, *words = line.split()
        try:
            return getattr(self, command)(*words) or []
        except RaftError as e:
            return [f"{type(e).__name__}: {e}"]

    def group_(self, voters: str, *rest: str) -> None:
        self.group = Group(int(voters), learners=[int(rest[1])] if rest else ())

    def tick(self, id_: str, ms: str) -> None:
        self.group.now += int(ms)
        self.group[int(id_)].raft.tick(self.group.now)

    def propose(self, id_: str, text: str) -> list[str]:
        return [f"index {self.group[int(id_)].raft.propose(text.encode())}"]

    def read(self, id_: str, context: str) -> None:
        self.group[int(id_)].raft.read_index(int(context))

    def transfer(self, id_: str, target: str) -> None:
        self.group[int(id_)].raft.transfer_leadership(int(target))

    def configure(self, id_: str, voters: str, learners: str = "") -> list[str]:
        new = Configuration(
            frozenset(map(int, voters.split(","))), frozenset(int(w) for w in learners.split(",") if w)
        )
        return [f"index {self.group[int(id_)].raft.propose_configuration(new)}"]

    def compact(self, id_: str, index: str) -> None:
        replica = self.group[int(id_)]
        replica.storage.compact(replica.raft.position_at(int(index)))
        replica.raft.compacted(int(index))

    def install(self, id_: str, donor: str) -> list[str]:
        source, target = self.group[int(donor)].raft, self.group[int(id_)]
        position = source.position_at(source.applied_index)
        reset = target.raft.snapshot_installed(position)
        if reset:
            target.storage.reset(position)
        source.snapshot_sent(target.id, True)
        return [
            f"state of {position.index}@{position.term}, " + ("log begins anew" if reset else "log goes on")
        ]

    def disk(self, id_: str, what: str) -> list[str]:
        replica = self.group[int(id_)]
        replica.slow_disk = what == "slow"
        messages = [] if replica.slow_disk else replica.sync()
        self.group.wire += messages
        return [_message(m) for m in messages]

    def ready(self, id_: str) -> list[str]:
        replica = self.group[int(id_)]
        before = len(replica.readies)
        messages = replica.drain()
        self.group.wire += messages
        return [line for r in replica.readies[before:] for line in _ready(r)] + [
            _message(m) for m in messages
        ]

    def deliver(self, id_: str = "0") -> list[str]:
        to = int(id_)
        now, self.group.wire = self.group.wire, []
        lines = []
        for m in now:
            if to in (0, m.to):
                lines.append(_message(m))
                self.group[m.to].raft.step(m, self.group.now)
            else:
                self.group.wire.append(m)
        return lines

    def lose(self) -> None:
        self.group.wire = []

    def cut(self, *ids: str) -> None:
        self.group.cut = set(map(int, ids))

    def run(self) -> None:
        self.group.settle()

    def status(self) -> list[str]:
        return [
            f"{i} {r.raft.role.name} term={r.raft.term} leader={r.raft.leader_id} last={r.raft.last_index} "
            f"synced={r.raft.persisted_index} commit={r.raft.commit_index} applied={r.raft.applied_index}"
            for i, r in self.group.replicas.items()
        ]


@pytest.mark.parametrize("path", sorted(_FOLDER.glob("*.txt")), ids=lambda p: p.stem)
def test_the_interaction_is_the_recorded_one(path: Path) -> None:
    script = Script()
    expected = path.read_text().splitlines()
    found: list[str] = []
    for line in expected:
        if line.startswith("> "):
            found.append(line)
            command = line[2:]
            found += script.do("group_" + command[5:] if command.startswith("group") else command)
        elif not line or line.startswith("#"):
            found.append(line)
    if os.environ.get("MUSTER_GOLDEN") == "write":
        path.write_text("\n".join(found) + "\n")
    assert found == expected
