"""What is logged: the effects of requests, as items of a record. Read ``records`` (every item), then
``later_puts`` (many puts of another shard than 0 in one item)."""
