"""`cartridge-warp config show`: every value in force, and who gave it."""

from __future__ import annotations

import dataclasses
import json

import click
import yaml

from warp.config import Settings

_WIDEST = 72  # origins stand in one column; a longer value pushes only its own


def run(settings: Settings, *, as_json: bool) -> int:
    if as_json:
        values = [dataclasses.asdict(value) for value in settings.effective]
        click.echo(json.dumps({"digest": settings.digest, "values": values}))
        return 0
    lines = [(f"{v.path}: {_text(v.value)}", v.origin) for v in settings.effective]
    width = min(_WIDEST, max(len(line) for line, _ in lines))
    for line, origin in lines:
        # The default is what nobody has to look for.
        told = click.style(f"  # {origin}", dim=origin == "default")
        click.echo(f"{line:{width}}{told}")
    return 0


def _text(value: object) -> str:
    """As it would be written in YAML, on one line."""
    return (
        yaml.safe_dump(value, default_flow_style=True, width=10_000).removesuffix("...\n").strip()
    )
