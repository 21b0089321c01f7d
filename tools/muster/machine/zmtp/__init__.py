"""ZeroMQ's wire protocol (ZMTP 3.0) on the event loop itself, without libzmq's threads.

Read ``codec`` (bytes, pure), ``stream`` (one connection), ``dealer``, ``router``, then ``links``. ``port`` is
a host's peer port, and ``curve`` what holders of a peer key say. Either side of a link may be libzmq.
"""

from tools.muster.machine.zmtp.dealer import Dealer
from tools.muster.machine.zmtp.hints import hint_of
from tools.muster.machine.zmtp.options import LinkOptions
from tools.muster.machine.zmtp.router import Router
from tools.muster.machine.zmtp.stream import traffic

__all__ = ["Dealer", "LinkOptions", "Router", "hint_of", "traffic"]
