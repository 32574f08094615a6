"""`cartridge-warp doctor`: what of the servers fits our work, what does not, and what mends it."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from coordinator.leader import namespace_of
from warp import headroom, native, startup
from warp.assembly import Assembly, Plugged
from warp.config import Settings
from warp.errors import ConfigError, TransientError, WarpError
from warp.model import SHARED, Diagnosis, Position, UnitKind, Verdict, WorkUnit
from warp.streams import stream_of

_STYLES: Final = {Verdict.OK: "green", Verdict.WARNING: "yellow", Verdict.FAILED: "bold red"}


@dataclass(frozen=True, slots=True)
class Found:
    """A finding, and what it is about."""

    # `source`, or `source (orders)` where not all schemas share it; `destination`, `ledger`; and
    # `program`: this installation.
    where: str
    diagnosis: Diagnosis


def run(settings: Settings, *, as_json: bool, assembly: Assembly | None = None) -> int:
    found = list(examine(settings, assembly or Plugged(settings)))
    if as_json:
        click.echo(json.dumps(as_data(found)))
    elif sys.stdout.isatty():
        show(found, Console(highlight=False))
    else:
        click.echo("\n".join(lines(found)))
    failed = any(one.diagnosis.verdict is Verdict.FAILED for one in found)
    return startup.FAILED if failed else startup.DONE


# Asking


def examine(settings: Settings, assembly: Assembly) -> Iterator[Found]:
    """All three servers, also after one of them failed, and this installation."""
    schemas = [schema.name for schema in settings.schemas]
    for side, open_ in (("source", assembly.source), ("destination", assembly.destination)):
        yield from shared(side, schemas, ask_each(schemas, open_))
    yield from _streams(assembly, schemas)
    yield from (Found("ledger", one) for one in ask("ledger", lambda: _ledger(settings)))
    yield Found("program", _program())


def _streams(assembly: Assembly, schemas: Sequence[str]) -> Iterator[Found]:
    """How much of the log is left behind each stream that has begun."""
    sharing = assembly.sharing()
    try:
        begun = _begun(assembly)
    except WarpError:
        return  # the destination's own findings say why
    for stream in dict.fromkeys(stream_of(schema, sharing) for schema in schemas):
        position = begun.get(stream.id)
        if position is None:
            continue
        carried = sharing if stream.schema == SHARED else (stream.schema,)

        def look(
            stream: WorkUnit = stream, position: Position = position, first: str = carried[0]
        ) -> list[Diagnosis]:
            with contextlib.closing(assembly.source(first)) as source:
                found = headroom.ask(source, position)
            return [] if found is None else [headroom.diagnosis(stream.id, found, first)]

        where = "source" if set(carried) == set(schemas) else f"source ({', '.join(carried)})"
        yield from (Found(where, one) for one in ask("server", look))


def _begun(assembly: Assembly) -> dict[str, Position]:
    """Where the streams stand; nothing is made for it."""
    with contextlib.closing(assembly.bookkeeping()) as destination:
        metadata = destination.metadata()
        markers = metadata.markers((UnitKind.STREAM,)) if metadata.prepared() else []
    return {m.unit.id: m.position for m in markers if m.position is not None}


def _program() -> Diagnosis:
    """Which half of the hot paths is at work: it decides what a row costs."""
    expected = "compiled"
    if native.active():
        return Diagnosis("native", Verdict.OK, "decoders", expected, expected)
    return Diagnosis(
        "native",
        Verdict.WARNING,
        "decoders",
        f"{expected}: several times the rows per CPU-second",
        f"plain Python ({native.missing})",
        "install from a wheel, or with a C compiler there; unset CARTRIDGE_WARP_PURE",
    )


def ask_each(schemas: Sequence[str], open_: Callable[[str], Any]) -> dict[str, list[Diagnosis]]:
    """The findings by schema; of a server that is away only those of the first that asked."""
    found: dict[str, list[Diagnosis]] = {}
    for schema in schemas:
        away: list[WarpError] = []

        def look(schema: str = schema) -> list[Diagnosis]:
            with contextlib.closing(open_(schema)) as connector:
                diagnoses: list[Diagnosis] = connector.diagnose()
                return diagnoses

        found[schema] = ask("server", look, away.append)
        if away and isinstance(away[0], TransientError):
            return dict.fromkeys(schemas, found[schema])
    return found


def ask(
    subject: str,
    look: Callable[[], list[Diagnosis]],
    tell: Callable[[WarpError], None] = lambda error: None,
) -> list[Diagnosis]:
    """What a look finds; that it cannot be asked is a finding too."""
    try:
        return look()
    except ConfigError:
        raise  # exit code 2: a person must edit something
    except WarpError as error:
        tell(error)
        expected = "a server that can be asked"
        return [
            Diagnosis(error.code, Verdict.FAILED, subject, expected, error.message, error.advice)
        ]


def _ledger(settings: Settings) -> list[Diagnosis]:
    coordination = settings.coordination
    if coordination.redis_url is None:
        return [
            Diagnosis("redis-url", Verdict.OK, "server", "Redis", "none: one of our own is started")
        ]
    found: list[Diagnosis] = []
    for namespace in (coordination.namespace, namespace_of(coordination.namespace)):
        with contextlib.closing(startup.open_ledger(settings, namespace)) as ledger:
            found += [one for one in ledger.diagnose() if one not in found]
    return found


def shared(
    side: str, schemas: Sequence[str], found: Mapping[str, Sequence[Diagnosis]]
) -> Iterator[Found]:
    """Each finding once, in the order met, with the schemas it is about unless it is all."""
    about: dict[Diagnosis, list[str]] = {}
    for schema in schemas:
        for one in found[schema]:
            named = about.setdefault(one, [])
            if schema not in named:
                named.append(schema)
    for one, named in about.items():
        where = side if len(named) == len(schemas) else f"{side} ({', '.join(named)})"
        yield Found(where, one)


# Telling


def as_data(found: Sequence[Found]) -> dict[str, Any]:
    """What `--json` prints."""
    return {
        "ok": not _count(found, Verdict.FAILED),
        "failed": _count(found, Verdict.FAILED),
        "warnings": _count(found, Verdict.WARNING),
        "findings": [
            {
                "where": one.where,
                "code": one.diagnosis.code,
                "verdict": one.diagnosis.verdict.value,
                "subject": one.diagnosis.subject,
                "expected": one.diagnosis.expected,
                "found": one.diagnosis.found,
                "mend": one.diagnosis.mend,
            }
            for one in found
        ],
    }


def lines(found: Sequence[Found]) -> Iterator[str]:
    """For a pipe: a line for each finding, and below it what mends it."""
    width = max((len(one.where) for one in found), default=0)
    for one in found:
        it = one.diagnosis
        told = it.found if it.verdict is Verdict.OK else f"expected {it.expected}, found {it.found}"
        told = " ".join(f"{it.subject}: {told}".split())
        yield f"{it.verdict.value:7}  {one.where:{width}}  {it.code}  {told}"
        if it.mend:
            yield f"{'':7}  {'':{width}}  mend: {' '.join(it.mend.split())}"
    yield summary(found)


def show(found: Sequence[Found], console: Console) -> None:
    """For a terminal: a table, then the statements that mend, whole, to be copied."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("", "where", "about", "found"):
        table.add_column(heading, overflow="fold")
    for one in found:
        it = one.diagnosis
        told = it.found if it.verdict is Verdict.OK else f"expected {it.expected}; {it.found}"
        table.add_row(
            Text(it.verdict.value, style=_STYLES[it.verdict]),
            Text(one.where),
            Text(it.subject),
            Text(told),
        )
    console.print(table)
    for one in _to_mend(found):
        it = one.diagnosis
        console.print()
        console.print(Text(f"{it.code}, {one.where}, {it.subject}", style=_STYLES[it.verdict]))
        console.print(Text(it.mend), soft_wrap=True)
    console.print()
    console.print(Text(summary(found)))


def summary(found: Sequence[Found]) -> str:
    failed, warnings = _count(found, Verdict.FAILED), _count(found, Verdict.WARNING)
    return f"{len(found)} findings: {failed} failed, {warnings} warnings"


def _to_mend(found: Iterable[Found]) -> list[Found]:
    return [one for one in found if one.diagnosis.mend]


def _count(found: Iterable[Found], verdict: Verdict) -> int:
    return sum(one.diagnosis.verdict is verdict for one in found)
