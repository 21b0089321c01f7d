"""etcd's messages: ``kv``, ``auth``, ``rpc``, ``lock``, ``election`` (generated: ``make proto``)."""
