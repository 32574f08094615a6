"""The configuration as the system reads it: frozen, resolved, pure.

A schema's `TableSelection` merges what the levels say, the nearest one winning:
default < global < schema < global `tables:` < the schema's own `tables:`; inside one `tables:`
block patterns in the order written, an exact name last.
"""

from __future__ import annotations

import fnmatch
import hashlib
import hmac
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Final

from pydantic import BaseModel

from warp import plugins
from warp.config.blocks import (
    AUTO,
    ChangeDetection,
    Deletion,
    LogFormat,
    LogLevel,
    LostPosition,
    Mode,
    PrivacyRules,
    RunMode,
    TableBlock,
    TableKeys,
)
from warp.errors import ConfigError
from warp.interfaces import DestinationConnector, SourceConnector
from warp.model import Capture, Cover, MissingColumn, Policy, Privacy, TableId, TableSettings
from warp.schedule import CatchUp, Schedule

# Keys that mean the same in a block and in TableSettings.
_PLAIN: Final = ({f.name for f in fields(TableSettings)} & set(TableKeys.model_fields)) | {
    "dead_letter_queue"
}
# on_wider: wider, …
_POLICY: Final = {f"on_{f.name}": f.name for f in fields(Policy)}
SIZES: Final = ("stream_batch_size", "full_load_batch_size", "write_batch_size")
_MAGIC: Final = set("*?[")

SourceClass = type[SourceConnector]  # named: both settings have a field called `type`
DestinationClass = type[DestinationConnector]


@dataclass(frozen=True, slots=True)
class SourceSettings:
    type: str
    location: str  # the connection string without its secrets, for people
    database: str | None
    options: BaseModel = field(repr=False)  # holds the secrets; an instance of Connector.Options

    @property
    def connector(self) -> SourceClass:
        return plugins.source(self.type)


@dataclass(frozen=True, slots=True)
class DestinationSettings:
    type: str
    location: str
    schema: str | None  # of all tables; None: named as the source namespace
    metadata_schema: str
    options: BaseModel = field(repr=False)

    @property
    def connector(self) -> DestinationClass:
        return plugins.destination(self.type)


@dataclass(frozen=True, slots=True)
class Rule:
    """Settings for the tables a name or pattern matches."""

    pattern: str
    block: TableBlock


@dataclass(frozen=True, slots=True)
class SchemaSettings:
    """One schema of the configuration: when it runs, and what it says about its tables."""

    name: str
    mode: Mode
    schedule: str | None  # cron, read in the tables' timezone
    destination_schema: str | None
    include: tuple[str, ...]  # names and patterns; empty: all
    exclude: tuple[str, ...]
    said: Mapping[str, Any] = field(repr=False)  # global and schema level, merged
    rules: tuple[Rule, ...] = field(repr=False)  # weakest first
    privacy: tuple[PrivacyRules, ...] = field(repr=False, default=())  # weakest first, as above
    privacy_key: bytes = field(repr=False, default=b"")
    catch_up: CatchUp = CatchUp.LATEST

    def schedule_of(self, table: TableSettings) -> Schedule | None:
        """When a polled table runs; None: every polling interval."""
        if self.schedule is None:
            return None
        return Schedule(self.schedule, table.timezone, self.catch_up)

    def chosen(self) -> tuple[Any, ...]:
        """What decides which tables are followed and where they go, and nothing else."""
        rules = [
            (
                rule.pattern,
                rule.block.destination_table,
                said(rule.block, self.mode).get("capture"),
            )
            for rule in self.rules
        ]
        capture = self.said.get("capture")
        ends = (self.destination_schema, self.include, self.exclude)
        # A worker without these rules would write the values as they are.
        private = [self.privacy_written(), fingerprint(self.privacy_key)]
        return (self.name, self.mode, capture, *ends, rules, *(private if self.paths() else ()))

    def privacy_written(self) -> list[tuple[str, Mapping[str, Cover]]]:
        """The rules by the pattern of the tables they are for; those of all tables first."""
        return [
            *(("", block.columns) for block in self.privacy),
            *((rule.pattern, rule.block.privacy.columns) for rule in self.rules),
        ]

    def paths(self) -> frozenset[str]:
        """Of all rules that cover something somewhere."""
        return frozenset(
            path
            for _, columns in self.privacy_written()
            for path, cover in columns.items()
            if cover is not Cover.KEEP
        )

    def privacy_of(self, table: TableId) -> Privacy | None:
        rules: dict[str, Cover] = {}
        own: set[str] = set()
        missing: MissingColumn | None = None
        named = [("", block) for block in self.privacy]
        named += [(r.pattern, r.block.privacy) for r in self.rules if _matches(r.pattern, table)]
        for pattern, block in named:
            rules |= block.columns
            if pattern and not is_pattern(pattern):
                own |= block.columns.keys()
            missing = block.missing or missing
        covering = tuple((p, cover) for p, cover in rules.items() if cover is not Cover.KEEP)
        if not covering:
            return None
        paths = {path for path, _ in covering}
        return Privacy(covering, frozenset(own & paths), missing, self.privacy_key)


