"""What is sent and when: one run of load from one or more client processes.

Read in this order: ``spec``, ``traffic`` (what is sent), ``loops`` (when), ``worker``, ``run``, ``outcome``.
"""
