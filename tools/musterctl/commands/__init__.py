"""The commands: ``table`` lists all; ``keys`` reads and writes, ``hosts`` asks and changes the cluster,
``data`` takes whole stores, ``auth`` is users and roles."""
