"""How people look at the platform: one round of questions serves all who look, and nobody waits long for it."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from bank.log import logger
from bank.monitoring import status
from bank.monitoring.status import Seen

if TYPE_CHECKING:
    from bank.config import Prometheus

# The longest that anybody waits; a round has a little less, so that it can say itself what went wrong.
PATIENCE_SECONDS = 2.0
ROUND_SECONDS = 1.8
# How long an answer serves everybody; trouble is not asked after so often.
FRESH_SECONDS = 5.0
TROUBLE_SECONDS = 15.0
# Older figures are not shown to those who do not wait for a round.
OLDEST_SECONDS = 60.0


@dataclass
class _Round:
    began: float
    done: threading.Event = field(default_factory=threading.Event)


class Watch:
    """The latest figures of the platform, for one process.

    A round of questions runs in a thread of its own, because looking a name up or a server that trickles cannot be
    hurried: whoever looks stops waiting, whatever the round does. The requests that may wait at the same time are
    limited, so that the others, which move money, always find a thread.
    """

    def __init__(self, options: Prometheus, waiting: int) -> None:
        """Ask nothing yet.

        Args:
            options: Whom to ask.
            waiting: How many may wait for a round at the same time.
        """
        self._options = options
        self._lock = threading.Lock()
        self._places = threading.BoundedSemaphore(waiting)
        self._round: _Round | None = None
        self._latest: Seen | None = None
        self._since = 0.0

    @property
    def is_on(self) -> bool:
        """Whether anybody is there to ask."""
        return bool(self._options.urls)

    @property
    def urls(self) -> tuple[str, ...]:
        """Return the addresses of those who are asked."""
        return self._options.urls

    def look(self) -> Seen | None:
        """Return the latest figures, or what is wrong; None if a round has not ended in time."""
        with self._lock:
            latest, age = self._latest, time.monotonic() - self._since
            if latest is not None and age < (TROUBLE_SECONDS if latest.figures is None else FRESH_SECONDS):
                return latest
            if self._round is None:
                self._round = _Round(time.monotonic())
                threading.Thread(target=self._run, args=(self._round,), name="platform", daemon=True).start()
            current = self._round
        left = current.began + PATIENCE_SECONDS - time.monotonic()
        if left <= 0:
            return None
        if not self._places.acquire(blocking=False):
            return latest if age < OLDEST_SECONDS else None
        try:
            is_done = current.done.wait(left)
        finally:
            self._places.release()
        return self._latest if is_done else None

    def _run(self, current: _Round) -> None:
        seen = Seen(None)
        try:
            seen = status.ask(self._options, ROUND_SECONDS)
        except Exception as error:  # noqa: BLE001  (whatever it is, those who wait must hear that there is no answer)
            logger.error("the platform's figures are not known", exc_info=error, **{"event.dataset": "bank.error"})
        finally:
            with self._lock:
                is_news = self._latest is None or self._latest.failures != seen.failures
                self._latest, self._since, self._round = seen, time.monotonic(), None
            current.done.set()
        if seen.failures and is_news:
            logger.warning(
                "Prometheus does not answer",
                **{
                    "event.dataset": "bank.error",
                    "event.action": "platform-figures",
                    "event.outcome": "failure",
                    "event.reason": "; ".join(
                        f"{failure.url}: {failure.trouble} {failure.detail}".strip() for failure in seen.failures
                    )[:500],
                },
            )
