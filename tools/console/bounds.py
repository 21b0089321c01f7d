"""What browsers may have of the console's memory and descriptors at a time, by address and in all.

Anybody who reaches the console opens connections and pages, before any log-in: beside a host's processes they
would take memory from the store. A page takes some 300 KB here, and stays for a minute without a browser.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from proxy.auth.passwords import owner_of


@dataclass(frozen=True, slots=True)
class Bound:
    """So many at a time."""

    in_all: int
    of_one: int

    def is_reached(self, address: str, others: Iterable[str]) -> bool:
        """Whether this address has to wait, beside those of the others."""
        owners = [owner_of(f"{other}:") for other in others]
        return len(owners) >= self.in_all or owners.count(owner_of(f"{address}:")) >= self.of_one


# below the usual limit of descriptors; a page has one connection, and six more for a moment
CONNECTIONS = Bound(in_all=800, of_one=300)
PAGES = Bound(in_all=500, of_one=200)
PAGES_OF_USERS = Bound(in_all=1000, of_one=200)  # with a session: visitors without one do not keep them out
SOCKETS = Bound(in_all=1200, of_one=300)  # sessions of Socket.IO; one of the last 36 s may have no connection
SILENT_S = 60.0  # a connection may begin its next request for so long, and take as long for its head again
MOST_HEAD_BYTES = 64 * 1024
MOST_MESSAGE_BYTES = 4_000_000  # of a page's socket; NiceGUI takes a million characters of up to four bytes
