"""A host's IDs, kept for ever in ``<data-dir>/member/identity.json``.

The first start makes them from the ``initial`` flags by etcd's rules; later starts read them and ignore these
flags. The file is written, synced, before any process of the host runs, and after all checks: a refused first
start leaves no host behind. It changes with an agreed layout, when an added host first serves, when the data
grows, and when shards are born or dropped.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from operator import index
from pathlib import Path
from typing import Any

from cluster.effects.newer import NewerRecord
from cluster.features import growth
from cluster.members import identity as ids
from cluster.members.origin import NEW, Origin
from cluster.settings import Peer
from node.durable import SCARCE, make_folder, sync_directory, write_whole
from tools.muster.config.parse import ConfigError
from tools.muster.config.settings import ServerConfig, local_address
from tools.muster.config.tls import UNLIKE
from tools.muster.config.urls import in_url, parse_peer_url, resolved
from tools.muster.host.identity import joining
from tools.muster.host.identity.modes import looser
from tools.muster.host.identity.wal_dir import begin_wal_dir, place_logs, told
from tools.muster.machine.disk import seal

# the second: of a host that joined; older versions must not take it for a founder. The third: of a host whose
# data has grown (G16); versions of before growth must not start on it. The fourth: of a host where one of the
# first shards has retired; older versions would look for its data
FORMAT, JOINED_FORMAT, GROWN_FORMAT, RETIRED_FORMAT = FORMATS = 1, 2, 3, 4
RESTORING = "restoring"  # in the data directory: what a restore has made so far
# in a node's directory, written by node.upkeep.group.agreed: shards and depth that differ from this host's
AGREED = "agreed"
KEPT = b"kept\n"  # in FOLLOWED: the host of an older release emptied nothing
FOLLOWED = "followed"  # in node 0's directory: this host has taken these; no cluster's layout changes later
HINTS = (
    ("initial-cluster", "forgot to set --initial-cluster flag?"),
    ("initial-advertise-peer-urls", "forgot to set --initial-advertise-peer-urls flag?"))


@dataclass(slots=True, frozen=True)
class Identity:
    """A host's IDs and the shape of its cluster."""

    cluster_id: int
    member_id: int
    incarnation: int  # of this data directory: a new one is a new replica, whatever its IDs (H10)
    shard_count: int
    placement_depth: int
    peers: tuple[Peer, ...]  # as of the first start; the order log has later changes
    joined: bool = False  # to a running cluster
    joining: bool = False  # it has never served since (``proxy.routing.reads.arrival``)
    origin: str = ""  # how its data began (``cluster.members.origin``); "": unknown, as of old versions
    level: int = 0  # to which its data has grown (``cluster.features.growth``)
    born: tuple[tuple[int, tuple[int, ...]], ...] = ()  # shards that were born: id, and first voters
    older: bool = False  # made by a version that took a peer port for each shard: its peers may dial them
    dropped: tuple[int, ...] = ()  # of the first ``shard_count`` shards: those that have retired

    @property
    def first(self) -> tuple[int, ...]:
        """Those of the first shards that this host runs nodes of."""
        return tuple(shard for shard in range(self.shard_count) if shard not in self.dropped)

    @property
    def shards(self) -> tuple[int, ...]:
        """The shards that this host runs nodes of."""
        return (*self.first, *(shard for shard, _ in self.born))

    @property
    def own(self) -> Peer:
        return next(p for p in self.peers if p.member_id == self.member_id)


def member_dir(data_dir: str) -> str:
    return os.path.join(data_dir, "member")


def prepare_data_dir(data_dir: str, wal_dir: str = "") -> list[str]:
    """Make the data directory, private to this user as all that the host's processes make. Returns warnings
    of paths with a looser mode, also of logs in ``wal_dir``. ConfigError if it cannot be used."""
    if os.path.isdir(os.path.join(data_dir, RESTORING)) and not is_known(data_dir):
        raise ConfigError(
            f"a restore into {data_dir} has not ended: run it again. For a new host, or if the restore "
            "says that it is not empty, empty that directory first")
    os.umask(0o077)
    try:
        make_folder(Path(member_dir(data_dir)).absolute())
        probe = os.path.join(data_dir, ".touch")
        with open(probe, "w", encoding="utf-8"):
            pass
        os.unlink(probe)
    except OSError as e:
        raise ConfigError(f"cannot access data directory: {e.strerror}: {data_dir}") from None
    with contextlib.suppress(OSError):  # its user may have just made it, in a directory not to be read
        sync_directory(Path(os.path.realpath(data_dir)).parent)
    return looser(data_dir, wal_dir)


