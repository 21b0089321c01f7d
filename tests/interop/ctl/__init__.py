"""musterctl beside etcdctl, and etcdctl on muster."""
