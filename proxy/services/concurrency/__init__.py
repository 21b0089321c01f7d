"""Lock and Election: recipes of clientv3's ``concurrency``, for clients that cannot run them. Read ``queue``,
``session``, ``lock``, ``election``; ``nested`` makes their calls."""
