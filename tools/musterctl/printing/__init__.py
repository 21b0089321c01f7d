"""etcdctl's output: ``printer`` chooses, ``print_fields``, ``print_rows`` and ``print_json`` write;
``layout`` has columns, ``records`` what is printed."""
