"""What each gRPC method does, one module per service.

``proxy.shared.context`` is what they share. A handler takes ``(call, message bytes)``, hands the request to
the router and returns; the router splices the answer. ``table.register_all`` is what the process calls.
"""
