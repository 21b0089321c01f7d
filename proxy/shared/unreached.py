"""etcd's words for a proxy of version 2 that reaches no member, before and after its fronts run."""

OWN = "/v2/config/local/proxy"  # shows its members
NOBODY = b'{"message":"httpproxy: zero endpoints currently available"}'  # with 503, JSON
NO_ENDPOINTS = b'{"endpoints":[]}\n'  # of OWN
