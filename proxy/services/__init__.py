"""What each gRPC method does, one module per service; ``table.register_all`` registers them. A handler takes
``(call, message bytes)``, hands the request to the router and returns; the router splices the answer."""
