"""The commonest requests for keys, answered in short (decision 91): the same bytes as ``proxy.v2.keys`` says.

Read ``heads`` (how an answer begins), ``reads`` (of files, as their bytes come), ``requests`` (reads and sets
that ask a node), then ``sets`` (those that are taken as their bytes come).
"""
