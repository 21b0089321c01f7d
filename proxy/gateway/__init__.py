"""The JSON gateway, as grpc-gateway 1 serves it for etcd 3.5, also by WebSocket. Read ``serve`` (which path
is what), ``paths`` (the table), ``calls`` (one request), ``asked`` (its text), ``room`` (what calls share),
``talk`` (one by WebSocket), ``decode`` and ``encode`` (JSON and protobuf), ``lines`` (answers that streams
share), ``go_json`` (Go's reading of JSON, and its errors)."""
