"""When a polled table runs next, from its own last run: pure, so that a restart changes nothing.

Slots missed while nothing ran are not made up one by one: one run brings everything that changed
since the last one, so the latest missed slot stands for all of them.
"""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from warp.errors import ConfigError


def next_slot(expression: str, *, after: float, timezone: str = "UTC") -> float:
    """The first slot of a cron expression strictly after a time, in Unix seconds.

    The slot is read off a wall clock in `timezone`, across its changes of summer time too.
    """
    from croniter import CroniterBadCronError, croniter  # late, as in warp.config

    try:
        zone = ZoneInfo(timezone)
    except (ZoneInfoNotFoundError, ValueError):
        raise ConfigError(
            f"expected a time zone such as Europe/Berlin, found {timezone!r}", place="timezone"
        ) from None
    try:
        slots = croniter(expression, datetime.fromtimestamp(after, tz=UTC).astimezone(zone))
        following: datetime = slots.get_next(datetime)
    except CroniterBadCronError as error:
        raise ConfigError(
            f"expected a cron expression such as '*/15 * * * *', found {expression!r}: {error}",
            place="schedule",
        ) from None
    return following.timestamp()


def delay_until_due(
    *,
    now: float,
    last_run: float | None,
    schedule: str | None,
    interval: float,
    timezone: str = "UTC",
) -> float:
    """Seconds until the next run; 0 when it is due, as a table that never ran always is."""
    if last_run is None:
        return 0.0
    if schedule is None:
        return max(0.0, last_run + interval - now)
    # A last run in the future is a clock that was set back: wait no longer than one slot.
    return max(0.0, next_slot(schedule, after=min(last_run, now), timezone=timezone) - now)
