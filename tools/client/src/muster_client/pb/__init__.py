"""etcd's messages (generated: ``make proto``)."""
