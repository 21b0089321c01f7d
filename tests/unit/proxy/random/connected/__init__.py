"""The same front behind real connections, over HTTP/2, HTTP/1.1 and WebSockets: begin with ``run.py``."""
