"""A host registers in a discovery directory, and waits for the others.

The first ``size`` entries by age are the cluster; for later hosts it is full. Errors have etcd's words.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

from tools.muster.config.parse import ConfigError
from tools.muster.config.urls import parse_peer_url
from tools.muster.discovery.service import Answer, Node, NotJson, Refused, Unreachable
from tools.muster.host.supervising.supervisor import Logger

_CONFIG = "_config"
_NOT_FOUND, _EXISTS = 100, 105
_DOUBLINGS = 8  # of the pause between attempts: 256 s at most
_DIGITS = 20  # of a size that fits 64 bits
_IDLE_S = 1.0  # between looks where a wait ends without news

SIZE_NOT_FOUND = "discovery: size key not found"
BAD_SIZE = "discovery: size key is bad"
BAD_ENDPOINT = "discovery: bad discovery endpoint"
INVALID_URL = "discovery: invalid URL"
INVALID_PEER_URL = "discovery: invalid peer URL"
DUPLICATE_ID = "discovery: found duplicate id"
DUPLICATE_NAME = "discovery: found duplicate name"
FULL = "discovery: cluster is full"

T = TypeVar("T")
Cluster = list[tuple[str, str]]  # (name, peer URL), as the entries say


class DirectoryFailed(Exception):
    """There is no cluster; the text is etcd's."""


class Asked(Protocol):
    """The directory: :class:`tools.muster.discovery.service.Service`."""

    @property
    def base(self) -> str: ...
    def get(self, name: str = "") -> Answer: ...
    def create(self, name: str, value: str) -> Answer: ...
    def wait(self, name: str, index: int) -> None: ...


class Directory:
    """One directory for one host. ``own``: its entry's name; "": a proxy, without an entry. ``again``: a
    registered host may register again, as in v3 keys."""

    def __init__(
        self, service: Asked, own: str, log: Logger, sleep: Callable[[float], None] = time.sleep, *,
        again: bool = False,
    ) -> None:  # fmt: skip
        self._service = service
        self._own = own
        self._log = log
        self._sleep = sleep
        self._again = again

    def join(self, entry: str) -> Cluster:
        """Register this host with its ``name=URL,...``, and wait for the others. DirectoryFailed."""
        nodes, _, _ = self._look()
        if not self._again and any(node.name == self._own for node in nodes):
            raise DirectoryFailed(DUPLICATE_ID)
        created = self._register(entry)
        # as etcd: the service has to know the entry
        self._service.wait(self._own, created)
        return self._whole()

    def find(self) -> Cluster:
        """The registered or coming cluster, for a proxy. DirectoryFailed."""
        return self._whole()

    def _register(self, entry: str) -> int:
        """The entry's index. A request with a lost answer may have taken effect."""
        tried = False

        def create() -> int:
            nonlocal tried
            before, tried = tried, True
            try:
                return self._service.create(self._own, entry).created
            except Refused as e:
                if e.code != _EXISTS:
                    raise
                if not before or self._service.get(self._own).value != entry:
                    raise DirectoryFailed(DUPLICATE_ID) from None
                return self._service.get(self._own).created

        return self._asked("registration", create)

    def _whole(self) -> Cluster:
        """All entries, once there are enough. As at etcd the first look's size holds: its key may end."""
        known: set[str] = set()
        told, size = False, 0
        while True:
            nodes, size, index = self._look(size)
            new = [node for node in nodes if node.name not in known]
            for node in new:
                known.add(node.name)
                who = "self" if node.name == self._own else "peer"
                self._log.info(f"found {who} {node.name} in the cluster")
            if len(nodes) >= size:
                self._log.info(f"found {size} needed peer(s)")
                return _cluster(nodes[:size], size, INVALID_PEER_URL if self._again else INVALID_URL)
            if new or not told:
                told = True
                self._log.info(f"found {len(nodes)} peer(s), waiting for {size - len(nodes)} more")
            else:
                self._sleep(_IDLE_S)
            self._service.wait("", index + 1)

    def _look(self, wanted: int = 0) -> tuple[list[Node], int, int]:
        """The entries by age, how many are wanted (0: the directory is asked), and the index of this look."""

        def look() -> tuple[list[Node], int, int]:
            size = wanted or self._size()
            found = self._service.get()
            nodes = sorted((n for n in found.nodes if n.name != _CONFIG), key=lambda n: n.created)
            if self._own and len(nodes) >= size and all(n.name != self._own for n in nodes[:size]):
                raise DirectoryFailed(FULL)
            return nodes, size, found.index

        return self._asked("cluster status check", look)

    def _size(self) -> int:
        try:
            text = self._service.get(f"{_CONFIG}/size").value
        except Refused as e:
            raise DirectoryFailed(SIZE_NOT_FOUND if e.code == _NOT_FOUND else str(e)) from None
        if not (text.isascii() and text.isdigit() and len(text) < _DIGITS and int(text) > 0):
            raise DirectoryFailed(BAD_SIZE)
        return int(text)

    def _asked(self, step: str, ask: Callable[[], T]) -> T:
        """An answer, however long that takes."""
        failures = 0
        while True:
            try:
                return ask()
            except Unreachable as e:
                failures += 1
                pause_s = 1 << min(failures, _DOUBLINGS)
                self._log.warning(
                    f"{step}: error connecting to {self._service.base}, retrying in {pause_s}s",
                    error=f"error #0: {e}")
                self._sleep(pause_s)
            except NotJson:
                raise DirectoryFailed(BAD_ENDPOINT) from None
            except Refused as e:
                raise DirectoryFailed(str(e)) from None


def _cluster(nodes: Sequence[Node], size: int, invalid: str) -> Cluster:
    """Names and URLs of the entries. DirectoryFailed."""
    found: Cluster = []
    for part in ",".join(node.value for node in nodes).split(","):
        name, equals, url = part.partition("=")
        try:
            if not name or not equals:
                raise ConfigError(part)
            found.append((name, parse_peer_url(url).text))
        except ConfigError:
            raise DirectoryFailed(invalid) from None
    if len({name for name, _ in found}) != size:
        raise DirectoryFailed(DUPLICATE_NAME)
    return sorted(found)
