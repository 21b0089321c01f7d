"""Lock and Election: recipes of clientv3's ``concurrency`` that run here, for clients that cannot run them.

Read ``session`` (the queue that both use), ``lock``, ``election``; ``nested`` makes the calls that they
consist of.
"""
