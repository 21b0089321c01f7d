"""etcdctl's output: ``printer`` chooses, ``print_fields``, ``print_rows`` and ``print_json`` write.

``gotext`` and ``layout`` hold the formats of the Go library that etcdctl's output shows; ``records`` what is
printed.
"""
