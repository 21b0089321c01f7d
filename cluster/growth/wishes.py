"""What the facts ask for now, whatever may speak against doing it at once."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from functools import partial
from statistics import median
from typing import NamedTuple

from cluster.features.births import MOST_SHARDS, running
from cluster.growth.bounds import Bounds
from cluster.growth.cutting import Cut, Cuts, cut, had, hottest, may_be_cut, size_bytes
from cluster.growth.facts import Facts, Shard
from cluster.placement.table import END, Piece, State, Table

_FEW_PUTS = 100.0  # a second: too few to tell what one costs
_FRONT_PUTS = 2.0  # at most, that a front takes for a plain put of its clients
_MOST_TARGETS = 3  # that a span is looked for, some milliseconds each
_WHOLE = 1.0  # a shard that is to retire gives away all that it has


class Kind(Enum):
    ADD = "add"
    MOVE = "move"
    RETIRE = "retire"
    SAY = "say"  # an operator can help, a move or a shard cannot


About = tuple[Kind, int]  # and a shard: what must stay the same while the facts ask for it


class Wish(NamedTuple):
    """One action. Figures are shares of one CPU."""

    kind: Kind
    text: str
    shard: int = 0  # that is hot, or is to retire
    start: bytes = b""  # of what moves
    end: bytes = b""
    target: int = 0
    share: float = 0.0  # of the shard's load
    size_bytes: int = 0
    source_cpu: float = 0.0  # foreseen
    target_cpu: float = 0.0

    @property
    def about(self) -> About:
        return self.kind, self.shard


def wish(facts: Facts, limits: Bounds, before: About | None = None) -> Wish | None:
    """Without regard to time; None: all is well, or too little is known.

    ``before``: what the last look asked for. Its shard stays the one that is hot, or idle, until another is
    so by ``limits.gain`` more: the noise of figures would choose another at each look. A hot shard that
    nothing here helps stays only while nothing helps the hottest one.
    """
    serving = [
        shard for shard, known in facts.table.shards.items()
        if known.state == State.SERVING and shard in facts.shards]
    if not serving:
        return None
    cpus = {shard: facts.shards[shard].cpu for shard in serving}
    kind, known = before or (None, -1)
    hot = max(serving, key=lambda shard: cpus[shard])
    if kind != Kind.RETIRE and limits.hot < cpus.get(known, 0.0) >= cpus[hot] - limits.gain:
        stays = _cool(facts, known, cpus, limits)
        if stays.kind != Kind.SAY or hot == known:
            return stays
        other = _cool(facts, hot, cpus, limits)
        return stays if other.kind == Kind.SAY else other
    if cpus[hot] > limits.hot:
        return _cool(facts, hot, cpus, limits)
    return _spare(facts, cpus, limits, known if kind == Kind.RETIRE else -1)


def _cool(facts: Facts, hot: int, cpus: Mapping[int, float], limits: Bounds) -> Wish:
    told, load = facts.shards[hot], cpus[hot]
    fixed = _fixed_work(facts, cpus) if hot == 0 else 0.0
    front = ", with the front of its host," if told.front else ""
    begins = f"shard {hot}'s leader{front} takes {load:.0%} of a CPU"
    if fixed > limits.order_work * load:
        clients = " and clients of its host" if told.front else ""
        return _say(hot, f"{begins}, most of it for the order of the other shards{clients}: no shard or move "
                         f"helps; give that host faster CPUs, or clients fewer writes")
    key, share = hottest(told.sample)
    if share > limits.one_key and may_be_cut(key):
        return _say(hot, f"{begins}, {share:.0%} of that for keys that begin with {_shown(key)}, which this "
                         f"advice does not tell apart: if they are several, move some of them")
    if share > limits.one_key:
        return _say(hot, f"{begins}, {share:.0%} of that for the one key {_shown(key)}: no move helps")
    movable, little = load - fixed, False
    targets = _targets(facts, hot, cpus, limits)
    if not targets:
        return _another(facts, hot, begins, cpus, limits)
    cuts = Cuts(facts.table, hot, told, limits)
    for target in targets:
        room = cpus[target]
        helps = partial(_helps, load, movable, room, limits.gain)
        found = cuts.best(_wanted(movable, room, fixed), target, helps)
        if found is None:
            continue
        if helps(found.share):
            moved = found.share * movable
            begins = f"{begins}, shard {target}'s {room:.0%}"
            return _moving(hot, target, found, (load - moved, room + moved), begins)
        little = True
    if little:
        return _say(hot, f"{begins}; no move to a shard with room would leave the hotter one "
                         f"{limits.gain:.0%} of a CPU less")
    if _has_past(facts.table, targets[-1]) and cuts.best(limits.least_span) is not None:
        return _say(hot, f"{begins}, and shards with room have old revisions of its keys: compact")
    return _say(hot, f"{begins}, and no span of its keys has {limits.least_span:.0%} to "
                     f"{limits.most_span:.0%} of that without spreading transactions over shards")


def _helps(load: float, movable: float, room: float, gain: float, share: float) -> bool:
    """Whether the move of a share leaves the hotter one so much less."""
    return load - max(load - share * movable, room + share * movable) >= gain


def _another(facts: Facts, hot: int, begins: str, cpus: Mapping[int, float], limits: Bounds) -> Wish:
    """No shard has room."""
    if any(cpu < limits.cool for shard, cpu in cpus.items() if shard != hot):
        return _say(hot, f"{begins}; where shards have room, their leaders' hosts have no free CPU")
    if short := [member for member, host in facts.hosts.items() if host.free_cpus < limits.free_cpus]:
        names = ", ".join(sorted(facts.members.get(member, f"{member:x}") for member in short))
        return _say(hot, f"{begins}, and hosts have no CPU free for another shard: {names}")
    if cut(facts.table, hot, facts.shards[hot], limits.least_span, limits) is None:
        return _say(hot, f"{begins}, and another shard would not help: no span of its keys has "
                         f"{limits.least_span:.0%} to {limits.most_span:.0%} of that without spreading "
                         f"transactions over shards")
    if len(running(facts.table)) >= MOST_SHARDS:
        return _say(hot, f"{begins}, and there are {MOST_SHARDS} shards already")
    if not facts.births:
        return _say(hot, f"{begins}, and no shard has room: run `shard enable-growth`, then `shard add`")
    return Wish(Kind.ADD, f"{begins}, and no shard has room: add a shard", hot, source_cpu=cpus[hot])


def _moving(source: int, target: int, found: Cut, foreseen: tuple[float, float], begins: str) -> Wish:
    text = (f"{begins}: move {_span(found.start, found.end)}, {found.share:.0%} of shard {source}'s load, to "
            f"shard {target}; then they take about {foreseen[0]:.0%} and {foreseen[1]:.0%}")
    return Wish(Kind.MOVE, text, source, found.start, found.end, target, found.share, found.size_bytes,
                *foreseen)


def _wanted(movable: float, room: float, fixed: float) -> float:
    """The share of a load whose move leaves both alike."""
    return (movable + fixed - room) / (2 * movable) if movable > 0 else 0.0


def _targets(facts: Facts, hot: int, cpus: Mapping[int, float], limits: Bounds) -> list[int]:
    """Shards with room, whose leaders' hosts have a CPU for what comes: the one with most room, then the
    first that takes any span (G11). Where none does, others that may take some."""
    found: list[int] = []
    for shard in sorted(cpus, key=lambda shard: cpus[shard]):
        if shard == hot or cpus[shard] >= limits.cool:
            continue
        host = facts.hosts.get(facts.shards[shard].leader)
        if host is not None and host.free_cpus >= min(limits.least_span * cpus[hot], limits.free_cpus):
            found.append(shard)
            if not _has_past(facts.table, shard):
                return [*found[:1], shard] if len(found) > 1 else found
    return found[:_MOST_TARGETS]


def _has_past(table: Table, shard: int) -> bool:
    """Whether it had keys that it may not take now."""
    return table.past_of(shard, END, END) > 0


def _fixed_work(facts: Facts, cpus: Mapping[int, float]) -> float:
    """What of the sequencer's CPU goes into the order, and into a front in its process: what its own load
    does not explain, by what a put costs other leaders. To order a put costs less than to put. Ranges cost
    more than the sample weighs: what is unexplained is no front's beyond what comes by it."""
    others = [facts.shards[s] for s in cpus if s and facts.shards[s].rate >= _FEW_PUTS]
    if not others:
        return 0.0
    price = median(told.cpu / told.rate for told in others)
    own, load = facts.shards[0].rate, cpus.get(0, 0.0)
    besides = sum(told.rate for told in others) + _FRONT_PUTS * facts.shards[0].front * own
    return max(min(load - price * own, load * besides / (besides + own)), 0.0)


