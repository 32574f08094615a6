"""The configuration as it is written: one pydantic model per block, the border of the system.

Nothing inside reads these; `warp.config.settings` turns them into frozen dataclasses.  A field
that was not written is not in `model_fields_set`, which is how the levels of table settings
(global, schema, table) know what each of them says.
"""

from __future__ import annotations

import re
import zoneinfo
from collections.abc import Mapping
from dataclasses import fields
from enum import StrEnum
from typing import Annotated, Any, Final

from pydantic import BeforeValidator, Field, SecretStr, model_validator
from pydantic_core import PydanticCustomError

from warp.errors import ConfigError
from warp.model import (
    Capture,
    Cover,
    DocumentColumn,
    Handling,
    Kind,
    MissingColumn,
    Shape,
    SnapshotMode,
    TableSettings,
)
from warp.options import (
    Block,
    Count,
    Duration,
    Factor,
    Natural,
    Port,
    PositiveDuration,
    Secret,
    Share,
    Size,
    Text,
    expected,
)
from warp.schedule import CatchUp, Schedule

_TABLE_DEFAULTS: Final = {f.name: f.default for f in fields(TableSettings)}


def _default(name: str) -> Any:
    """One place holds the default of a table setting: `warp.model.TableSettings`."""
    return _TABLE_DEFAULTS[name]


class Mode(StrEnum):
    """When a schema's changes are carried."""

    STREAM = "stream"  # all the time
    BATCH = "batch"  # on a schedule, or every polling interval


class RunMode(StrEnum):
    """How many schemas one process tree serves."""

    SINGLE = "single"
    MULTI = "multi"


class Deletion(StrEnum):
    HARD = "hard"
    SOFT = "soft"


class LogFormat(StrEnum):
    AUTO = "auto"  # console on a terminal, else json
    JSON = "json"
    CONSOLE = "console"


class LogLevel(StrEnum):
    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


def _one_of(choices: type[StrEnum], *some: StrEnum) -> BeforeValidator:
    names = [c.value for c in some or choices]

    def check(value: object) -> object:
        if isinstance(value, choices):
            return value
        if isinstance(value, str) and value.strip().lower() in names:
            return choices(value.strip().lower())
        raise expected("one of " + ", ".join(names))

    return BeforeValidator(check)


def _switch(value: object) -> bool:
    if isinstance(value, bool):
        return value
    # From the environment everything is text.
    if isinstance(value, str) and value.lower() in ("true", "false"):
        return value.lower() == "true"
    raise expected("true or false")


def _timezone(value: object) -> str:
    if value == "UTC":  # known also where the system has no time zone data
        return "UTC"
    if isinstance(value, str):
        try:
            zoneinfo.ZoneInfo(value)
        except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
            pass
        else:
            return value
    raise expected("a time zone such as UTC or Europe/Berlin")


def _schedule(value: object) -> str:
    from croniter import croniter  # late: a tenth of a second that few configurations need

    text = value.strip() if isinstance(value, str) else ""
    fields_ok = text.startswith("@") or len(text.split()) == 5
    if not (fields_ok and croniter.is_valid(text)):
        raise expected("a cron expression of five fields such as '*/15 * * * *'")
    try:
        Schedule(text).next(0.0)
    except ConfigError:  # such as 31 February
        raise expected("a cron expression that names a day that comes") from None
    return text


_REDIS_SCHEMES: Final = (
    "redis://",
    "rediss://",
    "unix://",
    "redis+cluster://",
    "rediss+cluster://",
)
_TLS_OF_REDIS: Final = re.compile(r"\?(?:.*&)?ssl_")


def _redis_url(value: object) -> object:
    if isinstance(value, str) and not value.startswith(_REDIS_SCHEMES):
        raise expected("a URL that starts with redis://, rediss:// or unix://")
    if isinstance(value, str) and not value.startswith("rediss") and _TLS_OF_REDIS.search(value):
        raise expected("rediss:// in a URL with parameters of TLS: with redis:// it goes in clear")
    return value


