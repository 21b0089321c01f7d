"""The JSON gateway: etcd's gRPC methods as ``POST /v3/...`` with bodies of JSON, as grpc-gateway 1 serves
them for etcd 3.5. By WebSocket, too.

Read ``serve`` (which path is what), ``paths`` (the table), ``calls`` (one request), ``talk`` (one by
WebSocket), ``decode`` and ``encode`` (JSON and protobuf), ``go_json`` (what Go takes for JSON, and how it
says what it does not take).
"""
