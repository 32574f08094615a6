"""`cartridge-warp quarantine`: what was set aside, and what a person decides about it.

A decision is stored in the metadata schema first.  The rows themselves are landed by a worker
under the lease of their table's replay unit; nothing here writes to a table.
"""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import click

from commands.choosing import (
    LIMIT,
    NEWER,
    OLDER,
    TABLE,
    age,
    choice_of,
    moment,
    plain,
    print_json,
    print_table,
)
from commands.cli import JSON, asking
from warp import startup
from warp.assembly import Assembly, Plugged
from warp.config import Settings
from warp.errors import ConfigError, LedgerUnavailable
from warp.interfaces import MetadataStore
from warp.model import Aside, Choice, SetAside, TableId
from warp.replays import NO_KINDS

PAGE: Final = 1000  # rows decided about at once

REASON = click.option(
    "--reason", default="", metavar="TEXT", help="Only what says this, or has this code."
)


@click.group()
def quarantine() -> None:
    """Rows that could not be written: look at them, land them again, or give them up."""


@quarantine.command("list")
@TABLE
@REASON
@OLDER
@NEWER
@click.option(
    "--state",
    "states",
    multiple=True,
    type=click.Choice([state.value for state in Aside]),
    help="Only in this state; may be repeated.  [default: waiting and replaying]",
)
@LIMIT
@JSON
@asking
def list_(settings: Settings, limit: int, as_json: bool, **given: Any) -> int:
    """Rows of the quarantine, the oldest first."""
    choice = choice_of(given)
    if not choice.states:
        choice = replace(choice, states=(Aside.WAITING, Aside.REPLAYING))
    return list_rows(settings, choice, limit=limit, as_json=as_json)


@quarantine.command()
@click.argument("id", type=int)
@JSON
@asking
def show(settings: Settings, id: int, as_json: bool) -> int:
    """One row, whole."""
    return show_row(settings, id, as_json=as_json)


def deciding(body: Callable[..., None]) -> Callable[..., None]:
    """The flags of a decision: which rows, and whether it is meant."""
    for option in (
        JSON,
        click.option("--apply", is_flag=True, help="Do it; else only what would be done is told."),
        NEWER,
        OLDER,
        REASON,
        TABLE,
        click.option("--all", "everything", is_flag=True, help="All that the filters leave."),
        click.argument("ids", type=int, nargs=-1),
    ):
        body = option(body)
    return body


@quarantine.command()
@deciding
@asking
def replay(
    settings: Settings,
    ids: tuple[int, ...],
    everything: bool,
    apply: bool,
    as_json: bool,
    **given: Any,
) -> int:
    """Land rows again, once what refused them has been mended.

    A worker does it.  A row never overrules a newer one, nor a deletion.
    """
    choice = _wanted(choice_of(given), ids, everything=everything)
    return replay_rows(settings, choice, apply=apply, as_json=as_json)


@quarantine.command()
@deciding
@asking
def discard(
    settings: Settings,
    ids: tuple[int, ...],
    everything: bool,
    apply: bool,
    as_json: bool,
    **given: Any,
) -> int:
    """Give rows up: they stay to be seen, and never land."""
    choice = _wanted(choice_of(given), ids, everything=everything)
    return discard_rows(settings, choice, apply=apply, as_json=as_json)


def _wanted(choice: Choice, ids: tuple[int, ...], *, everything: bool) -> Choice:
    if bool(ids) is everything:
        raise ConfigError(
            "expected ids of rows, as `quarantine list` shows them, or --all; found "
            + ("both" if ids else "neither"),
            place="IDS",
        )
    return choice if everything else replace(choice, ids=ids)


# ---------------------------------------------------------------- looking


