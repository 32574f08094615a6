"""Writes `docs/configuration.md` from the models: `python -m warp.config.reference > FILE`.

A test compares the file with what this writes, so that no key goes without its line.
"""

from __future__ import annotations

import sys
import types
import typing
from collections.abc import Iterator
from enum import Enum
from typing import Any, Final

from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from warp import options, plugins
from warp.config import blocks

_HEAD: Final = """# Configuration

<!-- Written by `python -m warp.config.reference`; edit the models in warp/config/blocks.py. -->

One YAML or JSON file (`--config FILE`), environment variables, and flags. An unknown key, a value
of the wrong kind or a combination that cannot work is an error that names the place, and the
nearest key that exists; nothing starts. `cartridge-warp config show` prints every value in force
and who gave it, `cartridge-warp validate` also connects to both ends.

## Who wins

**default < file < environment < flag.** In the environment `CARTRIDGE_WARP_` and the path with
`__` between its steps name any key: `CARTRIDGE_WARP_SOURCE__DATABASE`,
`CARTRIDGE_WARP_SCHEMAS__0__MODE`; lists and blocks may be given as JSON. Short names:
`CARTRIDGE_WARP_CONFIG`, `_SOURCE` and `_DESTINATION` (connection strings), `_SCHEMA` (names with
commas between), `_MODE`, `_REDIS_URL`, `_LOG_LEVEL`.

**For settings of tables, the nearest level: default < global < schema < `tables:` of the file <
`tables:` of the schema.** Inside one `tables:` block patterns count in the order written and an
exact name wins over them. `batch_size` is a short form; at one level the long key wins over it.

## Values

* Durations: `500ms`, `2s`, `10m`, `1h30m`, `1d`; a plain number is seconds.
* `${NAME}` and `${NAME:-default}` are replaced from the environment; `$${` stands for `${`. A name
  that is not set and has no default is an error.
* Secrets: any of `connection_string`, `redis_url`, `password` and `privacy.key` may be given as
  `…_file: PATH` instead, the value being what the file holds. Secrets are shown as `***`
  everywhere.
* In a connection string, characters such as `/ : @ #` in the password are percent-encoded.
* A key that is written but left empty says nothing.
* A batch size of `auto` follows the load, one unit at a time: it starts at the default, grows to
  10,000 rows while more is ready than a batch holds, and shrinks to 100 where a transaction takes
  longer than 50 ms (half a second while there is a backlog). Whatever the size, a batch is what is
  ready now: nothing waits for it to fill. A poll keeps the default. In mode `stream`,
  `batch_size: auto` stands for all three sizes. Into BigQuery all sizes are `auto` unless you say
  otherwise, begin at 50,000 rows and grow to 200,000.

## What a schema's name means

The source's namespace of that name (MongoDB or MySQL database, PostgreSQL schema, BigQuery
dataset) with all its tables; else, in `source.database`, the tables listed under `tables:`, or
the one table of that name. `tables:` narrows; patterns are allowed and `!name` leaves out. To say
something about a table without narrowing, use `tables:` at the top of the file.

`mode: stream` carries changes all the time; its changes come from the log unless a strategy is
named. `mode: batch` runs on its `schedule`, or every `polling_interval`, and looks at
`updated_at` unless a strategy is named; a `log` named for the whole source does not bind it.
"""

_PHRASES: Final = {
    options.Duration: "duration",
    options.PositiveDuration: "duration above 0",
    options.Size: "size such as 16MB",
    options.Count: "whole number above 0",
    options.Natural: "whole number",
    options.Port: "port",
    options.Factor: "number of at least 1",
    options.Share: "share such as 5%",
    options.Text: "text",
    blocks.BatchSize: "whole number above 0, or `auto`",
    blocks.Switch: "true, false",
    blocks.Timezone: "time zone",
    blocks.Cron: "cron expression",
    blocks.RedisUrl: "secret URL",
    options.Secret: "secret text",
    blocks.PrivacyKey: "secret text",
    blocks.LedgerNamespace: "name",
    blocks.Tables: "list or block",
}