def _namespace(value: object) -> str:
    # It becomes part of Redis keys, between braces that choose the hash slot.
    if not isinstance(value, str) or not re.fullmatch(r"[A-Za-z0-9_.-]{1,64}", value):
        raise expected("at most 64 letters, digits, '_', '.' and '-'")
    return value


Switch = Annotated[bool, BeforeValidator(_switch)]
Timezone = Annotated[str, BeforeValidator(_timezone)]
Cron = Annotated[str, BeforeValidator(_schedule)]
RedisUrl = Annotated[Secret, BeforeValidator(_redis_url)]
LedgerNamespace = Annotated[str, BeforeValidator(_namespace)]
CaptureName = Annotated[Capture, _one_of(Capture)]
DocumentColumnName = Annotated[DocumentColumn, _one_of(DocumentColumn)]
ShapeName = Annotated[Shape, _one_of(Shape)]
SnapshotName = Annotated[SnapshotMode, _one_of(SnapshotMode)]
DeletionName = Annotated[Deletion, _one_of(Deletion)]
KindName = Annotated[Kind, _one_of(Kind)]
Level = Annotated[LogLevel, _one_of(LogLevel)]


def _batch_size(value: object) -> int | str:
    if isinstance(value, str) and value.strip().lower() == AUTO:
        return AUTO
    if isinstance(value, int) and not isinstance(value, bool):
        number: int | None = value
    else:
        number = int(value) if isinstance(value, str) and value.strip().isdecimal() else None
    if number is None or number < 1:
        raise expected("a whole number above 0, or auto")
    return number


AUTO: Final = "auto"
BatchSize = Annotated[int | str, BeforeValidator(_batch_size)]


class ChangeDetection(Block):
    """How changes are found where no log is followed."""

    column: Text = Field(
        default=_default("timestamp_column"),
        description="column that holds the time of the last change",
    )
    strategy: CaptureName | None = Field(
        default=None,
        description="`log`, `timestamp`, `trigger` or `hash`; "
        "`log` in mode `stream`, `timestamp` in mode `batch` where not given",
    )
    timezone: Timezone = Field(
        default=_default("timezone"), description="time zone of timestamps that carry none"
    )
    overlap: Duration | None = Field(
        default=None,
        description="how much of the column's newest time each run reads again, for clocks that "
        "differ; `5s` where not given, and `60s` where the server does not tell how long its "
        "transactions have been open",
    )


_H: Final = Handling
_LAST: Final = (_H.EXTRA, _H.SKIP, _H.SET_NULL, _H.QUARANTINE, _H.STOP)
Wider = Annotated[Handling, _one_of(Handling, _H.WIDEN, *_LAST)]
Narrower = Annotated[Handling, _one_of(Handling, _H.TEXT, *_LAST)]
TooLong = Annotated[Handling, _one_of(Handling, _H.TRUNCATE, _H.TEXT, *_LAST)]
Drastic = Annotated[Handling, _one_of(Handling, _H.TEXT, *_LAST)]
Unreadable = Annotated[Handling, _one_of(Handling, *_LAST)]


class PolicyKeys(Block):
    """What to do with values that do not fit their column; see docs/types.md."""

    on_wider: Wider | None = Field(
        default=None,
        description="a value the column could be widened for: `widen` (the default), `extra`, "
        "`skip`, `set_null`, `quarantine` or `stop`",
    )
    on_narrower: Narrower | None = Field(
        default=None,
        description="a value of another family: `text` changes the column to text (the default "
        "for tables without `_extra`), `extra` keeps it there (the default with it), `skip`, "
        "`set_null`, `quarantine` or `stop`",
    )
    on_too_long: TooLong | None = Field(
        default=None,
        description="text beyond the destination's own limit: `truncate` (the default), `text` "
        "lifts the limit, `extra`, `skip`, `set_null`, `quarantine` or `stop`",
    )
    on_drastic: Drastic | None = Field(
        default=None,
        description="an object or array for a scalar column: `skip` leaves the column as it is "
        "and keeps the original in quarantine (the default without `_extra`), `extra` (the "
        "default with it), `text`, `set_null`, `quarantine` or `stop`",
    )
    on_invalid: Unreadable | None = Field(
        default=None,
        description="a value its own source or this destination cannot read: `set_null` (the "
        "default; `extra` where there is one), `skip`, `quarantine` or `stop`",
    )


