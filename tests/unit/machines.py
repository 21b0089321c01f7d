"""A machine for a node whose other parts are stand-ins: the real one, which opens nothing before it is asked
to."""

from __future__ import annotations

from typing import Any

from cluster.settings import Common
from tools.muster.machine.disk.disks import NodesMachine


def machine_on(loop: Any = None) -> NodesMachine:
    """Of a host without a name."""
    return NodesMachine(loop, Common(1, 1, "h", 1, 2, (), "/nowhere"))