def is_known(data_dir: str) -> bool:
    """Whether the data directory has an identity, so that the ``initial`` flags are ignored."""
    return _identity_file(data_dir).exists()


def _identity_file(data_dir: str) -> Path:
    return Path(member_dir(data_dir), "identity.json")


def known(data_dir: str) -> Identity:
    """ConfigError: there is no identity, or it cannot be read. OSError: not now, for lack of files or
    memory."""
    path = _identity_file(data_dir)
    try:
        return _known(path, path.read_bytes())
    except OSError as e:
        if e.errno in SCARCE:
            raise
        raise ConfigError(f"{data_dir} holds no data of a host ({path}: {e.strerror})") from None


def establish(config: ServerConfig, tell: Callable[[str], None] = joining.untold) -> tuple[Identity, bool]:
    """This host's identity, and whether it is new: then nothing is written before :func:`keep`. Call with the
    data directory locked. ``tell``: of :func:`joining.join`."""
    path = _identity_file(config.data_dir)
    try:
        found = path.read_bytes()
    except FileNotFoundError:
        pass
    except OSError as e:
        raise ConfigError(f"cannot read {path}: {e.strerror}") from None
    else:
        identity = _known(path, found)
        _place_logs(config, identity)
        _check_seals(config.data_dir, identity)
        if (followed := _follow_agreed(config.data_dir, path, identity)) != identity:
            identity = followed
            _place_logs(config, identity)
        _check_layout(config, identity)
        return identity, False
    leftovers = sorted(p.name for p in path.parent.iterdir() if not _is_of_a_first_start(p))
    if {"snap"} <= set(leftovers) <= {"snap", "wal"}:
        raise ConfigError(
            f"{config.data_dir} holds the data of an etcd, which muster cannot open: restore a snapshot of "
            "it with \"musterctl snapshot restore\", or give another --data-dir")
    if leftovers:  # H10: a log without its identity must not come back
        raise ConfigError(
            f"{path} is missing, but {path.parent} holds {', '.join(leftovers)}: restore the file or empty "
            "the data directory")
    return (_join(config, tell) if config.initial_cluster_state == "existing" else identity_of(config)), True


def keep(config: ServerConfig, identity: Identity) -> None:
    """Make the data directory this new host's. Call with the data directory locked. ConfigError."""
    begin_wal_dir(config.values["wal-dir"], identity.shard_count)
    _seal(config.data_dir, identity)
    write_identity(_identity_file(config.data_dir), identity)  # from here on there is a host
    _place_logs(config, identity)


def grown(data_dir: str, level: int) -> None:
    """Have versions refuse this directory that do not know a level to which the data has grown.

    A node asks for it when it has applied that, and at each start. What a crash in between leaves is the old
    format, and as a rule a log with the item itself, which older versions refuse, too. ConfigError, OSError.
    """
    identity = known(data_dir)
    if level > identity.level:
        write_identity(_identity_file(data_dir), replace(identity, level=level))


def served(data_dir: str) -> None:
    """This host has served: from here on it never waits for what was there before it was added. What a crash
    has kept from being noted is asked once more. ConfigError, OSError."""
    identity = known(data_dir)
    if identity.joining:
        write_identity(_identity_file(data_dir), replace(identity, joining=False))


def note_born(data_dir: str, born: Mapping[int, Sequence[int]]) -> None:
    """Note which shards that were born this host runs nodes of. ConfigError, OSError."""
    identity = known(data_dir)
    noted = tuple((shard, tuple(voters)) for shard, voters in sorted(born.items()))
    if noted != identity.born:
        level = max(identity.level, growth.BIRTHS)
        write_identity(_identity_file(data_dir), replace(identity, born=noted, level=level))


