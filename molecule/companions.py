"""What goes on beside a test, and ends with it."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Callable
from typing import Self


class Companion(threading.Thread):
    """Does something while a test runs."""

    def __init__(self) -> None:
        """Begin with nothing done."""
        super().__init__(daemon=True)
        self.stopped = threading.Event()

    def __enter__(self) -> Self:
        """Begin."""
        self.start()
        return self

    def __exit__(self, *_problem: object) -> None:
        """End."""
        self.stopped.set()
        self.join()


class Lookout(Companion):
    """Asks servers again and again, and notes which of them answer."""

    def __init__(self, questions: dict[str, Callable[[], object]]) -> None:
        """Take what to ask each server; what cannot be answered raises an error of the network."""
        super().__init__()
        self.questions = questions
        self.seen: list[frozenset[str]] = []

    def serving(self) -> frozenset[str]:
        """Return the servers that answer."""
        found = set()
        for name, ask in self.questions.items():
            try:
                ask()
            # A refused connection, an answer such as 503, one that breaks off.
            except (OSError, http.client.HTTPException):
                continue
            found.add(name)
        return frozenset(found)

    def run(self) -> None:
        """Look."""
        while not self.stopped.wait(0.05):
            serving = self.serving()
            if not self.seen or self.seen[-1] != serving:
                self.seen.append(serving)
