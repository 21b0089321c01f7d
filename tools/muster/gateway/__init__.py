"""``muster gateway start``: connections are passed on to members as they are, as ``etcd gateway start`` does.

Read ``forward`` (who gets the next connection, and the bytes of it), then ``cli``."""
