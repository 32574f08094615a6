"""How numbers and names read on a screen: short, and safe to print.  Pure."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import Final

NOTHING: Final = "–"  # noqa: RUF001 - not known, or nothing to say
_BARS: Final = "▁▂▃▄▅▆▇█"


def plain(text: str, longest: int | None = None) -> str:
    """On one line, and without what a terminal would obey.

    A table may be called anything, escape sequences included.
    """
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return shown if longest is None or len(shown) <= longest else shown[: longest - 1] + "…"


def short(text: str, longest: int) -> str:
    """Cut in the middle: names that begin alike often differ at their end."""
    shown = plain(text)
    if len(shown) <= longest:
        return shown
    if longest < 5:
        return shown[:longest]
    tail = (longest - 1) // 2
    return shown[: longest - 1 - tail] + "…" + shown[-tail:]


def duration(seconds: float | None) -> str:
    """In at most six characters."""
    if seconds is None:
        return NOTHING
    if seconds < 9.95:
        return f"{seconds:.1f}s"
    whole = round(seconds)
    if whole < 120:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02}s"
    if whole < 100 * 3600:
        return f"{whole // 3600}h{whole % 3600 // 60:02}m"
    return f"{whole // 86_400}d"


def count(number: float | None) -> str:
    """In at most six characters: 999, 12.3k, 4.56M."""
    if number is None:
        return NOTHING
    if number < 10:
        return f"{number:.0f}" if number == int(number) else f"{number:.1f}"
    if number < 10_000:
        return f"{number:,.0f}"
    for size, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= size * 0.99995:
            scaled = number / size
            digits = 2 if scaled < 9.995 else 1 if scaled < 99.95 else 0
            return f"{scaled:.{digits}f}{letter}"
    return f"{number:.0f}"


def many(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def size(octets: int | None) -> str:
    if octets is None:
        return NOTHING
    if octets < 1 << 30:
        return f"{octets / (1 << 20):.0f} MiB"
    return f"{octets / (1 << 30):.1f} GiB"


def percent(part: float | None) -> str:
    """Never 100 % before the end."""
    if part is None:
        return NOTHING
    return "100%" if part >= 1 else f"{min(99, int(part * 100))}%"


def bar(part: float, width: int) -> str:
    full = min(width, int(part * width + 1e-9))
    return "█" * full + "░" * (width - full)


def sparkline(values: Sequence[float], width: int) -> str:
    """The last values, the highest as a full block; 0 is the lowest bar."""
    shown = values[-width:]
    highest = max(shown, default=0.0)
    if highest <= 0:
        return (_BARS[0] * len(shown)).rjust(width)
    top = len(_BARS) - 1
    # What is above 0 shows: a trickle beside a flood is not nothing.
    steps = (0 if v <= 0 else max(1, round(v / highest * top)) for v in shown)
    return "".join(_BARS[step] for step in steps).rjust(width)


def clock(at: float) -> str:
    return dt.datetime.fromtimestamp(at, dt.UTC).strftime("%H:%M:%S")


def moment(at: float | None) -> str:
    if not at:
        return NOTHING
    return dt.datetime.fromtimestamp(at, dt.UTC).strftime("%Y-%m-%d %H:%M UTC")


def worker(id: str, longest: int = 24) -> str:
    """Host and process, without what only tells one life of a host from another."""
    host, _, rest = id.partition(":")
    pid = rest.partition(":")[0]
    name = f"{host}:{pid}" if pid else host
    return short(name, longest)


def verified(at: float | None, differences: int | None, now: float) -> str:
    """How long ago rows were last compared, or how many differ."""
    if differences:
        return f"{count(differences)} differ"
    return NOTHING if at is None else f"{duration(max(0.0, now - at))} ago"
