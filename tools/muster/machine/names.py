"""What the machine's resolver knows."""

from __future__ import annotations

import socket


def names_of(address: str) -> list[str]:
    """All names of an address, as Go's ``LookupAddr`` gives them. It blocks. OSError."""
    name, others, _ = socket.gethostbyaddr(address)
    return [name, *others]
