"""Recipes over keys and leases, with the keys of clientv3's ``experimental/recipes`` where Go has one.

``locks`` (readers and a writer, semaphores) builds on ``muster_client.queueing``; ``barriers`` and ``queues``
stand by themselves.
"""