class ColumnBlock(PolicyKeys):
    """One column."""

    kind: KindName | None = Field(default=None, description="fixed by hand, not found by a sample")


def _column(value: object) -> object:
    """A kind alone is the short form."""
    return {"kind": _kind_named(value)} if isinstance(value, str) else value


def _kind_named(value: str) -> object:
    return _one_of(Kind).func(value)  # type: ignore[call-arg]


ColumnSetting = Annotated[ColumnBlock, BeforeValidator(_column)]


class TableKeys(PolicyKeys):
    """What may be said for all tables, for those of a schema, and for one table."""

    batch_size: BatchSize | None = Field(
        default=None,
        description="short form: `stream_batch_size` in mode `stream`; `full_load_batch_size`, "
        "`write_batch_size` and `stream_batch_size` together in mode `batch`, and where it is "
        "`auto`. At one level the long key wins over the short one",
    )
    stream_batch_size: BatchSize = Field(
        default=_default("stream_batch_size"), description="changes read at once"
    )
    full_load_batch_size: BatchSize = Field(
        default=_default("full_load_batch_size"), description="rows of one snapshot transaction"
    )
    write_batch_size: BatchSize = Field(
        default=_default("write_batch_size"), description="rows of one stream or poll transaction"
    )
    polling_interval: PositiveDuration = Field(
        default=_default("polling_interval"),
        description="time between two looks of a polled strategy; logs wait on the server instead",
    )
    chunk_rows: Count = Field(
        default=_default("chunk_rows"), description="rows of one snapshot chunk, about"
    )
    deletion_strategy: DeletionName = Field(
        default=Deletion.HARD, description="`hard` removes the row, `soft` sets a flag"
    )
    soft_delete_column: Text = Field(default="is_deleted", description="the flag's column")
    snapshot: SnapshotName = Field(
        default=_default("snapshot"),
        description="`concurrent`: the stream runs from the first moment; `serial`: it waits for "
        "the table's last chunk; `never`: no initial rows",
    )
    shape: ShapeName = Field(
        default=_default("shape"),
        description="documents as `typed` columns, as one `document` column, or `both`",
    )
    document_column: DocumentColumnName = Field(
        default=_default("document_column"),
        description="whole documents as `jsonb`, or as `json`, which keeps the order of fields, "
        "repeated names and NUL; of tables made from now on",
    )
    max_columns: Natural = Field(
        default=_default("max_columns"),
        description="typed columns of a table; the rest is in `_extra`",
    )
    rewrite_limit: Size = Field(
        default=_default("rewrite_limit"),
        description="a larger table is not rewritten to widen a column: what does not fit is kept "
        "beside it, and the error log has the statement to run at a quiet hour",
    )
    promote_after: Duration = Field(
        default=_default("promote_after"),
        description="time between a field's first sight and its column",
    )
    deferred_max_age: PositiveDuration = Field(
        default=_default("deferred_max_age"),
        description="how long a row that a foreign key or a unique constraint of the destination "
        "refuses waits for the other row, before it is quarantined",
    )
    deferred_max_tries: Count = Field(
        default=_default("deferred_max_tries"),
        description="how often such a row is tried in that time; once a second at most",
    )

    @model_validator(mode="after")
    def _one_name_per_setting(self) -> TableKeys:
        said = self.model_fields_set
        if {"batch_size", "stream_batch_size"} <= said:
            raise PydanticCustomError(
                "both", "batch_size and stream_batch_size name the same setting; keep one"
            )
        return self


class Verify(Block):
    """When tables are compared with their source, see docs/operations/verify.md."""

    every: PositiveDuration | None = Field(
        default=None,
        description="how long after one comparison began the next one begins; "
        "only on demand (`cartridge-warp verify`) where not given",
    )
    budget: Share = Field(
        default=_default("verify_budget"),
        description="the share of the time that a comparison works, such as `5%`; it rests for "
        "the others",
    )
    rate: Count | None = Field(
        default=None,
        description="rows a second that one key range's comparison reads at the source, about; "
        "several may be compared at once, by as many workers",
    )
    masked: list[Text] = Field(
        default=[], description="columns whose values `cartridge-warp repair` does not show"
    )


