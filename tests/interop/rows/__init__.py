"""The rows of docs/know/articles.tsv: what articles about etcd show, each tried in real processes.

Read in this order: ``table`` (the rows), ``world`` (three hosts and a proxy, and how they are asked), then
the checks: ``sites`` (``keys``, ``ports``, ``waits``), ``commands``, ``key_commands``, ``timed``,
``scenarios``, ``cluster``, ``starts``, ``named``.
``test_rows`` runs them.
"""

import pytest

pytest.register_assert_rewrite(*(f"{__name__}.{name}" for name in (
    "sites.keys", "sites.ports", "sites.waits", "commands", "key_commands", "timed", "scenarios", "cluster",
    "starts", "named", "world",
)))  # fmt: skip
