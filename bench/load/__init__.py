"""What is sent and when: one run of load from one or more client processes.

Read in this order: ``spec``, ``workloads`` with ``streams``, ``watchers`` and ``recipes``, ``loops``, ``worker``, ``run``, ``outcome``.
"""
