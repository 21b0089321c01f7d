"""What a flag is: its kind of value, and what muster does with it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Kind(Enum):
    STR = "string"
    BOOL = "bool"
    UINT = "uint"  # of 64 bits, as INT
    UINT32 = "uint of 32 bits"
    INT = "int"
    COUNT = "uint or auto"  # "auto" becomes AUTO
    DURATION = "duration"  # 1h30m, 100ms; becomes milliseconds. In the file: integer nanoseconds
    URLS = "urls"  # comma separated; in the file one string as well
    LIST = "list"  # comma separated; in the file a list or one string
    ENUM = "enum"


NUMBERS = (Kind.UINT, Kind.UINT32, Kind.INT, Kind.COUNT)
AUTO = -1  # what Kind.COUNT makes of "auto"


class Support(Enum):
    WORKS = "works"
    NO_EFFECT = "accepted, without effect in muster"
    REFUSED = "not supported: refused unless it has its default value"
    ALIAS = "deprecated: use the other name"
    IGNORED = "accepted and ignored with a warning, as etcd does"


@dataclass(slots=True, frozen=True)
class Flag:
    """``default`` is text as on the command line; ``yaml`` the path of its key ("": not in the file)."""

    name: str
    kind: Kind
    default: str
    help: str
    support: Support = Support.WORKS
    yaml: str | None = None  # None: the flag's own name
    choices: tuple[str, ...] = ()
    alias: str = ""  # the flag this one stands for; "feature-gates:X": that gate
    group: str = ""
    adds: bool = False  # a second one on the command line adds to the first

    @property
    def yaml_path(self) -> tuple[str, ...]:
        """The key in the configuration file, outermost first; empty: not in the file."""
        path = self.name if self.yaml is None else self.yaml
        return tuple(path.split("/")) if path else ()

    @property
    def env_name(self) -> str:
        """Without MUSTER_ or ETCD_."""
        return self.name.upper().replace("-", "_")
