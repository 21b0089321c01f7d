"""What processes say to each other, as bytes.

``protobuf`` (the wire form by hand, where the hot path needs it), ``messages`` (between fronts and nodes),
``events`` (of watches).
"""
