"""The threads that hash passwords and translate large JSON: each result comes when a run says so."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from random import Random
from typing import Any

import pytest

from proxy.auth import passwords


class Threads:
    def __init__(self, random: Random, monkeypatch: pytest.MonkeyPatch) -> None:
        self._random = random
        self._jobs: deque[tuple[Future[Any], Callable[[], Any]]] = deque()
        monkeypatch.setattr(passwords, "bcrypt", self)

    def begin(self, executor: object, work: Callable[[], Any]) -> Future[Any]:
        """As a loop's ``run_in_executor``."""
        future = Future[Any]()
        self._jobs.append((future, work))
        return future

    def finish(self, all_of_them: bool) -> None:
        while self._jobs and (all_of_them or self._random.random() < 0.5):
            future, work = self._jobs.popleft()
            future.set_result(work())

    # -- as bcrypt

    def gensalt(self, cost: int) -> bytes:
        return b""

    def hashpw(self, password: bytes, salt: bytes) -> bytes:
        return b"$hash"

    def checkpw(self, password: bytes, known: bytes) -> bool:
        return self._random.random() < 0.7
