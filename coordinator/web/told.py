"""What the page is told of a picture, as JSON.  Pure."""

from __future__ import annotations

from typing import Any, Final

from warp import headroom
from warp.fleet.lines import Line, chosen
from warp.fleet.picture import Picture
from warp.fleet.view import TableView

MOST_LINES: Final = 500  # the worst of them; what is well is the same many times over
MOST_TABLES: Final = 500
MOST_NEWS: Final = 50
_COURSE: Final = 40  # looks


def told(picture: Picture) -> dict[str, Any]:
    """Bounded, however large the fleet is."""
    fleet = picture.fleet
    lines = chosen(picture.lines, order="health")
    tables = sorted(fleet.tables, key=lambda t: (-t.quarantined - t.deferred, t.table))
    return {
        "as_of": fleet.as_of,
        "caught_up": fleet.caught_up,
        "rate": picture.rate,
        "history": _course(picture.history),
        "worst_lag": picture.worst_lag,
        "health": {health.value: count for health, count in picture.health.items()},
        "lines": [_line(line) for line in lines[:MOST_LINES]],
        "lines_in_all": len(lines),
        "tables": [_table(table) for table in tables[:MOST_TABLES]],
        "tables_in_all": len(tables),
        "workers": [
            {
                "id": worker.id,
                "slots": worker.slots,
                "held": worker.held,
                "draining": worker.draining,
                "heard_ago": worker.heard_ago,
                "memory": worker.memory,
            }
            for worker in fleet.workers
        ],
        "news": [
            {"at": one.at, "sort": one.sort.value, "subject": one.subject, "text": one.text}
            for one in fleet.news[:MOST_NEWS]
        ],
    }


def _line(line: Line) -> dict[str, Any]:
    return {
        "key": line.key,
        "kind": line.kind,
        "health": line.health.value,
        "phase": line.phase,
        "state": line.state,
        "owners": list(line.owners),
        "fence": line.fence,
        "rows": line.rows,
        "progress": line.progress,
        "eta": line.eta,
        "rate": line.rate,
        "history": _course(line.history),
        "lag": line.lag,
        "headroom": None if line.headroom is None else headroom.short(line.headroom),
        "quarantined": line.quarantined,
        "deferred": line.deferred,
        "verified_at": line.verified_at,
        "differences": line.differences,
    }


def _table(table: TableView) -> dict[str, Any]:
    return {
        "table": str(table.table),
        "schema": table.schema,
        "phase": table.phase.value,
        "chunks_done": table.chunks_done,
        "chunks": table.chunks,
        "quarantined": table.quarantined,
        "deferred": table.deferred,
        "verified_at": table.verified_at,
        "differences": table.differences,
    }


def _course(history: tuple[float, ...]) -> list[float]:
    return [round(value, 1) for value in history[-_COURSE:]]
