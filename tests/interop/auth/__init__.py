"""Users, certificates and tokens beside a real etcd."""
