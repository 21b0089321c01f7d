"""``python -m node``."""

import os
import sys

from node.main import main

if __name__ == "__main__":
    code = main()
    sys.stderr.flush()
    os._exit(code)  # threads of RocksDB and ZeroMQ must not hold up an ordered end