def note_dropped(data_dir: str, shards: Collection[int]) -> None:
    """Note that this host has no nodes of these shards any more. ConfigError, OSError."""
    identity = known(data_dir)
    first = {shard for shard in shards if shard < identity.shard_count}
    noted = replace(
        identity, born=tuple(born for born in identity.born if born[0] not in shards),
        dropped=tuple(sorted(first.union(identity.dropped))), level=max(identity.level, growth.BIRTHS))
    if (noted.born, noted.dropped) != (identity.born, identity.dropped):
        write_identity(_identity_file(data_dir), noted)


def place_logs_of(config: ServerConfig, *shards: int) -> None:
    """Where ``--wal-dir`` says. ConfigError, OSError."""
    place_logs(config.values["wal-dir"], [shard_dir(config.data_dir, shard) for shard in shards])


def _place_logs(config: ServerConfig, identity: Identity) -> None:
    with told(config.values["wal-dir"]):
        place_logs_of(config, *identity.shards)


def was_removed(data_dir: str) -> bool:
    """Whether the cluster has removed this host, as its node has found."""
    return Path(shard_dir(data_dir, 0), seal.REMOVED).exists()


def shard_dir(data_dir: str, shard: int) -> str:
    return os.path.join(member_dir(data_dir), f"shard-{shard}")


def _seal(data_dir: str, identity: Identity) -> None:
    for shard in identity.first:
        seal.seal(shard_dir(data_dir, shard), identity.incarnation)


def _check_seals(data_dir: str, identity: Identity) -> None:
    """H10: a node whose directory was emptied has lost its votes, and must not come back under its old
    identity. The node checks again, as it may start again while its host runs."""
    for shard in identity.shards:
        try:
            seal.check(shard_dir(data_dir, shard), identity.member_id, identity.incarnation)
        except seal.SealBroken as e:
            raise ConfigError(str(e)) from None


def _follow_agreed(data_dir: str, path: Path, identity: Identity) -> Identity:
    """Take over the layout that the cluster agreed on, for which this host's nodes have refused to run.

    Nothing is lost: no node of this host served under the wrong layout, and its new nodes have never voted.
    No shard is born before all hosts have taken the layout (``Growing.say``).
    """
    followed = Path(shard_dir(data_dir, 0), FOLLOWED)
    if (other := _agreed_otherwise(data_dir, identity)) is None:
        if followed.with_name(AGREED).exists() and not followed.exists():
            write_whole(followed, KEPT)
        return identity
    shards, depth = other
    for new in range(identity.shard_count, shards):
        if (folder := Path(shard_dir(data_dir, new))).exists() and not _is_of_a_first_start(folder):
            raise ConfigError(f"{folder} is in the way: this cluster has {shards} shards, this host was made "
                              f"with {identity.shard_count}")
    gone = [shard for shard in identity.first if shard >= shards]
    if gone and followed.exists():  # shards that were born may be there
        raise ConfigError(f"{path} is older than data beside it: restore a later one, or replace this host")
    for shard in gone:  # one that is born may get its number
        seal.empty(Path(shard_dir(data_dir, shard)), identity.incarnation)
    identity = replace(identity, shard_count=shards, placement_depth=depth)
    _seal(data_dir, identity)
    write_identity(path, identity)
    write_whole(followed, b"")
    return identity


def may_follow(config: ServerConfig, identity: Identity) -> bool:
    """Whether the nodes stopped because the cluster agreed on another number of shards, and no flag asks for
    one."""
    other = _agreed_otherwise(config.data_dir, identity)
    if other is None or config.shards_set:
        return False
    return not config.depth_set or other[1] == identity.placement_depth


def _agreed_otherwise(data_dir: str, identity: Identity) -> tuple[int, int] | None:
    """Shards and depth that the cluster agreed on, where a node has found them to differ."""
    for shard in range(identity.shard_count):
        try:
            text = Path(shard_dir(data_dir, shard), AGREED).read_text(encoding="utf-8")
            shards, depth = map(int, text.split())
        except (OSError, ValueError):
            continue
        if (shards, depth) != (identity.shard_count, identity.placement_depth):
            return shards, depth
    return None


def _is_of_a_first_start(path: Path) -> bool:
    """Whether an interrupted first start may have left it: no node has written there."""
    if path.is_dir():
        return seal.read(path)[1] != seal.BEGUN and all(
            p.name in (seal.FILE, seal.FILE + ".tmp") for p in path.iterdir()
        )
    return path.name.endswith(".tmp")