def list_rows(
    settings: Settings,
    choice: Choice,
    *,
    limit: int,
    as_json: bool,
    assembly: Assembly | None = None,
) -> int:
    with _metadata(settings, assembly) as metadata:
        rows = metadata.quarantine(replace(choice, limit=limit + 1)) if metadata else []
    more, rows = len(rows) > limit, rows[:limit]
    if as_json:
        print_json({"rows": [_described(row) for row in rows], "more": more})
        return startup.DONE
    if not rows:
        click.echo("nothing is in quarantine", err=True)
        return startup.DONE
    print_table(
        ("id", "state", "table", "key", "column", "tries", "age", "code", "reason"),
        [
            (
                row.id,
                row.state,
                row.row.table,
                row.row.key,
                row.row.column,
                row.tries,
                age(row.at),
                row.row.code,
                _latest_reason(row),
            )
            for row in rows
        ],
    )
    if more:
        click.echo(f"the oldest {limit}; there are more, see --limit", err=True)
    return startup.DONE


def show_row(
    settings: Settings, id: int, *, as_json: bool, assembly: Assembly | None = None
) -> int:
    with _metadata(settings, assembly) as metadata:
        found = metadata.quarantine(Choice(ids=(id,), whole=True)) if metadata else []
    if not found:
        raise _no_such([id])
    shown = _described(found[0]) | {
        "row": found[0].row.row,
        "kinds": dict(found[0].row.kinds),
        "partial": found[0].row.partial,
    }
    if as_json:
        print_json(shown)
        return startup.DONE
    for name, value in shown.items():
        text = json.dumps(value) if isinstance(value, dict) else str(value)
        click.echo(f"{name}: {plain(text)}")
    return startup.DONE


def _latest_reason(row: SetAside) -> str:
    return row.last_error or row.row.reason


def _described(row: SetAside) -> dict[str, Any]:
    aside = row.row
    return {
        "id": row.id,
        "state": row.state.value,
        "schema": row.schema,
        "table": str(aside.table),
        "key": aside.key,
        "column": aside.column,
        "operation": aside.operation.name.lower(),
        "version": aside.version,
        "code": aside.code,
        "reason": aside.reason,
        "unit": row.unit,
        "position": aside.position.token if aside.position else None,
        "at": moment(row.at),
        "tries": row.tries,
        "tried_at": moment(row.tried_at) or None,
        "last_error": row.last_error,
    }


# ---------------------------------------------------------------- deciding


@dataclass(slots=True)
class Decision:
    """What a command would do, or did."""

    tables: Counter[tuple[str, TableId]] = field(default_factory=Counter)
    left_out: dict[int, str] = field(default_factory=dict)  # id -> why nothing is done about it
    notes: list[str] = field(default_factory=list)


def replay_rows(
    settings: Settings,
    choice: Choice,
    *,
    apply: bool,
    as_json: bool,
    assembly: Assembly | None = None,
) -> int:
    decision = Decision()
    configured = {schema.name for schema in settings.schemas}
    with _metadata(settings, assembly) as metadata:
        for rows in _pages(metadata, choice):
            groups: dict[tuple[str, TableId], list[int]] = {}
            for row in rows:
                if why := _not_replayed(row, configured):
                    if choice.ids is not None or row.state is Aside.WAITING:
                        decision.left_out[row.id] = why
                else:
                    groups.setdefault((row.schema, row.row.table), []).append(row.id)
            for place, ids in groups.items():
                marked = metadata.replay(*place, ids) if apply and metadata else len(ids)
                decision.tables[place] += marked
        if apply and metadata and decision.tables:
            decision.notes += offer_replays(settings, metadata, list(decision.tables))
    _tell("replay", decision, apply=apply, as_json=as_json)
    return startup.DONE


def discard_rows(
    settings: Settings,
    choice: Choice,
    *,
    apply: bool,
    as_json: bool,
    assembly: Assembly | None = None,
) -> int:
    decision = Decision()
    open_ = (Aside.WAITING, Aside.REPLAYING)
    with _metadata(settings, assembly) as metadata:
        for rows in _pages(metadata, choice):
            ids = []
            for row in rows:
                if row.state in open_:
                    ids.append(row.id)
                    decision.tables[row.schema, row.row.table] += 1
                elif choice.ids is not None:
                    decision.left_out[row.id] = f"it is {row.state} already"
            if apply and metadata:
                metadata.discard(ids)
    _tell("discard", decision, apply=apply, as_json=as_json)
    return startup.DONE


