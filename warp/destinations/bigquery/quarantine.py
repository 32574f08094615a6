"""Rows in quarantine and lines of the error log: chosen, read and decided about.  Pure.

A row is set aside once; every decision about it is a line of its own, and the last one counts.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from warp.destinations.bigquery.script import Script
from warp.model import (
    Aside,
    Choice,
    ErrorLine,
    Operation,
    Position,
    QuarantinedRow,
    SetAside,
    TableId,
)

REPLAYED_BYTES: Final = 8 << 20  # of rows replayed together


def choose(choice: Choice, places: dict[str, str]) -> Script:
    script = Script()
    conditions = ["q.id > " + script.bind(choice.after)] if choice.after else ["TRUE"]
    if choice.ids is not None:
        conditions.append(_among(script, "q.id", list(choice.ids), "INT64"))
    if choice.schemas:
        conditions.append(_among(script, "q.schema_name", list(choice.schemas), "STRING"))
    if choice.states:
        states = [state.value for state in choice.states]
        conditions.append(_among(script, "IFNULL(d.state, 'waiting')", states, "STRING"))
    conditions += _common(script, choice, "q", "q.reason", "q.noted_at")
    _read(script, places, conditions, "q.id", whole=choice.whole, limit=choice.limit)
    return script


def to_replay(schema: str, table: TableId, limit: int, places: dict[str, str]) -> Script:
    """A table's rows to be landed, the oldest version first, so that a later change of a key comes
    after it."""
    script = Script()
    conditions = [
        f"IFNULL(d.state, 'waiting') = '{Aside.REPLAYING.value}'",
        f"q.schema_name = {script.bind(schema)}",
        f"q.source_namespace = {script.bind(table.namespace)}",
        f"q.source_table = {script.bind(table.name)}",
    ]
    _read(script, places, conditions, "q.version, q.id", whole=True, limit=limit)
    return script


def fitting(rows: Sequence[SetAside]) -> list[SetAside]:
    """As many as fit into a few megabytes, but one at least (guarantee 9)."""
    kept: list[SetAside] = []
    size = 0
    for row in rows:
        size += len(row.row.row)
        if kept and size > REPLAYED_BYTES:
            break
        kept.append(row)
    return kept


def choose_errors(choice: Choice, places: dict[str, str]) -> Script:
    script = Script()
    conditions = ["TRUE"]
    if choice.ids is not None:
        conditions.append(_among(script, "e.id", list(choice.ids), "INT64"))
    if choice.schemas:
        named = _among(script, "e.schema_name", list(choice.schemas), "STRING")
        conditions.append(f"({named} OR e.schema_name = '*')")
    conditions += _common(script, choice, "e", "e.message", "e.last_at")
    statement = script.text("read_errors", {**places, "conditions": " AND ".join(conditions)})
    script.add(_limited(statement, choice.limit))
    return script


def decide(
    script: Script,
    places: dict[str, str],
    decisions: Mapping[int, tuple[str, str]],
    *,
    tried: bool = False,
) -> None:
    """Write down what becomes of each row, and why."""
    if not decisions:
        return
    lines = ", ".join(
        f"({script.bind(id)}, CURRENT_TIMESTAMP(), {script.bind(state)},"
        f" {script.bind(tried)}, {script.bind(why)})"
        for id, (state, why) in sorted(decisions.items())
    )
    script.add(
        f"INSERT INTO {places['decisions']} (id, noted_at, state, tried, error) VALUES {lines}"
    )


def set_aside(row: Mapping[str, Any]) -> SetAside:
    position = row["position"]
    return SetAside(
        row["id"],
        row["schema_name"],
        row["unit"],
        QuarantinedRow(
            TableId(row["source_namespace"], row["source_table"]),
            row["key"],
            Operation(ord(row["operation"])),
            row["row_text"],
            row["reason"],
            row["code"],
            None if position is None else Position(position, row["position_seconds"]),
            row["version"],
            json.loads(row["kinds"]),
            row["partial"],
            row["column_name"],
        ),
        Aside(row["state"]),
        row["noted_at"].timestamp(),
        row["tries"],
        None if row["tried_at"] is None else row["tried_at"].timestamp(),
        row["last_error"],
    )


def error_line(row: Mapping[str, Any]) -> ErrorLine:
    namespace = row["source_namespace"]
    return ErrorLine(
        row["id"],
        row["noted_at"].timestamp(),
        row["last_at"].timestamp(),
        row["code"],
        row["error_class"],
        row["message"],
        row["schema_name"],
        row["unit"],
        None if namespace is None else TableId(namespace, row["source_table"]),
        row["column_name"],
        row["key"],
        row["position"] or "",
        row["action"],
        None if row["cells"] is None else int(row["cells"]),
        row["original_length"],
    )


def _read(
    script: Script,
    places: dict[str, str],
    conditions: Sequence[str],
    order: str,
    *,
    whole: bool,
    limit: int | None,
) -> None:
    statement = script.text(
        "read_quarantine",
        {**places, "conditions": " AND ".join(conditions), "order": order},
        whole=whole,
    )
    script.add(_limited(statement, limit))


def _limited(statement: str, limit: int | None) -> str:
    return statement if limit is None else f"{statement}\nLIMIT {int(limit)}"


def _common(script: Script, choice: Choice, of: str, said: str, at: str) -> list[str]:
    conditions = []
    if choice.code:
        conditions.append(f"{of}.code = {script.bind(choice.code)}")
    if choice.table:
        name = script.bind(choice.table)
        conditions.append(
            f"({of}.source_table = {name}"
            f" OR CONCAT({of}.source_namespace, '.', {of}.source_table) = {name})"
        )
    if choice.reason:
        reason = script.bind(choice.reason)
        conditions.append(f"({of}.code = {reason} OR STRPOS({said}, {reason}) > 0)")
    for seconds, comparison in ((choice.older_than, "<="), (choice.newer_than, ">=")):
        if seconds is not None:
            age = script.bind(int(seconds * 1_000_000))
            conditions.append(
                f"{at} {comparison} TIMESTAMP_SUB(CURRENT_TIMESTAMP(), INTERVAL {age} MICROSECOND)"
            )
    return conditions


def _among(script: Script, what: str, values: Sequence[Any], type_: str) -> str:
    if not values:
        return "FALSE"
    return f"{what} IN ({', '.join(script.bind(value, type_) for value in values)})"
