"""The front, driven without sockets: a loop by hand, fake nodes that speak ``cluster.wire.messages``,
recorded calls."""
