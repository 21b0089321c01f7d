"""``python -m proxy``: the command. What it runs is ``tools.muster.processes.front``."""

from tools.muster.processes.front import main

main()