SECTIONS: Final[tuple[tuple[str, str, type[BaseModel]], ...]] = (
    ("`source:`", "The connector's own keys, below, stand beside these.", blocks.SourceBlock),
    (
        "`destination:`",
        "The connector's own keys, below, stand beside these. `deletion_strategy` and "
        "`soft_delete_column` may stand here too.",
        blocks.DestinationBlock,
    ),
    ("`schemas:`, each", "Also every setting of tables, below.", blocks.SchemaBlock),
    ("`tables:`, each", "Also every setting of tables, below.", blocks.TableBlock),
    (
        "Settings of tables",
        "At the top of the file, in a schema, or in a table.",
        blocks.TableKeys,
    ),
    (
        "`change_detection:`",
        "In `source`, in a schema, or in a table.",
        blocks.ChangeDetection,
    ),
    ("`verify:`", "At the top of the file, in a schema, or in a table.", blocks.Verify),
    (
        "`privacy:`",
        "At the top of the file; in a schema or in a table without the `key`.",
        blocks.Privacy,
    ),
    ("`monitoring.prometheus:`", "", blocks.Prometheus),
    ("`monitoring.logging:`", "", blocks.Logging),
    ("`error_handling:`", "", blocks.ErrorHandling),
    ("`coordination:`", "", blocks.Coordination),
)


def page() -> str:
    return "\n".join([_HEAD, *_parts()]) + "\n"


def _parts() -> Iterator[str]:
    yield "## The file\n"
    yield from _table(blocks.Configuration, without=blocks.TableKeys)
    for heading, text, model in SECTIONS:
        yield f"\n## {heading}\n"
        if text:
            yield f"{text}\n"
        inherited = blocks.TableKeys if model is not blocks.TableKeys else None
        yield from _table(model, without=inherited)
    for side, find in (("source", plugins.source), ("destination", plugins.destination)):
        for name in plugins.installed(side):  # type: ignore[arg-type]  # a Literal in a loop
            yield f"\n## `{side}:` of type `{name}`\n"
            yield from _table(find(name).Options, without=blocks.DestinationBlock)


def _table(model: type[BaseModel], *, without: type[BaseModel] | None = None) -> Iterator[str]:
    yield "| key | value | default | meaning |"
    yield "|---|---|---|---|"
    left_out = set(without.model_fields) if without and model is not without else set()
    for name, field in model.model_fields.items():
        if name not in left_out:
            cells = (f"`{field.alias or name}`", _kind(field), _default(field), _meaning(field))
            yield "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _meaning(field: FieldInfo) -> str:
    return field.description or "see below"


def _default(field: FieldInfo) -> str:
    value = field.get_default(call_default_factory=False)
    if value is PydanticUndefined:
        return "required"
    if value is None or isinstance(value, BaseModel) or value in ({}, []):
        return ""
    if isinstance(value, Enum):
        return f"`{value.value}`"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, float):
        value = f"{value:g}s" if _kind(field).startswith("duration") else f"{value:g}"
    return f"`{value}`"


def _kind(field: FieldInfo) -> str:
    found = _phrase(field.annotation, field.metadata)
    return found or "text"


def _phrase(annotation: Any, metadata: list[Any]) -> str:
    if metadata:
        for known, phrase in _PHRASES.items():
            if set(map(id, known.__metadata__)) & set(map(id, metadata)):  # type: ignore[attr-defined]
                return phrase
    origin = typing.get_origin(annotation)
    if origin in (types.UnionType, typing.Union):
        inner = [a for a in typing.get_args(annotation) if a is not type(None)]
        return _phrase(inner[0], metadata)
    if origin is typing.Annotated:
        inner_type, *inner_metadata = typing.get_args(annotation)
        return _phrase(inner_type, [*inner_metadata, *metadata])
    if origin is dict:
        return "block"
    if origin is list:
        return "list"
    if isinstance(annotation, type):
        if issubclass(annotation, Enum):
            return ", ".join(f"`{choice.value}`" for choice in annotation)
        if issubclass(annotation, BaseModel):
            return "block"
        if issubclass(annotation, SecretStr):
            return "secret text"
        if annotation is bool:
            return "true, false"
        if annotation in (int, float):
            return "number"
    return ""


if __name__ == "__main__":
    sys.stdout.write(page())
