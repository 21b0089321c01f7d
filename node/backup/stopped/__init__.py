"""The files of one host that does not run: its states carried on by its own logs (``carrying``) and past
moves of keys (``moving``), a backup of them (``salvage``), what a forced start drops (``dropped``), and which
shards have retired (``retired``).
"""
