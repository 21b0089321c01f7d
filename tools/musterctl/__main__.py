"""``python -m tools.musterctl``."""

from tools.musterctl.cli import main

main()
