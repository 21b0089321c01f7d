"""Links between holders of the cluster's peer key, by libzmq: ``keys``, ``sockets``, ``monitors``."""
