"""The clock of leases in hosts of tests. ``sitecustomize`` is read by each Python that has this folder on its
path: a host's processes, and nothing else; no other host has a clock that moves."""
