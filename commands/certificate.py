"""`verify --certificate FILE` and `verify --check FILE`: proof that both sides were equal."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from pathlib import Path

import click

import warp
from commands.choosing import moment, print_json, print_table
from commands.comparing import Side, metadata_of
from warp import startup
from warp.assembly import Assembly
from warp.comparison import Comparison
from warp.config import Settings
from warp.digest import certificate
from warp.digest.certificate import Certificate, Page, Place
from warp.digest.seams import Compared, Pass, compared_destination
from warp.errors import ConfigError
from warp.model import Marker, TableId, UnitKind, WorkUnit


def write(settings: Settings, found: Sequence[Side], passes: Sequence[Pass], file: Path) -> None:
    """What the destination has now, of tables that were just found equal to their source."""
    pages: list[Page] = []
    streams: dict[str, Marker] = {}
    verdicts = {(p.schema, p.table): p for p in passes}
    for side in found:
        compared = [_compared(side, p) for p in passes if p.schema == side.schema]
        comparing = compared_destination(side.destination, side.tables[0]).comparing()
        # Before the sums: what a run has brought since then it has moved on by.
        streams |= _polls(side)
        sums, markers = comparing.together(compared)
        streams |= {m.unit.id: m for m in markers if m.unit.schema in (side.schema, "*")}
        for of, digest in zip(compared, sums, strict=True):
            table = of.schema.table
            settings_of = side.settings(table)
            verdict = verdicts[side.schema, table]
            pages.append(
                Page(
                    schema=side.schema,
                    source=(table.namespace, table.name),
                    destination=(settings_of.destination.namespace, settings_of.destination.name),
                    columns=tuple((c.name, c.kind.value) for c in of.columns),
                    soft_delete_column=settings_of.soft_delete_column,
                    rows=digest.rows,
                    digest=str(digest),
                    pass_number=verdict.number,
                    oldest_verdict=verdict.oldest or 0.0,
                    newest_verdict=verdict.newest or 0.0,
                )
            )
    text = certificate.written(
        Certificate(
            written_at=time.time(),
            version=warp.__version__,
            configuration=settings.digest,
            source=settings.source.location,
            destination=settings.destination.location,
            streams=tuple(map(_place, streams.values())),
            tables=tuple(pages),
        )
    )
    file.write_text(text, encoding="utf-8")
    click.echo(f"written: {file}", err=True)


def _polls(side: Side) -> dict[str, Marker]:
    """Those that bring changes of tables which no stream does."""
    found = side.destination.metadata().markers((UnitKind.POLL,))
    return {m.unit.id: m for m in found if m.unit.schema == side.schema and m.position}


def _compared(side: Side, of: Pass) -> Compared:
    unit = WorkUnit.of_table(side.schema, of.table)
    return Comparison.of(side.ends(), unit, of.table).compared


def _place(marker: Marker) -> Place:
    position = marker.position.token if marker.position else None
    return Place(marker.unit.id, position, marker.batch, marker.rows, marker.fence, marker.epoch)


def check(settings: Settings, assembly: Assembly, file: Path, *, as_json: bool) -> int:
    """Read every row of the certificate's tables and sum them up anew."""
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeError) as error:
        raise ConfigError(
            f"expected a certificate that can be read, found {error}", place=str(file)
        ) from None
    found = certificate.read(text, place=str(file))
    with contextlib.closing(assembly.bookkeeping()) as destination:
        metadata = metadata_of(destination)
        followers = metadata.markers((UnitKind.STREAM, UnitKind.POLL))
        rows_of = {m.unit.id: m.rows for m in followers}
        moved_on = any(rows_of.get(place.unit) != place.rows for place in found.streams)
        results = []
        for page in found.tables:
            table = TableId(*page.source)
            comparing = compared_destination(destination, table).comparing()
            rows, digest = comparing.recount(
                page.destination, page.columns, page.soft_delete_column
            )
            results.append((page, rows, digest == page.digest))
    equal = all(same for _, _, same in results)
    if as_json:
        print_json(
            {
                "equal": equal,
                "written_at": moment(found.written_at),
                "same_configuration": found.configuration == settings.digest,
                "moved_on": moved_on,
                "tables": [
                    {
                        "table": ".".join(page.source),
                        "rows": page.rows,
                        "rows_now": rows,
                        "equal": same,
                    }
                    for page, rows, same in results
                ],
            }
        )
    else:
        print_table(
            ("table", "rows", "rows now", "as certified"),
            [
                (".".join(page.source), page.rows, rows, "yes" if same else "no")
                for page, rows, same in results
            ],
        )
        if moved_on and not equal:
            click.echo(
                "changes have been brought since the certificate was written, so rows may have "
                "changed rightly; `cartridge-warp verify` compares with the source",
                err=True,
            )
    return startup.DONE if equal else startup.DIFFERENT
