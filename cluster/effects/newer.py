"""What a process says that meets data of a newer program."""

from __future__ import annotations

from cluster.effects.records import Item

NEWEST = max(Item)


class NewerRecord(Exception):
    """A log or a state holds what only a newer program knows. If it were skipped, replicas would differ."""

    def __init__(self, what: str) -> None:
        super().__init__(
            f"this host is older than the cluster's data: {what}. Start the version that wrote it, or a "
            "later one, on this host")

    @classmethod
    def kind(cls, kind: int) -> NewerRecord:
        return cls(f"the log holds an item of kind {kind}, and this version knows none above {NEWEST:d}")

    @classmethod
    def feature(cls, feature: int) -> NewerRecord:
        return cls(f"the log holds rows of feature {feature}, which every host must know, and this version "
                   "does not")

    @classmethod
    def form(cls, feature: int, version: int) -> NewerRecord:
        return cls(f"the log holds rows of feature {feature} in form {version}, which this version cannot "
                   "read")

    @classmethod
    def table(cls, form: int) -> NewerRecord:
        return cls(f"the table of placement is in form {form}, which this version cannot read")

    @classmethod
    def level(cls, level: int, known: int) -> NewerRecord:
        return cls(f"what it may hold has grown to level {level}, and this version knows none above {known}")
