"""The directed Raft scenarios use the hand-driven group of the unit tests."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "unit" / "raft"))
