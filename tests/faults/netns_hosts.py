"""Three real hosts, each in a network namespace of its own (``netns``): ``Hosts`` whose network can be
cut."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from tests.faults.netns import Net, need, net
from tests.faults.separate_hosts import Place, SeparateHosts
from tools.muster import peer_keys

CLIENT_PORT, PEER_PORT = 2379, 2380


class NetHosts(SeparateHosts):
    """Running hosts. ``net`` cuts them off, ``endpoints`` are for those who live in its hub."""

    def __init__(self, network: Net, data_dir: Path, flags: tuple[str, ...]) -> None:
        self.net = network
        places = [Place(address, CLIENT_PORT, PEER_PORT, host.run)
                  for address, host in zip(network.addresses, network.hosts, strict=True)]
        super().__init__(data_dir, places, flags)


@contextlib.contextmanager
def clear_or_keyed(folder: Path, how: str, *flags: str) -> Iterator[NetHosts]:
    """:func:`three_net_hosts` whose links are in ``clear``, or have ``keys``."""
    if how == "keys":
        peer_keys.generate(str(folder / "keys.json"))
        peers = f"--peer-key-file={folder / 'keys.json'}"
    else:
        peers = "--peer-insecure"
    with three_net_hosts(folder / "c", *flags, peers) as found:
        yield found


@contextlib.contextmanager
def three_net_hosts(data_dir: Path, *flags: str) -> Iterator[NetHosts]:
    """Three fresh hosts that serve; this thread lives in the hub meanwhile. Skipped where namespaces cannot
    be made."""
    need()
    with net(3) as network:
        hosts = NetHosts(network, data_dir, flags)
        try:
            hosts.start(0, 1, 2)
            yield hosts
        finally:
            hosts.close()
