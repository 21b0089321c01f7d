"""``python -m tools.musterctl``."""

from tools.entry import musterctl

musterctl()
