"""A barrier: nobody begins before all are there, nobody leaves before all are done.

Everyone has a key below the barrier, under a lease: one that dies is counted out.
"""

from __future__ import annotations

import sys
import threading

from muster_client import sync

BARRIER = "/examples/barrier"


def main(endpoints: str) -> None:
    """Five take part."""
    log: list[str] = []

    def participant() -> None:
        log.append("came")
        with client.double_barrier(BARRIER, 5):
            log.append("began")
        log.append("left")

    with sync.Client(endpoints) as client:
        threads = [threading.Thread(target=participant) for _ in range(5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    print(*log)


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:2379")
