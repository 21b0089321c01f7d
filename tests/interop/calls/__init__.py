"""Single services and their limits beside a real etcd."""
