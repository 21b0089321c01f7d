"""ZeroMQ's wire protocol (ZMTP 3.0, mechanism NULL) on the event loop itself, without libzmq's threads.

Read ``codec`` (bytes, pure), ``stream`` (one connection), ``sockets`` (DEALER and ROUTER),
``http`` (what a peer port says to who speaks that), ``silence`` (how either
transport notices a dead network), ``links`` (which of the two a link takes). Links with a peer key
stay with libzmq, which does CURVE; either side may be libzmq. ``curve`` watches over those.
"""

from tools.muster.machine.zmtp.codec import Broken, Decoder
from tools.muster.machine.zmtp.silence import dial_s, end_libzmq_when_silent, end_when_silent
from tools.muster.machine.zmtp.sockets import Dealer, Router, hint_of
from tools.muster.machine.zmtp.stream import Receive, Traffic, traffic

__all__ = [
    "Broken",
    "Dealer",
    "Decoder",
    "Receive",
    "Router",
    "Traffic",
    "dial_s",
    "end_libzmq_when_silent",
    "end_when_silent",
    "hint_of",
    "traffic",
]
