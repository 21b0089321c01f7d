"""The cluster: its hosts and shards, and the changes of members."""
