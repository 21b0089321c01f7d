"""What both sides of a link between processes are given."""

from __future__ import annotations

from dataclasses import dataclass, field

from tools.muster.machine.zmtp.curve.keys import CurveKeys
from tools.muster.machine.zmtp.lookups import LookUps
from tools.muster.machine.zmtp.tls import PeerCredentials


@dataclass(frozen=True, slots=True)
class LinkOptions:
    """``silence_s``: the longest silence of a link, see :mod:`silence`; 0: no limit."""

    hwm: int  # messages kept for a partner that does not read
    silence_s: float = 0.0
    tls: PeerCredentials | None = None
    local: str = ""  # the address that a dealer dials from, if of the same family as the partner's; "": any
    own_user: bool = False  # on this machine only processes of the same user are partners, see own_user
    keys: CurveKeys | None = None
    shard: int | None = None  # that a dealer asks a host's peer port for; None: the endpoint is a node's own
    older: set[str] = field(default_factory=set)  # endpoints of hosts that know no preamble, as last seen
    newer: set[str] = field(default_factory=set)  # that have answered one: a mere close makes none older
    look_ups: LookUps = field(default_factory=LookUps)  # of dealers


def split(endpoint: str) -> tuple[str, str, int]:
    """``ipc://PATH`` or ``tcp://HOST:PORT`` as (transport, path or host, port)."""
    transport, _, rest = endpoint.partition("://")
    if transport == "ipc":
        return transport, rest, 0
    host, _, port = rest.rpartition(":")
    return transport, host.strip("[]"), int(port)