class Selection:
    """The `TableSelection` of one schema.  All of its tables lie in one namespace."""

    __slots__ = ("_known", "_only", "namespace", "schema")

    def __init__(self, schema: SchemaSettings, namespace: str, only: str | None) -> None:
        self.schema = schema
        self.namespace = namespace
        self._only = only  # the schema is this one table
        self._known: dict[TableId, TableSettings | None] = {}

    def __call__(self, table: TableId) -> TableSettings | None:
        try:
            return self._known[table]
        except KeyError:
            settings = self._known[table] = self._settings(table)
            return settings

    @property
    def destination_namespace(self) -> str:
        """Where all of its tables lie at the destination."""
        return self.schema.destination_schema or self.namespace

    def __repr__(self) -> str:
        return f"<Selection of {self.schema.name!r} in {self.namespace!r}>"

    def _selected(self, table: TableId) -> bool:
        if table.namespace != self.namespace:
            return False
        if self._only is not None:
            return table.name == self._only
        schema = self.schema
        if any(_matches(pattern, table) for pattern in schema.exclude):
            return False
        return not schema.include or any(_matches(p, table) for p in schema.include)

    def _settings(self, table: TableId) -> TableSettings | None:
        if not self._selected(table):
            return None
        schema = self.schema
        merged = dict(schema.said)
        destination_name = table.name
        columns: dict[str, dict[str, Any]] = {}
        for rule in schema.rules:
            if _matches(rule.pattern, table):
                merged |= said(rule.block, schema.mode)
                for field_name, block in rule.block.columns.items():
                    columns.setdefault(field_name, {}).update(
                        {key: getattr(block, key) for key in block.model_fields_set}
                    )
                destination_name = rule.block.destination_table or destination_name
        soft = merged.pop("deletion_strategy", Deletion.HARD) is Deletion.SOFT
        flag = merged.pop("soft_delete_column", "is_deleted")
        policy = {name: merged.pop(key) for key, name in _POLICY.items() if key in merged}
        auto = tuple(key for key in SIZES if merged.get(key) == AUTO)
        for key in auto:
            del merged[key]  # the default is where it starts
        policies = {
            field_name: {name: block[key] for key, name in _POLICY.items() if key in block}
            for field_name, block in columns.items()
        }
        kinds = {field_name: block.get("kind") for field_name, block in columns.items()}
        return TableSettings(
            table=table,
            destination=TableId(schema.destination_schema or table.namespace, destination_name),
            schema=schema.name,
            soft_delete_column=flag if soft else None,
            columns=tuple((name, kind) for name, kind in kinds.items() if kind is not None),
            policy=Policy(**policy),
            policies=tuple((n, Policy(**(policy | own))) for n, own in policies.items() if own),
            auto_sizes=auto,
            privacy=schema.privacy_of(table),
            **merged,
        )


@dataclass(frozen=True, slots=True)
class LoggingSettings:
    level: LogLevel
    format: LogFormat
    levels: Mapping[str, LogLevel]


@dataclass(frozen=True, slots=True)
class PrometheusSettings:
    enabled: bool
    port: int


@dataclass(frozen=True, slots=True)
class ErrorSettings:
    max_retries: int
    backoff_factor: float
    initial_delay: float
    max_delay: float
    on_lost_position: LostPosition = LostPosition.STOP


@dataclass(frozen=True, slots=True)
class CoordinationSettings:
    """Times in seconds."""

    redis_url: str | None = field(repr=False)
    namespace: str
    lease_ttl: float
    claim_every: float
    quantum: float
    stall_after: float | None
    reconcile_every: float
    drain_target: float
    processes: int
    slots: int


@dataclass(frozen=True, slots=True)
class Effective:
    """One value of the configuration in force, and who gave it."""

    path: str
    value: Any  # secrets masked
    origin: str  # default, config.yaml:12, CARTRIDGE_WARP_…, --flag


