"""``muster-bench``, with muster's own nodes for ``cuts``; all else it does as a client."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

from bench import cli
from cluster.settings import Common, NodeSettings, dumps
from node.links.siblings import NodeLinks
from tools.muster.machine import streams
from tools.muster.machine.disk import seal
from tools.muster.machine.process.handed import hand
from tools.muster.machine.real import RealMachine


class _Asking:
    """This process on one host, in place of the nodes of shards other than 0."""

    def __init__(self, loop: asyncio.AbstractEventLoop, common: Common) -> None:
        self._machine = RealMachine(loop, common)
        self._common = common

    def links(self) -> NodeLinks:
        """Links as one node has them."""
        peers = {peer.member_id: peer for peer in self._common.peers}
        return NodeLinks(self._machine, self._common, lambda: None, peers.get)

    def close(self) -> None:
        """The links are closed already."""


class RealGround:
    """See ``bench.compare.loads.cuts.Ground``."""

    def start(self, settings: NodeSettings) -> subprocess.Popen[bytes]:
        """A node in an empty directory."""
        seal.seal(Path(settings.data_dir), settings.common.member_id)
        with os.fdopen(hand([dumps(settings)])) as handed:
            return subprocess.Popen(
                [sys.executable, "-P", "-m", "tools.muster.processes.node"],
                pass_fds=(settings.common.status_fd,), stdin=handed, stdout=subprocess.DEVNULL)

    def asking(self, loop: asyncio.AbstractEventLoop, common: Common) -> _Asking:
        """Links over ZeroMQ."""
        return _Asking(loop, common)


def main() -> None:
    """Entry point of the console script."""
    streams.open_closed()
    cli.main(RealGround())


if __name__ == "__main__":
    main()
