"""The API's own messages, for programs that show answers whole, or call what has no name here."""

from muster_client.raw.api import Raw
from muster_client.raw.watching import Answers
from muster_client.wire.calls import Method

__all__ = ["Answers", "Method", "Raw"]