@dataclass(frozen=True, slots=True)
class Settings:
    """All settings of one process tree."""

    mode: RunMode
    source: SourceSettings
    destination: DestinationSettings
    schemas: tuple[SchemaSettings, ...]
    prometheus: PrometheusSettings
    logging: LoggingSettings
    errors: ErrorSettings
    coordination: CoordinationSettings
    effective: tuple[Effective, ...] = field(repr=False)
    # What a child process needs in its environment to load the same settings.  Holds secrets.
    environment: Mapping[str, str] = field(repr=False)
    secrets: tuple[str, ...] = field(repr=False)  # values that logs must never show

    @property
    def digest(self) -> str:
        """Names what is moved and how: equal in processes that may work together.

        Holds no secret, and not what may differ from process to process: ports, logs, slots.
        """
        local = ("monitoring.", "coordination.")
        shown = {e.path: e.value for e in self.effective if not e.path.startswith(local)}
        shown["schemas"] = [s.name for s in self.schemas]
        if any(s.paths() for s in self.schemas):
            shown["privacy.key"] = fingerprint(self.schemas[0].privacy_key)
        text = json.dumps(shown, sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def schema(self, name: str) -> SchemaSettings:
        for schema in self.schemas:
            if schema.name == name:
                return schema
        known = [s.name for s in self.schemas]
        raise ConfigError(
            f"expected the name of a configured schema, found {name!r}; "
            f"{plugins.nearest(name, known)}",
            place="schemas",
        )

    def private_paths(self, names: Iterable[str]) -> frozenset[str]:
        """Of all privacy rules of these schemas."""
        return frozenset(path for name in names for path in self.schema(name).paths())

    def follows(self, names: Iterable[str]) -> str:
        """Names the tables of these schemas: equal in processes that may follow one log together.

        Unlike the digest it leaves out how fast and how carefully they are moved.
        """
        chosen = [self.schema(name).chosen() for name in sorted(names)]
        text = json.dumps([self.source.database, chosen], default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def resolve(self, name: str, namespaces: Iterable[str]) -> Selection:
        """Which tables the schema `name` means, given the namespaces that exist at the source.

        The namespace of that name; else `source.database`: there the tables listed for the
        schema, or the one table of that name.
        """
        schema = self.schema(name)
        # `source.database` itself is meant also before anything is in it: MongoDB makes a
        # database with its first document.
        if name == self.source.database or name in set(namespaces):
            return Selection(schema, name, None)
        if self.source.database is None:
            raise ConfigError(
                f"expected a namespace {name!r} at the source or a `source.database` that holds a "
                f"table of that name, found neither; set source.database",
                place="schemas",
            )
        listed = schema.include or schema.exclude
        return Selection(schema, self.source.database, None if listed else name)


def said(block: TableKeys, mode: Mode) -> dict[str, Any]:
    """What one level says, in the words of TableSettings (and of deletion)."""
    written = block.model_fields_set
    result: dict[str, Any] = {}
    if "batch_size" in written and block.batch_size is not None:
        all_of_them = mode is Mode.BATCH or block.batch_size == AUTO
        aliased = SIZES if all_of_them else SIZES[:1]
        result |= dict.fromkeys(aliased, block.batch_size)
    wanted = written & (_PLAIN | _POLICY.keys() | {"deletion_strategy", "soft_delete_column"})
    result |= {name: getattr(block, name) for name in wanted}
    if detection := getattr(block, "change_detection", None):
        result |= said_of_changes(detection, mode)
    if verify := getattr(block, "verify", None):
        names = {"every": "verify_every", "budget": "verify_budget", "rate": "verify_rate"}
        result |= {n: getattr(verify, k) for k, n in names.items() if k in verify.model_fields_set}
        if "masked" in verify.model_fields_set:
            result["masked"] = tuple(verify.masked)
    return result


def said_of_changes(detection: ChangeDetection, mode: Mode) -> dict[str, Any]:
    written = detection.model_fields_set
    result: dict[str, Any] = {}
    if "column" in written:
        result["timestamp_column"] = detection.column
    if "timezone" in written:
        result["timezone"] = detection.timezone
    if "overlap" in written:
        result["overlap"] = detection.overlap
    # A log named for all schemas does not bind those that run on a schedule.
    if detection.strategy and not (mode is Mode.BATCH and detection.strategy is Capture.LOG):
        result["capture"] = detection.strategy
    return result


def fingerprint(key: bytes) -> str:
    """Tells keys apart and says nothing else of them."""
    return hmac.digest(key, b"cartridge-warp privacy key", "sha256").hex()[:16]


def is_pattern(name: str) -> bool:
    return bool(_MAGIC & set(name))


def _matches(pattern: str, table: TableId) -> bool:
    if not is_pattern(pattern):
        return pattern in (table.name, str(table))
    return fnmatch.fnmatchcase(table.name, pattern) or fnmatch.fnmatchcase(str(table), pattern)