def peers_of(initial_cluster: tuple[tuple[str, tuple[str, ...]], ...], token: str) -> tuple[Peer, ...]:
    """The hosts of an initial cluster with their IDs, ordered by ID."""
    peers = []
    for name, urls in initial_cluster:
        first = parse_peer_url(urls[0])
        peers.append(
            Peer(ids.member_id(list(urls), token), name, first.host, first.port, tuple(sorted(urls))))
    return tuple(sorted(peers, key=lambda p: p.member_id))


def cluster_id_of(peers: tuple[Peer, ...]) -> int:
    return ids.cluster_id([p.member_id for p in peers])


def _check_own(config: ServerConfig, *, joins: bool = False) -> None:
    """ConfigError unless the initial cluster names this host as it advertises itself. The cluster that it
    ``joins`` has its URLs already, so that what it advertises does not count, as at etcd."""
    try:
        urls = dict(config.initial_cluster).get(config.name)
        if urls is None or not config.name:
            raise ConfigError(
                f'couldn\'t find local name "{config.name}" in the initial cluster configuration')
        if not joins:
            _check_own_urls(config, urls)
        schemes = {url.partition(":")[0] for _, others in config.initial_cluster for url in others}
        if schemes != {config.listen_peer[0].scheme}:
            raise ConfigError(UNLIKE)
    except ConfigError as e:
        hints = [hint for flag, hint in HINTS if not config.values.is_set(flag)]
        raise ConfigError(" ".join((str(e), *(f"({hint})" for hint in hints)))) from None


def _join(config: ServerConfig, tell: Callable[[str], None]) -> Identity:
    """A host that was added to a running cluster, which tells its IDs and layout."""
    _check_own(config, joins=True)
    running, peers, own = joining.join(
        config.initial_cluster, config.name, config.peer_key_file, config.peer_tls, _resolved,
        local_address(config), config.own_user_peers, tell)
    incarnation = secrets.randbits(64) or 1
    identity = Identity(
        running.cluster_id, own, incarnation, running.shards, running.depth, peers, joined=True,
        joining=True, origin=running.origin)
    _check_layout(config, identity)
    return identity


def identity_of(config: ServerConfig) -> Identity:
    """A new host's identity, by etcd's rules. ConfigError if its cluster does not name it."""
    _check_own(config)
    peers = peers_of(config.initial_cluster, config.initial_cluster_token)
    own = next(p for p in peers if p.name == config.name)
    return Identity(
        cluster_id=cluster_id_of(peers),
        member_id=own.member_id,
        incarnation=secrets.randbits(64) or 1,
        shard_count=config.shards,
        placement_depth=config.shard_depth,
        peers=peers,
        origin=NEW)


def _check_own_urls(config: ServerConfig, listed: tuple[str, ...]) -> None:
    """The initial cluster must have the URLs that this host advertises (names resolved, in any order)."""
    advertised = tuple(u.text for u in config.advertise_peer)
    if sorted(listed) == sorted(advertised):
        return
    listed_at, advertised_at = sorted(map(_resolved, listed)), sorted(map(_resolved, advertised))
    if listed_at == advertised_at:
        return
    resolved = f'(resolved urls: "{",".join(advertised_at)}" != "{",".join(listed_at)}")'
    entries = [f"{config.name}={url}" for url in listed]
    known: Callable[[str], str]
    for known in (_resolved, str):  # by its text an address with two names is missing, as at etcd
        theirs, ours = set(map(known, listed)), set(map(known, advertised))
        missing = [entry for entry, url in zip(entries, listed, strict=True) if known(url) not in ours]
        if missing:
            raise ConfigError(
                f"--initial-cluster has {','.join(missing)} but missing from "
                f"--initial-advertise-peer-urls={','.join(advertised)} {resolved}")
        missing = [url for url in advertised if known(url) not in theirs]
        if missing:
            raise ConfigError(
                f"--initial-advertise-peer-urls has {','.join(missing)} but missing from "
                f"--initial-cluster={','.join(entries)} {resolved}")
    raise ConfigError(
        f"failed to resolve {','.join(advertised)} to match --initial-cluster={','.join(entries)} {resolved}")


