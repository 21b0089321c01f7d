"""The Raft log on disk, and what it keeps outside of RocksDB.

Read in this order: ``raft_log`` (the log), ``ahead`` (its newest file is longer than its content), ``mark``
(how far it was synced), ``note`` (how far it is committed).
"""
