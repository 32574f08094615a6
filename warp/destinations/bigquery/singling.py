"""One row for each key: what BigQuery does not see to itself.

A MERGE of ours changes all rows of a key alike, so several stay several; and it finds no row
without a version, since nothing is newer than NULL.  Here both are made rows like any other, and
those without a key go, while nobody writes to the table: in a transaction that cancels everybody
else's, or is cancelled by it.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from warp.destinations.bigquery import books, readback
from warp.destinations.bigquery.merge import DELETED, VERSION
from warp.destinations.bigquery.names import literal, quoted
from warp.destinations.bigquery.place import Place
from warp.destinations.bigquery.script import Script
from warp.destinations.bigquery.session import Session
from warp.destinations.bigquery.spelling import Spelled
from warp.digest.seams import Compared
from warp.model import Cells

if TYPE_CHECKING:
    from warp.destinations.bigquery.markers import Group

REASON: Final = "duplicate"
NOT_A_DELETION: Final = -1
"""The version of the audit's lines: the key lives on, and nothing that comes is older than that."""

Registered = Callable[[Compared], "tuple[Group, Place]"]


def single_out(
    session: Session,
    registered: Registered,
    bump: Callable[[Script, Group], None],
    compared: Compared,
    keys: Sequence[Cells],
) -> None:
    """As `warp.digest.seams.Comparing`."""
    aside = f"single_{secrets.token_hex(8)}"
    dataset = session.options.staging_dataset

    def make() -> Script:
        group, place = registered(compared)
        spelled = place.spelled([column.name for column in compared.key])
        kept = quoted(session.project, dataset, aside)
        _keep(session, place, spelled, keys, kept)
        script = Script()
        bump(script, group)  # nobody has written since the group was read: these are all there are
        among = _among(script, spelled, keys)
        audited = _audited(script, session, group.unit, place, spelled)
        script.add(f"{audited} WHERE {_going(spelled, among)}")
        script.add(f"DELETE FROM {place.name} WHERE {among}")
        script.add(f"INSERT INTO {place.name} SELECT * FROM {kept}")
        # A row of nobody's is newer than the table's last emptying, since it is there.
        version = f"{max(0, int(group.row['truncated_at']) + 1)}"
        sets = [
            f"{VERSION} = IFNULL({VERSION}, {version})",
            f"{DELETED} = IFNULL({DELETED}, FALSE)",
        ]
        script.add(
            f"UPDATE {place.name} SET {', '.join(sets)}"
            f" WHERE ({VERSION} IS NULL OR {DELETED} IS NULL) AND {among}"
        )
        return script

    with session.meaning(f"leaving one row of each key of {compared.schema.table}"):
        try:
            session.patiently(make)
        finally:
            session.drop(dataset, aside)


def _keep(
    session: Session, place: Place, spelled: Sequence[Spelled], keys: Sequence[Cells], kept: str
) -> None:
    """The newest row of each key, a live one before one that is gone, in a table of its own."""
    script = Script()
    names = ", ".join(quoted(one.name) for one in spelled)
    script.add(
        f"CREATE OR REPLACE TABLE {kept} AS SELECT * FROM {place.name}"
        f" WHERE {_among(script, spelled, keys)} AND NOT ({_keyless(spelled)})"
        f" QUALIFY ROW_NUMBER() OVER (PARTITION BY {names}"
        f" ORDER BY {place.live} DESC, {VERSION} DESC) = 1"
    )
    session.query(script)


def _among(script: Script, spelled: Sequence[Spelled], keys: Sequence[Cells]) -> str:
    """Is a row of one of these keys?"""
    asked = []
    for row in zip(*keys, strict=True):
        told = [readback.bound(one, cell) for one, cell in zip(spelled, row, strict=True)]
        same = [
            f"{quoted(one.name)} "
            + ("IS NULL" if value is None else f"= {script.bind(value, type_)}")
            for one, (type_, value) in zip(spelled, told, strict=True)
        ]
        asked.append(f"({' AND '.join(same)})")
    return f"({' OR '.join(asked)})"


def _going(spelled: Sequence[Spelled], among: str) -> str:
    """Is a row one of several of its key, or of none?  For a SELECT, which QUALIFY ends."""
    names = ", ".join(quoted(one.name) for one in spelled)
    return f"{among} QUALIFY COUNT(*) OVER (PARTITION BY {names}) > 1 OR {_keyless(spelled)}"


def _keyless(spelled: Sequence[Spelled]) -> str:
    return " OR ".join(f"{quoted(one.name)} IS NULL" for one in spelled)


def _audited(
    script: Script, session: Session, unit: str, place: Place, spelled: Sequence[Spelled]
) -> str:
    """A line of the audit for each row, with its values."""
    table = place.table.schema.table
    bound = [script.bind(v) for v in (unit, table.namespace, table.name, REASON)]
    key = ", ".join(f"{literal(o.column.name)}, {quoted(o.name)}" for o in spelled)
    cells = ", ".join(f"{quoted(o.name)} AS {quoted(o.name)}" for o in place.table.spelled)
    return (
        f"INSERT INTO {session.meta(books.AUDIT)} (noted_at, unit, position, run, source_namespace,"
        " source_table, reason, version, key, row, row_count)"
        f" SELECT CURRENT_TIMESTAMP(), {bound[0]}, CAST(NULL AS STRING), CAST(NULL AS STRING),"
        f" {bound[1]}, {bound[2]}, {bound[3]}, {NOT_A_DELETION},"
        f" TO_JSON_STRING(JSON_OBJECT({key})),"
        f" TO_JSON_STRING(STRUCT({cells}, {VERSION} AS {VERSION})), 1"
        f" FROM {place.name}"
    )
