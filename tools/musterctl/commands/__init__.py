"""One module per group of commands; ``table`` lists all commands with their flags.

``keys`` reads and writes, ``hosts`` asks and changes the cluster, ``data`` takes whole stores, ``auth`` is
who may do what.
"""