def _spare(facts: Facts, cpus: Mapping[int, float], limits: Bounds, before: int) -> Wish | None:
    """A born shard that the others can do without: what it owns moves, and it retires."""
    table = facts.table
    born = [shard for shard in cpus if shard >= table.base.shards]
    if not born or len(cpus) < 2:
        return None
    least = min(born, key=lambda shard: cpus[shard])
    if before in born and cpus[before] <= cpus[least] + limits.gain:
        least = before
    own = [span for span in table.spans if span.owner == least]
    first = _joined(own) if own else (b"", b"")
    target = min((shard for shard in cpus if shard != least),
                 key=lambda shard: (bool(own) and had(table, shard, *first), cpus[shard]))  # G11
    after = cpus[target] + cpus[least]
    if after >= limits.cool or max(cpus.values()) >= limits.cool:
        return None
    begins = f"shard {least}'s leader takes {cpus[least]:.0%} of a CPU, which shard {target} has to spare"
    if not own:
        return Wish(Kind.RETIRE, f"{begins}: retire shard {least}", least)
    found = Cut(*first, _WHOLE, 0.0, size_bytes(facts.shards[least], *first))
    return _moving(least, target, found, (0.0, after), begins)._replace(kind=Kind.RETIRE)


def _joined(own: list[Piece]) -> tuple[bytes, bytes]:
    """The first of its spans, with those that follow it without a gap."""
    start, end = own[0].start, own[0].end
    for piece in own[1:]:
        if piece.start != end:
            break
        end = piece.end
    return start, end


def _say(shard: int, text: str) -> Wish:
    return Wish(Kind.SAY, text, shard)


def _span(start: bytes, end: bytes) -> str:
    low = "the first key" if start <= END else _shown(start)
    return f"keys from {low} to {'the last' if end == END else f'before {_shown(end)}'}"


def _shown(key: bytes) -> str:
    return repr(key.decode(errors="backslashreplace"))


def is_move(wished: Wish) -> bool:
    """Whether a span moves; a shard that is to retire may own none."""
    return wished.end != b""


def live_bytes(shards: Mapping[int, Shard]) -> int:
    return sum(told.live_bytes for told in shards.values())
