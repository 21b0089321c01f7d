"""A node's disk: ``disks`` (its directories), ``seal`` (whose they are), ``syncer`` (the log's syncs),
``threads``."""
