"""Is the place of a stream about to be forgotten by its source?  Asked before it is (guarantee 6).

Sources say what they found (`Headroom`); what that means is decided here, once for the metrics,
`status` and `doctor`.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Final, cast

from warp.diagnosis import failed, ok, warning
from warp.errors import SourceRefused
from warp.interfaces import SourceConnector, TellsHeadroom
from warp.model import Diagnosis, Headroom, Position

LOW_RATIO: Final = 0.25
LOW_SECONDS: Final = 3600.0  # so long somebody may need who is woken by it
CODE: Final = "log-headroom"


class State(StrEnum):
    OK = "ok"
    LOW = "low"
    LOST = "lost"
    UNKNOWN = "unknown"


def ask(source: SourceConnector, position: Position) -> Headroom | None:
    """What the source keeps behind a position; None where it cannot tell such a thing.

    That we may not ask is an answer too: work goes on without.
    """
    if not source.traits.headroom:
        return None
    try:
        return cast(TellsHeadroom, source).headroom(position)
    except SourceRefused as error:
        return Headroom(f"it cannot be asked: {error.message}")


def state_of(found: Headroom) -> State:
    if found.lost:
        return State.LOST
    if found.ratio is None:
        return State.UNKNOWN
    if found.ratio < LOW_RATIO or (found.seconds is not None and found.seconds < LOW_SECONDS):
        return State.LOW
    return State.OK


def diagnosis(unit: str, found: Headroom, schema: str) -> Diagnosis:
    """For `doctor`, about one stream."""
    expected = (
        f"a log that keeps the stream's place: {LOW_RATIO:.0%} of it left, and "
        f"{LOW_SECONDS / 60:.0f} minutes where it goes by age"
    )
    match state_of(found):
        case State.OK:
            return ok(CODE, unit, expected, found.told)
        case State.LOST:
            mend = f"cartridge-warp resync {schema}"
            return failed(CODE, unit, expected, found.told, _joined(mend, found.mend))
        case State.LOW:
            mend = "let the stream catch up (`cartridge-warp status` tells what it waits for)"
            return warning(CODE, unit, expected, found.told, _joined(mend, found.mend))
        case State.UNKNOWN:
            return warning(CODE, unit, expected, found.told, found.mend)


def _joined(first: str, then: str) -> str:
    return f"{first}; and {then}" if then else first


def as_data(found: Headroom) -> Mapping[str, Any]:
    """For `status --json`; what is not told is null."""
    return {
        "state": state_of(found).value,
        "ratio": None if found.ratio is None else round(found.ratio, 4),
        "seconds": None if found.seconds is None else round(found.seconds, 1),
        "bytes": found.bytes,
        "window_seconds": None if found.window is None else round(found.window, 1),
        "retained_bytes": found.retained,
        "told": found.told,
    }


def short(found: Headroom) -> str:
    """For a narrow column."""
    state = state_of(found)
    if found.ratio is None or state is State.LOST:
        return state.value
    parts = []
    if found.seconds is not None:
        parts.append(_duration(found.seconds))
    if found.bytes is not None:
        parts.append(_size(found.bytes))
    return " ".join(parts) or f"{found.ratio:.0%}"


def _duration(seconds: float) -> str:
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
