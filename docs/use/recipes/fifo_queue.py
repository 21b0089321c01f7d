"""A queue: first in, first out, every item to one taker.

An item that is taken stays in its place, claimed under the taker's lease, until the taker is done: where one
dies at work, another has it.
"""

from __future__ import annotations

import sys
import threading

from muster_client import sync

QUEUE = "/examples/queue"


def main(endpoints: str) -> None:
    """One taker sees the order; three takers get every item once."""
    with sync.Client(endpoints) as client:
        queue = client.queue(QUEUE)
        for i in range(5):
            queue.put(f"item-{i}")
        order = []
        for _ in range(5):
            with queue.take() as item:
                order.append(item.text)
        print("in order:", *order)

        taken: list[str] = []

        def taker() -> None:
            for _ in range(4):
                with client.queue(QUEUE).take() as item:
                    taken.append(item.text)

        threads = [threading.Thread(target=taker) for _ in range(3)]
        for thread in threads:
            thread.start()
        for i in range(12):
            queue.put(f"{i:02}")
        for thread in threads:
            thread.join()
        print("each once:", *sorted(taken))


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:2379")
