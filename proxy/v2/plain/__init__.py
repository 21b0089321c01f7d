"""Short cuts for the commonest requests for keys: the same bytes as from ``proxy.v2.keys``. Read ``heads``
(how an answer begins), ``reads`` and ``sets`` (taken as their bytes come), ``requests`` (the others)."""
