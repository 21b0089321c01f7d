"""Backups in etcd's form: made of checkpoints of every shard, and written back into the directories of nodes.

Read ``sorting`` (rows of any number, in order, in bounded memory), ``rows`` (a checkpoint's rows as etcd has
them), ``spool`` (all rows of a backup, and its file), ``build`` (of all shards, in a process of its own:
``process``), then ``restore``. ``stopped``: out of the files of a host that does not run.
"""
