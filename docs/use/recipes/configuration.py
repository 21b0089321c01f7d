"""Configuration that is published once and reaches every program at once.

A program reads its configuration and follows the changes from that revision on: none is missed, and none is
seen twice.
What belongs together is written in one transaction, so nobody acts on half of it.
"""

from __future__ import annotations

import sys
import threading

from gateway import Cluster, putting

CONFIG = "/config/shop/"


class Program:
    """Runs by the configuration of this moment."""

    def __init__(self, cluster: Cluster) -> None:
        self._changed = threading.Condition()
        found, revision = cluster.all(CONFIG)
        self.settings = {one.key.removeprefix(CONFIG): one.value for one in found}
        threading.Thread(target=self._follow, args=(cluster, revision + 1), daemon=True).start()

    def _follow(self, cluster: Cluster, start: int) -> None:
        for event in cluster.watch(CONFIG, start):
            with self._changed:
                name = event.key.removeprefix(CONFIG)
                if event.value is None:
                    self.settings.pop(name, None)
                else:
                    self.settings[name] = event.value
                self._changed.notify_all()

    def wait_for(self, **settings: str) -> str:
        """Until these hold; all settings as a line."""
        with self._changed:
            assert self._changed.wait_for(lambda: settings.items() <= self.settings.items(), timeout=60)
            return " ".join(f"{name}={value}" for name, value in sorted(self.settings.items()))


def main(endpoints: str) -> None:
    """One publisher, three programs."""
    cluster = Cluster(endpoints)
    cluster.put(f"{CONFIG}database", "db-1")
    cluster.put(f"{CONFIG}pool", "10")
    programs = [Program(cluster) for _ in range(3)]
    print("first:", *{program.wait_for(database="db-1", pool="10") for program in programs})
    cluster.txn([], [putting(f"{CONFIG}database", "db-2"), putting(f"{CONFIG}pool", "50")])
    print("then:", *{program.wait_for(database="db-2", pool="50") for program in programs})
    cluster.delete(f"{CONFIG}database")
    cluster.delete(f"{CONFIG}pool")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:2379")
