"""A host's settings: one flag table, values from command line, environment and file, checked.

Read in this order: ``flags``, ``parse``, ``settings``, ``rotation``.
"""
