"""Is what clients saw what one store, taking one operation after the other, could have shown them?

``history``: what a client notes down. ``search``: the classical check, key by key, that knows nothing of
muster. ``oracle``: the stricter one, which holds every answer against the store's own order of revisions.
"""

from tests.linearizability.history import Event, Operation, Outcome
from tests.linearizability.oracle import check_operations, check_stream
from tests.linearizability.search import unlinearizable

__all__ = ["Event", "Operation", "Outcome", "check_operations", "check_stream", "unlinearizable"]
