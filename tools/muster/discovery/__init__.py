"""The first hosts of a cluster from a directory (``--discovery URL``), by etcd's rules: ``service`` and
``registry`` access it, ``directory`` registers a host and waits for the others."""
