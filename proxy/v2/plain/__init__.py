"""The commonest requests for keys, answered in short (decision 91): the same bytes as ``proxy.v2.keys`` says.

Read ``heads`` (how an answer begins), ``reads`` (of files, as their bytes come), then ``requests`` (reads and
sets that ask a node).
"""
