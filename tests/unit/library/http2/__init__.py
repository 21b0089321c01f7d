"""The client library's own HTTP/2: header blocks beside ``hpack``, a connection beside ``h2``."""
