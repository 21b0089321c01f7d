"""Tasks that are done once each, also when a worker dies in the middle.

A worker claims a task by a key with its lease, in a transaction that fails if the task is claimed or done. A
dead worker's claim goes with its lease, and another worker takes the task. The submitter follows what is
done.
"""

from __future__ import annotations

import sys
import threading

from gateway import Cluster, absent, b64, deleting, equals, putting

TODO, CLAIMS, DONE = "/examples/tasks/todo/", "/examples/tasks/claimed/", "/examples/tasks/done/"


class Worker(threading.Thread):
    """Takes what is to be done; ``dies``: after the first claim, without a word."""

    def __init__(self, cluster: Cluster, name: str, dies: bool = False) -> None:
        super().__init__(daemon=True)
        self._cluster = cluster
        self.worker = name
        self._dies = dies
        self._lease = cluster.lease(8 if dies else 60)

    def run(self) -> None:
        start = self._take_all()
        if start:
            for _ in self._cluster.watch("/examples/tasks/", start):
                if not self._take_all():
                    return

    def _take_all(self) -> int:
        """Do what can be claimed; the revision from which on there may be more, 0 after death."""
        tasks, revision = self._cluster.all(TODO)
        for task in tasks:
            name = task.key.removeprefix(TODO)
            there = {"key": b64(task.key), "target": "CREATE", "result": "GREATER", "create_revision": 0}
            claim = putting(CLAIMS + name, self.worker, self._lease.id)
            if not self._cluster.txn([there, absent(CLAIMS + name)], [claim]).get("succeeded"):
                continue
            if self._dies:
                self._lease.fail()
                return 0
            result = str(int(task.value) ** 2)
            mine = equals(CLAIMS + name, self.worker)
            changes = [deleting(task.key), deleting(CLAIMS + name), putting(DONE + name, result)]
            self._cluster.txn([mine], changes)
        return revision + 1


def main(endpoints: str) -> None:
    """Six tasks, three workers, one of which dies with a task in its hands."""
    cluster = Cluster(endpoints)
    revision = cluster.all(DONE)[1]
    dying = Worker(cluster, "dying", dies=True)
    cluster.put(f"{TODO}0", "0")
    dying.start()
    dying.join()
    print("claimed by a worker that dies:", cluster.get(f"{CLAIMS}0") == "dying")
    for i in range(1, 6):
        cluster.put(f"{TODO}{i}", str(i))
    for name in ("one", "two"):
        Worker(cluster, name).start()
    results = {}
    for event in cluster.watch(DONE, revision + 1):
        if event.value is not None:
            results[event.key.removeprefix(DONE)] = event.value
        if len(results) == 6:
            break
    print("done:", *[f"{task}:{results[task]}" for task in sorted(results)])
    for task in results:
        cluster.delete(DONE + task)


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:2379")