def _pages(metadata: MetadataStore | None, choice: Choice) -> Iterator[list[SetAside]]:
    """The chosen rows, a bounded number at a time; an id that is not among them is a mistake."""
    if choice.ids is None:
        choice = replace(choice, states=(Aside.WAITING, Aside.REPLAYING))
    found = metadata.quarantine(replace(choice, limit=PAGE)) if metadata else []
    if choice.ids is not None:
        known = metadata.quarantine(Choice(ids=choice.ids)) if metadata else []
        if missing := set(choice.ids) - {row.id for row in known}:
            raise _no_such(sorted(missing))
    while found and metadata:
        yield found
        found = metadata.quarantine(replace(choice, after=found[-1].id, limit=PAGE))


def _not_replayed(row: SetAside, configured: set[str]) -> str:
    if row.state is not Aside.WAITING:
        return f"it is {row.state} already"
    if not row.row.kinds:
        return NO_KINDS
    if row.schema not in configured:
        return f"its schema {row.schema!r} is not configured"
    return ""


def offer_replays(
    settings: Settings, metadata: MetadataStore, places: Sequence[tuple[str, TableId]]
) -> list[str]:
    """Ask for the units at once.  Only a hint: the coordinator sees their markers anyway."""
    coordination = settings.coordination
    if coordination.redis_url is None:
        return ["no Redis is configured: the coordinator offers the units when it runs"]
    from warp.errands import ErrandQueue  # late: rq takes a while to import

    try:
        with contextlib.closing(
            ErrandQueue(coordination.redis_url, coordination.namespace)
        ) as errands:
            for schema, table in places:
                errands.submit(metadata, "replay", {"schema": schema, "table": str(table)})
    except (LedgerUnavailable, ConfigError) as error:
        return [f"the rows are marked, and the coordinator will offer their units: {error}"]
    return []


def _tell(verb: str, decision: Decision, *, apply: bool, as_json: bool) -> None:
    tables = sorted(decision.tables.items())
    if as_json:
        print_json(
            {
                "applied": apply,
                verb: sum(decision.tables.values()),
                "tables": [
                    {"schema": schema, "table": str(table), "rows": rows}
                    for (schema, table), rows in tables
                ],
                "left_out": [{"id": id, "why": why} for id, why in decision.left_out.items()],
                "notes": decision.notes,
            }
        )
        return
    if tables:
        heading = {"replay": "to replay", "discard": "discarded" if apply else "to discard"}[verb]
        print_table(
            ("schema", "table", heading),
            [(schema, table, rows) for (schema, table), rows in tables],
        )
    for id, why in decision.left_out.items():
        click.echo(f"left out: {id}: {plain(why)}", err=True)
    for note in decision.notes:
        click.echo(plain(note), err=True)
    if not tables:
        click.echo("nothing to do", err=True)
    elif not apply:
        click.echo("a dry run: nothing was changed; add --apply to do it", err=True)


def _no_such(ids: Sequence[int]) -> ConfigError:
    return ConfigError(
        f"expected ids of rows, as `quarantine list` shows them, found {', '.join(map(str, ids))}",
        place="ID",
    )


@contextlib.contextmanager
def _metadata(settings: Settings, assembly: Assembly | None) -> Iterator[MetadataStore | None]:
    """The metadata; None before the first start, for which nothing is created."""
    with contextlib.closing((assembly or Plugged(settings)).bookkeeping()) as destination:
        metadata = destination.metadata()
        if not metadata.prepared():
            yield None
            return
        metadata.prepare()
        yield metadata
