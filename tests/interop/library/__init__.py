"""The client library against muster, of one shard and three, and etcd."""
