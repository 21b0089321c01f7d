"""``python -m node``: the command. What it runs is ``tools.muster.processes.node``."""

import os
import sys

from tools.muster.processes.node import main

if __name__ == "__main__":
    code = main()
    sys.stderr.flush()
    os._exit(code)  # threads of RocksDB and ZeroMQ must not hold up an ordered end
