"""``muster``: the server's command line and the supervisor of a host's processes.

Read ``config``, ``host``, ``processes``, ``machine``, ``local`` (several hosts on one machine),
``proxy_mode``, ``cli``.
"""

import sys

if sys.modules.keys().isdisjoint({"rich", "structlog"}):
    # structlog takes rich along, where it is installed, for lines in colours: no process of a host writes any
    sys.modules["rich"] = None  # type: ignore[assignment]
    try:
        import structlog  # noqa: F401
    finally:
        del sys.modules["rich"]
