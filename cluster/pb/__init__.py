"""etcd's messages: ``kv``, ``auth``, ``rpc``, ``lock``, ``election``; muster's own: ``shards``. All
generated: ``make proto``."""
