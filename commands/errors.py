"""`cartridge-warp errors`: what went wrong, and what became of cells that did not fit."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import Any

import click

from commands.choosing import (
    LIMIT,
    NEWER,
    OLDER,
    TABLE,
    age,
    choice_of,
    moment,
    print_json,
    print_table,
)
from commands.cli import JSON, asking
from warp import startup
from warp.assembly import Assembly, Plugged
from warp.config import Settings
from warp.model import Choice, ErrorLine


@click.command()
@TABLE
@click.option("--code", default="", metavar="CODE", help="Only of this code, such as WARP-510.")
@click.option("--reason", default="", metavar="TEXT", help="Only what says this.")
@OLDER
@NEWER
@LIMIT
@JSON
@asking
def errors(settings: Settings, limit: int, as_json: bool, **given: Any) -> int:
    """The error log, the latest first.

    A line about cells counts them all: of one table, column, outcome and type met.
    """
    return run(settings, choice_of(given), limit=limit, as_json=as_json)


def run(
    settings: Settings,
    choice: Choice,
    *,
    limit: int,
    as_json: bool,
    assembly: Assembly | None = None,
) -> int:
    with contextlib.closing((assembly or Plugged(settings)).bookkeeping()) as destination:
        metadata = destination.metadata()
        lines: list[ErrorLine] = []
        if metadata.prepared():  # who may only look is answered before the first start too
            metadata.prepare()
            lines = metadata.errors(replace(choice, limit=limit + 1))
    more, lines = len(lines) > limit, lines[:limit]
    if as_json:
        print_json({"errors": [_described(line) for line in lines], "more": more})
        return startup.DONE
    if not lines:
        click.echo("no errors", err=True)
        return startup.DONE
    print_table(
        ("id", "last", "code", "about", "cells", "message", "action"),
        [
            (
                line.id,
                age(line.last_at),
                line.code,
                _about(line),
                "" if line.cells is None else line.cells,
                line.message,
                line.action,
            )
            for line in lines
        ],
    )
    if more:
        click.echo(f"the latest {limit}; there are more, see --limit", err=True)
    return startup.DONE


def _about(line: ErrorLine) -> str:
    if line.table is None:
        return line.unit
    return f"{line.table}.{line.column}" if line.column else str(line.table)


def _described(line: ErrorLine) -> dict[str, Any]:
    return {
        "id": line.id,
        "at": moment(line.at),
        "last_at": moment(line.last_at),
        "code": line.code,
        "class": line.error_class,
        "message": line.message,
        "schema": line.schema,
        "unit": line.unit,
        "table": None if line.table is None else str(line.table),
        "column": line.column,
        "key": line.key,
        "position": line.position,
        "action": line.action,
        "cells": line.cells,
        "original_length": line.original_length,
    }