CoverName = Annotated[Cover, _one_of(Cover)]
MissingName = Annotated[MissingColumn, _one_of(MissingColumn)]


class PrivacyRules(Block):
    """Values that are covered before they leave the source, see docs/privacy.md."""

    columns: dict[str, CoverName] = Field(
        default={},
        description="by source field, or by the path of a field inside of it (`address.street`): "
        "`hash`, `mask`, `tokenise` or `drop`; `keep` where a wider rule says otherwise",
    )
    missing: MissingName | None = Field(
        default=None,
        description="a rule that names nothing of a table: `stop` its unit, or `warn`; `stop` "
        "where not given, for columns named for that very table; `warn` for others, and for "
        "fields of documents",
    )


def _privacy_key(value: object) -> object:
    if not isinstance(value, str | SecretStr) or len(value) < _SHORTEST_KEY:
        raise expected(f"at least {_SHORTEST_KEY} characters, such as `openssl rand -hex 32` makes")
    return value


_SHORTEST_KEY: Final = 16
PrivacyKey = Annotated[SecretStr, BeforeValidator(_privacy_key)]


class Privacy(PrivacyRules):
    """At the top of the file also the key, which all rules share."""

    key: PrivacyKey | None = Field(
        default=None,
        description="of `hash` and `tokenise`, 16 characters or more; with another key all "
        "values change",
    )


class OverrideKeys(TableKeys):
    """What a schema or a table may say beyond that; globally it stands in another block."""

    dead_letter_queue: Switch = Field(
        default=_default("dead_letter_queue"),
        description="set rows that cannot be written aside; `false`: stop the unit instead",
    )
    change_detection: ChangeDetection = Field(
        default=ChangeDetection(), description="overrides `source.change_detection`"
    )
    verify: Verify = Field(default=Verify(), description="overrides `verify` at the top level")
    privacy: PrivacyRules = Field(
        default=PrivacyRules(), description="added to `privacy` at the top level, and stronger"
    )


class TableBlock(OverrideKeys):
    """Settings of one table, or of the tables a pattern matches."""

    columns: dict[str, ColumnSetting] = Field(
        default={},
        description="columns by source field: a kind fixed by hand (`{price: decimal}`), or a "
        "block with `kind` and `on_…`",
    )
    destination_table: Text | None = Field(
        default=None, description="name at the destination; the source's name where not given"
    )


def _tables(value: object) -> object:
    """A list of names is a mapping without overrides."""
    if isinstance(value, str):
        value = [value]
    if isinstance(value, Mapping):
        return value
    if not isinstance(value, list):
        raise expected("a list of table names, or a block with settings by table name")
    named: dict[str, object] = {}
    for item in value:
        entry = dict(item) if isinstance(item, Mapping) else {"name": item}
        name = entry.pop("name", None)
        if not isinstance(name, str) or not name:
            raise expected("table names, or blocks that each have a `name`")
        if name in named:
            raise PydanticCustomError("both", "table {name} is listed twice", {"name": repr(name)})
        named[name] = entry
    return named


Tables = Annotated[dict[str, TableBlock], BeforeValidator(_tables)]