def _resolved(url: str) -> str:
    """With an address for its name; the text where it has none."""
    parsed = parse_peer_url(url)
    if parsed.is_unix:
        return parsed.text
    try:
        return f"http://{in_url(resolved(parsed))}:{parsed.port}"
    except OSError:
        return parsed.text


def _known(path: Path, found: bytes) -> Identity:
    try:
        raw = json.loads(found)
        form = raw["format"]
        if form not in FORMATS:
            raise ConfigError(f"{path} has format {form}; this muster knows {', '.join(map(str, FORMATS))}")
        level = raw["growth"] if form >= GROWN_FORMAT else 0
        if level > growth.LEVEL:
            raise ConfigError(str(NewerRecord.level(level, growth.LEVEL)))
        identity = Identity(
            int(raw["cluster_id"], 16), int(raw["member_id"], 16), int(raw["incarnation"], 16),
            index(raw["shard_count"]), index(raw["placement_depth"]), tuple(_peer(p) for p in raw["peers"]),
            form == JOINED_FORMAT or raw.get("joined", False), raw.get("joining", False),
            raw.get("origin", ""), level,
            _born(raw.get("born", {})), not raw.get("one_peer_port", False), tuple(raw.get("dropped", ())),
        )  # fmt: skip
        Origin.parse(identity.origin, identity.shard_count, identity.placement_depth)
        if all(peer.member_id != identity.member_id for peer in identity.peers):
            raise ValueError("none of its peers has its member_id")
    except (ValueError, KeyError, TypeError, AttributeError) as e:
        raise ConfigError(
            f"{path} is damaged ({e!r}): restore it, or replace this host in its cluster") from None
    return identity


def _check_layout(config: ServerConfig, identity: Identity) -> None:
    """ConfigError if the flags ask for another layout."""
    if config.shards_set and config.shards != identity.shard_count:
        raise ConfigError(
            f"--shards={config.shards}, but this cluster was made with {identity.shard_count}: the flag "
            "keeps that number (musterctl shard add makes more shards)")
    if config.depth_set and config.shard_depth != identity.placement_depth:
        raise ConfigError(
            f"--shard-depth={config.shard_depth}, but this cluster was made with "
            f"{identity.placement_depth}: it cannot change")


def _born(raw: dict[str, list[str]]) -> tuple[tuple[int, tuple[int, ...]], ...]:
    return tuple(
        (int(shard), tuple(int(voter, 16) for voter in voters))
        for shard, voters in sorted(raw.items(), key=lambda born: int(born[0])))


def _peer(raw: dict[str, Any]) -> Peer:
    return Peer(int(raw["member_id"], 16), raw["name"], raw["host"], raw["port"], tuple(raw["peer_urls"]),
                raw.get("learner", False))


def _format_of(identity: Identity) -> int:
    """The lowest that says all."""
    if identity.level:
        return RETIRED_FORMAT if identity.dropped else GROWN_FORMAT
    return JOINED_FORMAT if identity.joined else FORMAT


def write_identity(path: Path, identity: Identity) -> None:
    document = {
        "format": _format_of(identity),
        **({"growth": identity.level, "joined": identity.joined} if identity.level else {}),
        **({"joining": True} if identity.joining else {}),
        "cluster_id": f"{identity.cluster_id:016x}",
        "member_id": f"{identity.member_id:016x}",
        "incarnation": f"{identity.incarnation:016x}",
        "shard_count": identity.shard_count,
        "placement_depth": identity.placement_depth,
        **({"origin": identity.origin} if identity.origin else {}),
        **({"born": {str(shard): [f"{v:x}" for v in voters] for shard, voters in identity.born}}
           if identity.born else {}),
        **({"dropped": identity.dropped} if identity.dropped else {}),
        **({} if identity.older else {"one_peer_port": True}),
        "peers": [
            {"member_id": f"{p.member_id:016x}", "name": p.name, "host": p.host, "port": p.port,
             "peer_urls": p.peer_urls, **({"learner": True} if p.learner else {})}
            for p in identity.peers
        ],
    }
    write_whole(path, f"{json.dumps(document, indent=1)}\n".encode())
