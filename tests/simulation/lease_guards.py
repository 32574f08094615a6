"""The lines of the code that guard a lease, and what comes of taking each of them out.

`Rules` of `lease_model.py` names the guards; here is where each one stands in the code, and the
shortest way to break a guarantee without it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Final, Literal, NamedTuple

from lease_model import Rules


class Edit(NamedTuple):
    """One line of a script or of a statement, and what stands in its place in the broken twin."""

    where: Literal["lua", "sql", "python"]
    name: str
    line: str = ""
    instead: str = ""


TAKEN_OUT: Final[Mapping[str, tuple[Edit, ...]]] = {
    "write_checks_fence": (Edit("sql", "advance_marker", "and fence = %(fence)s", ""),),
    "write_checks_batch": (Edit("sql", "advance_marker", "and batch = %(batch)s - 1", ""),),
    "open_checks_fence": (Edit("sql", "adopt_marker", "and fence < %(fence)s", ""),),
    "open_refuses_its_equal": (
        Edit("sql", "adopt_marker", "and fence < %(fence)s", "and fence <= %(fence)s"),
    ),
    "open_raises_fence": (
        Edit("sql", "adopt_marker", "set fence = %(fence)s, owner =", "set owner ="),
    ),
    "resync_raises_fence": (
        Edit("sql", "resync_stream", "set fence = fence + 1, epoch =", "set epoch ="),
    ),
    "refences": (
        Edit(
            "lua",
            "refence",
            "if not holds(worker, unit, fence) then return '' end",
            "do return '' end",
        ),
    ),
    "refence_checks_owner": (
        Edit("lua", "refence", "if not holds(worker, unit, fence) then return '' end", ""),
    ),
    "renew_checks_owner": (
        Edit(
            "lua",
            "renew",
            "owners[i] == worker and issued[i] == ARGV[6 + count + i]",
            "owners[i] ~= false",
        ),
    ),
    "claims_only_what_is_free": (
        Edit("lua", "claim", "redis.call('ZREM', DUE, unpack(units))", ""),
    ),
    "fences_grow": (Edit("lua", "claim", "number(last[i], 0) + 1", "1"),),
    "fences_follow_the_clock": (
        Edit("lua", "claim", "number(last[i], 0) + 1, us", "number(last[i], 0) + 1"),
        Edit("lua", "refence", "floor) + 1, now_us())", "floor) + 1)"),
    ),
    "reads_the_marker_when_unsure": (Edit("python", "was_committed"),),
}

BESIDES: Final[Mapping[str, str]] = {"write_checks_batch": "reads_the_marker_when_unsure"}
"""A second defence shows only where the first is gone."""


@dataclass(frozen=True, slots=True)
class Break:
    """A guarantee that does not hold without some guards, and the shortest way to see it."""

    rules: Rules
    violation: str
    trace: str


BREAKS: Final[Mapping[str, Break]] = {
    "a write checks its fence": Break(
        Rules(write_checks_fence=False),
        "a superseded worker wrote",
        "ensure, claim(A), tick, tick, open(A), claim(B), open(B), write_batch(A)",
    ),
    "who opens a unit has a newer fence": Break(
        Rules(open_checks_fence=False),
        "a superseded worker wrote",
        "ensure, claim(A), flushall, ensure, open(A), claim(B), open(B), write_batch(A)",
    ),
    "an equal fence is no newer one": Break(
        Rules(open_refuses_its_equal=False),
        "a superseded worker wrote",
        "ensure, claim(A), flushall, ensure, open(A), claim(B), open(B), write_batch(A)",
    ),
    "who opens a unit raises its fence": Break(
        Rules(open_raises_fence=False),
        "a superseded worker wrote",
        "ensure, claim(A), tick, tick, open(A), claim(B), open(B), write_batch(A)",
    ),
    "a resync raises the fence": Break(
        Rules(resync_raises_fence=False),
        "a write went on from where the unit stood before a resync",
        "ensure, claim(A), open(A), write_batch(A), resync, write_batch(A)",
    ),
    "an unknown outcome is read from the marker, or the batch number is checked": Break(
        Rules(write_checks_batch=False, reads_the_marker_when_unsure=False),
        "a batch was passed by",
        "ensure, claim(A), open(A), write_batch, request lost(A), read_marker(A), write_batch(A)",
    ),
}

HINTS: Final = (
    "refence_checks_owner",
    "renew_checks_owner",
    "claims_only_what_is_free",
    "fences_grow",
    "fences_follow_the_clock",
)
"""What the ledger does is a hint: without it nothing is written twice or by the wrong one."""

EVERY_OUTCOME: Final = frozenset(
    {
        ("tick", ""),
        ("set_clock_back", ""),
        ("ensure", ""),
        ("flushall", ""),
        ("resync", ""),
        ("claim", "claimed"),
        ("claim", "nothing"),
        ("renew", "renewed"),
        ("renew", "lost"),
        ("release", "released"),
        ("release", "too late"),
        ("open", "opened"),
        ("open", "behind, refenced"),
        ("open", "behind, lost"),
        ("write_batch", "landed"),
        ("write_batch", "refused"),
        ("write_batch, answer lost", "landed"),
        ("write_batch, answer lost", "refused"),
        ("write_batch, request lost", ""),
        ("write_batch, COMMIT lost", ""),
        ("write_batch, COMMIT lost", "refused"),
        ("read_marker", "committed"),
        ("read_marker", "not committed"),
        ("read_marker", "lost"),
        ("crash", ""),
    }
)
"""What the steps of the model can say, all of it."""


def steps_of(trace: str) -> list[str]:
    """A trace's steps; the names of some have a comma."""
    found: list[str] = []
    for part in trace.split(", "):
        if found and found[-1] == "write_batch":
            found[-1] += f", {part}"
        else:
            found.append(part)
    return found


assert TAKEN_OUT.keys() == {field.name for field in fields(Rules)}
