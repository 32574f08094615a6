"""A plan as a file: what was forecast, and a seal over it that a later start is checked against.

The seal is a hash, not a signature: it tells an edited file from the one that was written, and
keeps what was looked at together.  Pure; files are read and written by the command.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from warp.errors import ConfigError
from warp.model import Cost, Outcome, TableSchema
from warp.rehearsal import Forecast

PLAN: Final = 1  # the version of the file's form
_SEAL: Final = "seal"
# What becomes of a cell that counts as told exactly: it is in its column as it was, or converted
# without loss, or whole in `_extra`.
KEPT: Final = (Outcome.CONVERTED, Outcome.EXTRA)


def document(
    forecasts: Sequence[Forecast], *, digest: str, version: str, made_at: str, sample: int
) -> dict[str, Any]:
    """The plan, sealed."""
    plan = {
        "plan": PLAN,
        "version": version,
        "made_at": made_at,
        "configuration": digest,
        "sample": sample,
        "tables": [_table(one) for one in sorted(forecasts, key=lambda f: (f.schema, f.table))],
    }
    return plan | {_SEAL: seal(plan)}


def seal(plan: Mapping[str, Any]) -> str:
    """Over everything but itself."""
    sealed = {name: value for name, value in plan.items() if name != _SEAL}
    text = json.dumps(sealed, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def _table(found: Forecast) -> dict[str, Any]:
    return {
        "schema": found.schema,
        "table": str(found.table),
        "destination": str(found.destination),
        "source": shape(found.source),
        "before": shape(found.before),
        "after": shape(found.after),
        "ddl": found.statements,
        "rows_sampled": found.rows,
        "rows_estimated": found.estimated,
        "whole": found.whole,
        "quarantined_rows": found.quarantined,
        "quarantined_share": _share(found.quarantined, found.rows),
        "columns": [_column(found, name) for name in _names(found)],
        "billed": None if found.billed is None else _billed(found.billed),
        "obstacle": found.obstacle or None,
    }


def _billed(cost: Cost) -> dict[str, Any]:
    """In bytes; null where nobody can tell before."""
    return {
        "snapshot": cost.snapshot,
        "run": cost.run,
        "verification": cost.verification,
        "refused": cost.is_refused,
        "why_unknown": cost.why_unknown or None,
    }


def _names(found: Forecast) -> list[str]:
    columns = found.after.names() if found.after is not None else ()
    return [*columns, *(name for name in found.misfits if name not in columns)]


def _column(found: Forecast, name: str) -> dict[str, Any]:
    column = found.after.column(name) if found.after is not None else None
    misfits = found.misfits.get(name, [])
    cells = {outcome.value: 0 for outcome in Outcome if outcome is not Outcome.DEFERRED}
    for one in misfits:
        cells[one.outcome.value] += one.cells
    lossless = max(0, found.rows - sum(cells.values()))
    return {
        "column": name,
        "kind": None if column is None else column.kind.value,
        "lossless": _share(lossless, found.rows),
        "share": {outcome: _share(count, found.rows) for outcome, count in cells.items() if count},
        "cells": {outcome: count for outcome, count in cells.items() if count},
        "met": [
            {"outcome": m.outcome.value, "met": m.met, "expected": m.expected, "cells": m.cells}
            for m in misfits
        ],
    }


def _share(part: int, whole: int) -> float | None:
    return round(part / whole, 6) if whole else None


def shape(schema: TableSchema | None) -> dict[str, Any] | None:
    """What of a table must not have changed since."""
    if schema is None:
        return None
    columns = {
        c.name: c.kind.value
        + (f"({c.limit})" if c.limit is not None and c.scale is None else "")
        + (f"({c.limit},{c.scale})" if c.limit is not None and c.scale is not None else "")
        for c in schema.columns
    }
    return {"columns": columns, "key": list(schema.key)}


# -- checking


def read(text: str, place: str) -> dict[str, Any]:
    """A plan from its file's text, whose seal is whole."""
    try:
        plan = json.loads(text)
        found = plan[_SEAL]
        if plan["plan"] != PLAN:
            raise ConfigError(
                f"expected a plan of form {PLAN}, found {plan['plan']!r}; make it anew with "
                "`cartridge-warp plan --out FILE`",
                place=place,
            )
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"expected a plan as `cartridge-warp plan --out FILE` writes it, found {error}",
            place=place,
        ) from None
    if found != seal(plan):
        raise ConfigError(
            "expected the plan as it was written, found it edited: its seal does not fit; make it "
            "anew with `cartridge-warp plan --out FILE`",
            place=place,
        )
    checked: dict[str, Any] = plan
    return checked


def differences(plan: Mapping[str, Any], now: Sequence[Forecast], *, digest: str) -> Iterator[str]:
    """What is not as it was when the plan was made, a line each.

    A destination that is as the plan would leave it is fine: it was started before.  `now` needs
    no forecast but what each side has.
    """
    if plan["configuration"] != digest:
        yield f"configuration: expected {plan['configuration']}, found {digest}"
    planned = {(t["schema"], t["table"]): t for t in plan["tables"]}
    present = {(f.schema, str(f.table)): f for f in now}
    for schema, table in planned.keys() - present.keys():
        yield f"{table} ({schema}): expected it at the source, found it gone"
    for schema, table in present.keys() - planned.keys():
        yield f"{table} ({schema}): expected no such table, found it at the source"
    for place in sorted(planned.keys() & present.keys()):
        told, found = planned[place], present[place]
        yield from _changed(f"{place[1]} at the source", [told["source"]], shape(found.source))
        allowed = [told["before"], told["after"]]
        yield from _changed(f"{found.destination} at the destination", allowed, shape(found.before))


def _grown(planned: Mapping[str, Any] | None, found: Mapping[str, Any] | None) -> bool:
    """A table that the plan was carried out on gets columns for fields that come later."""
    if planned is None or found is None or planned["key"] != found["key"]:
        return False
    columns = found["columns"]
    return all(columns.get(name) == kind for name, kind in planned["columns"].items())


def _changed(
    what: str, allowed: Sequence[Mapping[str, Any] | None], found: Mapping[str, Any] | None
) -> Iterator[str]:
    if found in allowed or any(_grown(one, found) for one in allowed[1:]):
        return
    was = allowed[0]
    if was is None or found is None:
        yield f"{what}: expected {'none' if was is None else 'the table'}, found " + (
            "none" if found is None else "one"
        )
        return
    if was["key"] != found["key"]:
        yield f"{what}: expected the key {was['key']}, found {found['key']}"
    for name in {**was["columns"], **found["columns"]}:
        then, now = was["columns"].get(name), found["columns"].get(name)
        if then != now:
            yield f"{what}, column {name}: expected {then or 'none'}, found {now or 'none'}"
