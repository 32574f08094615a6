"""Units of a verification: how a table is cut into them, and one of them from beginning to end."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from warp.bracket import LOOK_EVERY
from warp.comparison import KEYS_AT_ONCE, Comparison, Ends, range_of
from warp.digest.seams import Compared, Verified, compared_destination, compared_source
from warp.errors import SchemaMoved, SourceUnavailable
from warp.interfaces import DestinationConnector, Hold, SourceConnector
from warp.model import (
    ChangeBatch,
    Chunk,
    Marker,
    Phase,
    TableId,
    TableSchema,
    TableSelection,
    UnitKind,
    WorkUnit,
)
from warp.repairing import Repair

ATTEMPTS: Final = 5  # each means that the table's columns changed meanwhile


def verify(
    source: SourceConnector,
    destination: DestinationConnector,
    marker: Marker,
    hold: Hold,
    *,
    selection: TableSelection,
) -> bool:
    """Compare one key range; True when it is done, False when the hold asked to stop half-way.

    What was found is stored before the unit is marked DONE: a unit run twice says the same twice.
    """
    chunk = marker.unit.chunk
    if chunk is None:
        raise AssertionError("a unit of a verification has a key range")
    if marker.phase is Phase.DONE:
        return True
    ends = Ends(source, destination, hold, selection)
    examined = examine(ends, marker.unit, chunk)
    if examined is None:
        return False
    compared, verified = examined
    hold.check()
    there = compared_destination(destination, chunk.table).verifications()
    if there.conclude(marker.unit, compared, verified) and not _mended(ends, marker.unit):
        return False
    after = marker.advanced(ChangeBatch([], verified.position), phase=Phase.DONE)
    destination.update_marker(replace(after, rows=verified.rows))
    return True


def examine(ends: Ends, unit: WorkUnit, chunk: Chunk) -> tuple[Compared, Verified] | None:
    """None where the hold asked to stop."""
    for _ in range(ATTEMPTS):
        try:
            before = _snapshot_of(ends, unit)
            comparison = Comparison.of(ends, unit, chunk.table)
            keyed = bool(comparison.compared.schema.key)
            verified = comparison.by_key(chunk) if keyed else comparison.without_key(chunk)
            if verified is None:
                return None
            if _snapshot_of(ends, unit) == before:
                return comparison.compared, verified
        except SchemaMoved:
            pass
        ends.hold.check()
        ends.hold.wait(LOOK_EVERY)
        if ends.hold.stopping():
            return None
    raise SourceUnavailable(
        f"expected the columns of {chunk.table} to stay for one comparison, found them changed "
        f"{ATTEMPTS} times; it is tried again",
        place=unit.id,
    )


def _snapshot_of(ends: Ends, unit: WorkUnit) -> int:
    """Which snapshot the table's rows go back to.  While one is read, rows are missing rightly."""
    found = [
        marker
        for marker in ends.destination.metadata().markers((UnitKind.TABLE,))
        if marker.unit.schema == unit.schema and marker.unit.table == unit.table
    ]
    if not found or found[0].phase is not Phase.STREAMING:
        phase = found[0].phase if found else "unknown"
        raise SourceUnavailable(
            f"expected a table whose first rows have all arrived, found it {phase}; it is "
            "compared when they have",
            place=unit.id,
        )
    return found[0].epoch


def _mended(ends: Ends, unit: WorkUnit) -> bool:
    """Hand what the unit found to its table's replay unit; False where asked to stop half-way."""
    table = unit.table
    if table is None:
        raise AssertionError("a unit of a verification has a table")
    there = compared_destination(ends.destination, table).verifications()
    while kept := there.open_differences(
        unit.schema, table, after=0, limit=KEYS_AT_ONCE, unit=unit.id
    ):
        ends.hold.check()
        looked = Repair(ends, unit.schema, table).look(kept, holding=True)
        if looked is None:
            return False
        there.decide(looked.gone, "gone")
        rows = {c.id: c.row for c in looked.corrections if c.row is not None}
        if rows:
            there.correct(unit.schema, table, list(rows.values()), list(rows))
        if not rows and not looked.gone:
            break  # nothing but what no correction mends, or what moves at every look
    return True


# ---------------------------------------------------------------- planning


def can_compare(source: SourceConnector, destination: DestinationConnector) -> bool:
    return source.traits.compares and destination.traits.compares


def plan(
    source: SourceConnector,
    destination: DestinationConnector,
    schema: str,
    table: TableId,
    rows: int,
    now: float,
    *,
    repairs: bool = False,
) -> list[WorkUnit]:
    """Store a pass over a table; its units.  None where a later pass is there already."""
    compared_source(source, table)  # refuses before anything is stored
    have = destination.get_schema(table)
    if have is None:
        return []
    chunks = cut(source, have, table, rows)
    number = int(now * 1000)
    verifications = compared_destination(destination, table).verifications()
    if not verifications.plan(schema, chunks, number=number, repairs=repairs):
        return []
    return [WorkUnit.of_verification(schema, chunk, number) for chunk in chunks]


def cut(source: SourceConnector, have: TableSchema, table: TableId, rows: int) -> list[Chunk]:
    """The units of a pass: key ranges of about `rows` rows, or the table whole where the order of
    its keys is the source's own."""
    chunks = source.chunks(table, rows)
    if have.key and all(range_of(source, have, chunk) is not None for chunk in chunks):
        return chunks
    return [Chunk(table, 0, rows=sum(chunk.rows for chunk in chunks))]