class SchemaBlock(OverrideKeys):
    """A named group of tables."""

    name: Text = Field(
        description="the source namespace of that name (database, PostgreSQL schema), else the "
        "table of that name in `source.database`"
    )
    mode: Annotated[Mode, _one_of(Mode)] = Field(
        default=Mode.STREAM,
        description="`stream` carries changes all the time, `batch` on a schedule",
    )
    schedule: Cron | None = Field(
        default=None,
        description="cron expression, read in `change_detection.timezone`; mode `batch` without "
        "one runs every "
        "`polling_interval`",
    )
    catch_up: Annotated[CatchUp, _one_of(CatchUp)] = Field(
        default=CatchUp.LATEST,
        description="slots of the schedule that passed while nothing could run: `latest` makes "
        "them up by one run at once, `skip` waits for the next slot; see docs/operations/batch.md",
    )
    tables: Tables = Field(
        default={},
        description="tables to carry, all where not given: names or patterns (`*`, `?`, `[ab]`; "
        "`!name` leaves out), as a list, or as a mapping with settings for each",
    )
    destination_schema: Text | None = Field(
        default=None, description="overrides `destination.schema` for this schema's tables"
    )

    @model_validator(mode="after")
    def _schedule_and_log_fit_the_mode(self) -> SchemaBlock:
        if self.mode is Mode.STREAM and self.schedule:
            raise PydanticCustomError(
                "both", "a schedule needs mode: batch, found mode: stream; remove one of them"
            )
        if self.schedule is None and "catch_up" in self.model_fields_set:
            raise PydanticCustomError(
                "both", "catch_up is about the slots of a schedule, found none; add a schedule"
            )
        strategies = {
            "change_detection": self.change_detection.strategy,
            **{f"tables.{n}": t.change_detection.strategy for n, t in self.tables.items()},
        }
        for where, strategy in strategies.items():
            if self.mode is Mode.BATCH and strategy is Capture.LOG:
                raise PydanticCustomError(
                    "both",
                    "mode: batch reads no log, found strategy: log in {where}; "
                    "use mode: stream, or strategy timestamp, trigger or hash",
                    {"where": where},
                )
        return self


class SourceBlock(Block):
    """Keys of every source; the connector's own keys stand beside them."""

    type: Text = Field(
        description="name of the connector; the connection string's scheme says it where not given"
    )
    change_detection: ChangeDetection = Field(
        default=ChangeDetection(), description="for all schemas that say nothing else"
    )


class DestinationBlock(Block):
    """Keys of every destination; the connector's own keys stand beside them."""

    type: Text = Field(
        description="name of the connector; the connection string's scheme says it where not given"
    )
    schema_: Text | None = Field(
        default=None,
        alias="schema",
        description="destination schema of all tables; the source namespace's name where not given",
    )
    metadata_schema: Text = Field(
        default="cartridge_warp_metadata", description="schema of markers, runs and errors"
    )
    deletion_strategy: DeletionName = Field(
        default=Deletion.HARD, description="as at the top level, which wins"
    )
    soft_delete_column: Text = Field(
        default="is_deleted", description="as at the top level, which wins"
    )


class Prometheus(Block):
    enabled: Switch = Field(default=False, description="serve `/metrics`, `/healthz` and `/readyz`")
    port: Port = Field(default=8080, description="one port per container, whatever its processes")


class Logging(Block):
    level: Level = Field(default=LogLevel.INFO, description="`debug`, `info`, `warning` or `error`")
    format: Annotated[LogFormat, _one_of(LogFormat)] = Field(
        default=LogFormat.AUTO, description="`json`, `console`, or `auto`: console on a terminal"
    )
    levels: dict[str, Level] = Field(
        default={}, description="level per module: `{pymongo: warning}`"
    )


class Monitoring(Block):
    prometheus: Prometheus = Prometheus()
    logging: Logging = Logging()


class LostPosition(StrEnum):
    STOP = "stop"
    RECOVER = "recover"
    RESYNC = "resync"


class ErrorHandling(Block):
    """Waiting between tries, and rows that cannot be written."""

    max_retries: Natural = Field(
        default=3,
        description="failures in a row that nobody foresaw, before the unit stops for a person "
        "to see; a server that is away is waited for without limit",
    )
    backoff_factor: Factor = Field(
        default=2.0, description="each wait is this many times the one before"
    )
    initial_delay: PositiveDuration = Field(default=1.0, description="the first wait between tries")
    max_delay: PositiveDuration = Field(default=60.0, description="no wait is longer")
    dead_letter_queue: Switch = Field(
        default=True,
        description="set rows that cannot be written aside; a schema or table may differ",
    )
    on_lost_position: LostPosition = Field(
        default=LostPosition.STOP,
        description="of a stream whose place the source's log holds no more: `stop` it until a "
        "person acts; or at once, beside the stream, `recover` its tables by comparing, which "
        "writes only what differs, or `resync` them, which reads all rows",
    )

    @model_validator(mode="after")
    def _delays_are_in_order(self) -> ErrorHandling:
        if self.initial_delay > self.max_delay:
            raise PydanticCustomError(
                "both",
                "initial_delay ({a} s) must not be above max_delay ({b} s)",
                {"a": f"{self.initial_delay:g}", "b": f"{self.max_delay:g}"},
            )
        return self


