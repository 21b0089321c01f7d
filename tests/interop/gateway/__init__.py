"""JSON over HTTP and WebSocket beside a real etcd."""
