"""Configuration that is published once and reaches every program at once.

A program follows the keys below a prefix into an object with typed fields: it misses no change, and sees none
twice. What belongs together is written in one transaction, so nobody acts on half of it.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

import muster_client as m
from muster_client import sync

CONFIG = "/config/shop/"


@dataclass(frozen=True)
class Shop:
    """By which every program of the shop runs."""

    database: str
    pool: int = 5


def wait_for(config: sync.Config[Shop], pool: int) -> str:
    """Until the pool has this size; the configuration as a line."""
    shop = next(shop for shop in config.changes() if shop.pool == pool)
    return f"database={shop.database} pool={shop.pool}"


def main(endpoints: str) -> None:
    """One publisher, three programs."""
    with sync.Client(endpoints) as client:
        client.when().then(m.put(f"{CONFIG}database", "db-1"), m.put(f"{CONFIG}pool", "10")).commit()
        with client.config(CONFIG, Shop) as one, client.config(CONFIG, Shop) as two, \
                client.config(CONFIG, Shop) as three:
            programs = (one, two, three)
            print("first:", *{wait_for(program, 10) for program in programs})
            client.when().then(m.put(f"{CONFIG}database", "db-2"), m.put(f"{CONFIG}pool", "50")).commit()
            print("then:", *{wait_for(program, 50) for program in programs})
        client.delete(m.prefix(CONFIG))


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:2379")
