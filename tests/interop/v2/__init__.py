"""Version 2 of the API beside a real etcd with ``--enable-v2``."""
