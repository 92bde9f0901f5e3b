"""When a resource that grows reaches its limit."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

# A forecast over more time than this is a guess.
HORIZON = timedelta(days=730)
# Peaks, not averages, meet a limit. A day is the rhythm of a bank; a platform of a day is read by the hour.
DAY = timedelta(days=1)
HOUR = timedelta(hours=1)
LEAST_PEAKS = 3
# The two-sided 95 % quantile of the normal distribution.
NORMAL_QUANTILE = 1.96


@dataclass(frozen=True)
class Forecast:
    """A straight line through the peaks of a resource's use.

    ``growth`` and ``error`` are shares of the limit per day; ``level`` is the share at ``now`` by the line.
    """

    now: datetime
    level: float
    growth: float
    error: float
    peaks: list[tuple[datetime, float]]

    def reaches(self, share: float) -> datetime | None:
        """Return when the line crosses a share of the limit, or None within the horizon."""
        return self._crossing(share, self.growth)

    def earliest(self, share: float) -> datetime | None:
        """Return when the steepest line that the peaks allow (95 %) crosses a share, or None within the horizon."""
        return self._crossing(share, self.growth + NORMAL_QUANTILE * self.error)

    def _crossing(self, share: float, growth: float) -> datetime | None:
        if self.level >= share:
            return self.now
        if growth <= 0:
            return None
        days = (share - self.level) / growth
        return self.now + timedelta(days=days) if days <= HORIZON / DAY else None


def peaks_of(points: Sequence[tuple[float, float]], width: timedelta) -> list[tuple[datetime, float]]:
    """Return the highest of (Unix seconds, value) in each stretch of time, with the moment at which it was."""
    highest: dict[int, tuple[float, float]] = {}
    for moment, value in points:
        stretch = int(moment // width.total_seconds())
        if stretch not in highest or value > highest[stretch][1]:
            highest[stretch] = (moment, value)
    return [(datetime.fromtimestamp(moment, UTC), value) for _, (moment, value) in sorted(highest.items())]


def forecast(points: Sequence[tuple[float, float]], now: datetime) -> Forecast | None:
    """Fit a line to the daily peaks of a share of a limit, by least squares; hourly ones if there are too few days.

    Args:
        points: (Unix seconds, share of the limit from 0 to 1) in the order of time.
        now: the moment from which to look ahead.

    Returns:
        The forecast, or None when the history is shorter than three hours.

    The standard error of the slope is that of ordinary least squares (any textbook of statistics, for instance
    Montgomery, Introduction to Linear Regression Analysis, section 2.3).
    """
    peaks = next(
        (found for width in (DAY, HOUR) if len(found := peaks_of(points, width)) >= LEAST_PEAKS),
        None,
    )
    if peaks is None:
        return None
    days = [(moment - now) / DAY for moment, _ in peaks]
    shares = [share for _, share in peaks]
    line = statistics.linear_regression(days, shares)
    middle = statistics.fmean(days)
    spread = sum((day - middle) ** 2 for day in days)
    rest = sum((share - line.intercept - line.slope * day) ** 2 for day, share in zip(days, shares, strict=True))
    error = (rest / (len(days) - 2) / spread) ** 0.5
    return Forecast(now, line.intercept, line.slope, error, peaks)
