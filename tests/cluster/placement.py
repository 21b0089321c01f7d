"""Where keys are, as a host answers."""

from __future__ import annotations

import json
import urllib.request

from cluster.placement import Table


def table_at(endpoint: str, limit_s: float) -> Table:
    """As this host has applied it. OSError."""
    with urllib.request.urlopen(f"http://{endpoint}/muster/placement", timeout=limit_s) as said:
        return Table.decode(bytes.fromhex(json.load(said)["table"]))
