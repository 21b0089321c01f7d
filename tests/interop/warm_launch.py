"""The process of a command line of ``tests.interop.warm``; imports little, so that it starts at once."""

import marshal
import os
import signal
import socket
import sys

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGPIPE)


def read(connection: socket.socket) -> int:
    """A number of the server."""
    data = b""
    while len(data) < 4:
        piece = connection.recv(4 - len(data))
        assert piece, "the server of musterctl has ended"
        data += piece
    return int.from_bytes(data, "big")


signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)  # until it is known who gets them
server = socket.socket(socket.AF_UNIX)
server.connect(sys.argv[1])
given = marshal.dumps((sys.argv[2:], dict(os.environ), os.getcwd()))
given = len(given).to_bytes(4, "big") + given
sent = socket.send_fds(server, [given], [0, 1, 2])
if sent < len(given):  # a server that has all may have ended: to send nothing would fail
    server.sendall(given[sent:])
pid = read(server)
for each in SIGNALS:
    signal.signal(each, lambda signum, frame: os.kill(pid, signum))
signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
# only the forked process holds them now: a reader or writer of a pipe sees its end
null = os.open(os.devnull, os.O_RDWR)
for descriptor in (0, 1):
    os.dup2(null, descriptor)
code = os.waitstatus_to_exitcode(read(server))
if code < 0:
    signal.signal(-code, signal.SIG_DFL)
    os.kill(os.getpid(), -code)
os._exit(code)