class Coordination(Block):
    """The ledger in Redis, and the workers that claim from it."""

    redis_url: RedisUrl | None = Field(
        default=None, description="without one, `cartridge-warp` starts an embedded server"
    )
    namespace: LedgerNamespace = Field(default="default", description="keys are `cw:{namespace}:*`")
    lease_ttl: PositiveDuration = Field(
        default=10.0, description="a silent owner loses its units after it"
    )
    claim_every: PositiveDuration = Field(
        default=0.2, description="how often an idle slot asks for work"
    )
    quantum: PositiveDuration = Field(
        default=2.0, description="turn of a unit where units outnumber slots"
    )
    stall_after: PositiveDuration | None = Field(
        default=None,
        description="a unit without progress for so long is left to another worker; "
        "where not given a minute, six times `lease_ttl`, or what the destination's writes may "
        "take (BigQuery: ten minutes)",
    )
    reconcile_every: PositiveDuration = Field(
        default=5.0,
        description="how often the coordinator compares configuration, markers and ledger",
    )
    drain_target: PositiveDuration = Field(
        default=300.0, description="autoscaling aims at working off finite units in this time"
    )
    processes: Count = Field(default=1, description="worker processes")
    slots: Count = Field(default=8, description="units one worker process runs at once")

    @model_validator(mode="after")
    def _times_fit_each_other(self) -> Coordination:
        ttl = self.lease_ttl
        if ttl < 1:
            # Below that, one slow answer of Redis costs the lease.
            problem = "lease_ttl must be at least 1 s, found {ttl} s"
        elif self.claim_every > ttl / 2:
            problem = "claim_every ({claim} s) must be at most half of lease_ttl ({ttl} s)"
        elif self.stall_after is not None and self.stall_after < 2 * ttl:
            problem = "stall_after ({stall} s) must be at least twice lease_ttl ({ttl} s)"
        else:
            return self
        numbers = {
            "ttl": f"{ttl:g}",
            "claim": f"{self.claim_every:g}",
            "stall": f"{self.stall_after or 0:g}",
        }
        raise PydanticCustomError("both", problem, numbers)


def _schemas(value: object) -> object:
    if not isinstance(value, list):
        raise expected("a list of schemas, each with a `name`")
    return value


class Configuration(TableKeys):
    """The whole file."""

    mode: Annotated[RunMode, _one_of(RunMode)] | None = Field(
        default=None,
        description="`single`: one schema per process; `multi`: all of them; "
        "by the number of schemas where not given",
    )
    source: SourceBlock
    destination: DestinationBlock
    schemas: Annotated[list[SchemaBlock], BeforeValidator(_schemas)] = Field(
        default=[], description="what to carry"
    )
    tables: Tables = Field(
        default={},
        description="settings by table name, `namespace.table` or pattern, whatever the schema; "
        "these narrow nothing",
    )
    verify: Verify = Verify()
    privacy: Privacy = Privacy()
    monitoring: Monitoring = Monitoring()
    error_handling: ErrorHandling = ErrorHandling()
    coordination: Coordination = Coordination()

    @model_validator(mode="after")
    def _schema_names_differ(self) -> Configuration:
        seen: set[str] = set()
        for index, schema in enumerate(self.schemas):
            if schema.name in seen:
                raise PydanticCustomError(
                    "at",
                    "expected names that differ, found {name} twice",
                    {"name": repr(schema.name), "path": ["schemas", index, "name"]},
                )
            seen.add(schema.name)
        return self
