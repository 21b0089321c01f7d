"""What a proxy of version 2 says while it reaches no member, in etcd's words: its fronts, and what has their
ports before they do."""

OWN = "/v2/config/local/proxy"  # where it tells whom it serves
NOBODY = b'{"message":"httpproxy: zero endpoints currently available"}'  # with 503, JSON
NO_ENDPOINTS = b'{"endpoints":[]}\n'  # of OWN
