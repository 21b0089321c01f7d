"""``muster gateway start``: connections are passed on to members, as by ``etcd gateway start``: ``forward``,
``cli``."""
