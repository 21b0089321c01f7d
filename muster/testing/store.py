"""What the fixture ``muster`` gives to a test."""

from __future__ import annotations

import contextlib
import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING

from muster.testing.cluster import Cluster

if TYPE_CHECKING:
    from muster_client.sync import Client


@dataclass
class Store:
    """One host with an empty store. ``prefix``: a directory of keys that only this test knows, such as
    ``/test_jobs-4f1c/``; its keys need not begin with it."""

    cluster: Cluster
    prefix: str
    _ends: contextlib.ExitStack

    @property
    def endpoint(self) -> str:
        """``host:port``, as clients take it."""
        return self.cluster.endpoint

    @property
    def url(self) -> str:
        """The same with ``http://``."""
        return f"http://{self.cluster.endpoint}"

    @functools.cached_property
    def client(self) -> Client:
        """A ``muster_client.sync.Client``, closed after the test."""
        return self._ends.enter_context(self.cluster.client())
