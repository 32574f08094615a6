"""The configuration: `load` reads file, environment and flags into one frozen `Settings`.

    settings = load(Path("config.yaml"), os.environ, {"mode": "single", "schema": ("products",)})
    connector = settings.source.connector            # a class, found through plugins
    selection = settings.resolve("products", namespaces)
    source = connector(settings.source.options, selection)

Every mistake is a ConfigError of one line: the path, what was expected, what was found, where.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

from pydantic import BaseModel, SecretStr, ValidationError

from warp import plugins
from warp.config import layers
from warp.config.blocks import (
    AUTO,
    Configuration,
    DestinationBlock,
    LogFormat,
    LogLevel,
    LostPosition,
    Mode,
    RunMode,
    SchemaBlock,
    SourceBlock,
)
from warp.config.complaints import complain, is_secret
from warp.config.layers import PREFIX, Origin, Place, Tree, leaves, written
from warp.config.settings import (
    SIZES,
    CoordinationSettings,
    DestinationSettings,
    Effective,
    ErrorSettings,
    LoggingSettings,
    PrometheusSettings,
    Rule,
    SchemaSettings,
    Selection,
    Settings,
    SourceSettings,
    is_pattern,
    said,
    said_of_changes,
)
from warp.errors import ConfigError
from warp.model import Capture, Cover
from warp.options import MASK, known_keys, redact, secrets_in

__all__ = [
    "CoordinationSettings",
    "DestinationSettings",
    "Effective",
    "ErrorSettings",
    "LogFormat",
    "LogLevel",
    "LoggingSettings",
    "LostPosition",
    "Mode",
    "PrometheusSettings",
    "RunMode",
    "SchemaSettings",
    "Selection",
    "Settings",
    "SourceSettings",
    "load",
]

Connector = TypeVar("Connector")

_OWN_KEYS: Final = {
    "source": frozenset(known_keys(SourceBlock)),
    "destination": frozenset(known_keys(DestinationBlock)),
}


def load(
    path: Path | str | None = None,
    environment: Mapping[str, str] | None = None,
    flags: Mapping[str, Any] | None = None,
) -> Settings:
    """Read and check everything; no connection is made.

    `flags` has any of mode, source, destination, schema (a sequence of names), redis, port,
    processes and slots; None stands for a flag that was not given.  Without a `path`,
    CARTRIDGE_WARP_CONFIG names the file, if any.
    """
    environment = environment or {}
    given = layers.inherited(environment) | {
        k: v for k, v in (flags or {}).items() if v is not None and v != ()
    }
    file = path or environment.get(PREFIX + "CONFIG") or None
    tree = layers.read(Path(file) if file else None, environment, given)
    options = {end: _take_options(tree, end) for end in ("source", "destination")}
    try:
        blocks = Configuration.model_validate(tree.values)
    except ValidationError as error:
        raise complain(error, tree) from None
    chosen = _choose(blocks, _names(environment, given))
    mode = _mode(blocks, chosen)
    source = _source(blocks, options["source"], tree)
    destination = _destination(blocks, options["destination"], tree)
    effective = tuple(_effective(blocks, chosen, mode, source, destination, tree))
    return Settings(
        mode=mode,
        source=source,
        destination=destination,
        schemas=tuple(_private(_schema(blocks, schema), source) for schema in chosen),
        prometheus=PrometheusSettings(
            blocks.monitoring.prometheus.enabled, blocks.monitoring.prometheus.port
        ),
        logging=LoggingSettings(
            blocks.monitoring.logging.level,
            blocks.monitoring.logging.format,
            dict(blocks.monitoring.logging.levels),
        ),
        errors=ErrorSettings(
            blocks.error_handling.max_retries,
            blocks.error_handling.backoff_factor,
            blocks.error_handling.initial_delay,
            blocks.error_handling.max_delay,
            blocks.error_handling.on_lost_position,
        ),
        coordination=_coordination(blocks),
        effective=effective,
        environment=_environment(file, given),
        secrets=tuple(_secrets(blocks, source.options, destination.options)),
    )


# Which schemas


def _names(environment: Mapping[str, str], flags: Mapping[str, Any]) -> tuple[str, ...]:
    named = flags.get("schema") or environment.get(PREFIX + "SCHEMA") or ()
    if isinstance(named, str):
        named = named.split(",")
    return tuple(dict.fromkeys(name.strip() for name in named if name.strip()))


def _choose(blocks: Configuration, names: Sequence[str]) -> list[SchemaBlock]:
    configured = {schema.name: schema for schema in blocks.schemas}
    if not names and not configured:
        raise ConfigError(
            "expected at least one schema, found none; add `schemas:` to the file, "
            "or --schema NAME",
            place="schemas",
        )
    if not names:
        return list(configured.values())
    if not configured:
        # With no list to choose from, a name is enough: all its settings have defaults.
        return [SchemaBlock(name=name) for name in names]
    for name in names:
        if name not in configured:
            raise ConfigError(
                f"expected the name of a configured schema, found {name!r}; "
                f"{plugins.nearest(name, configured)}",
                place="--schema",
            )
    return [configured[name] for name in names]


def _mode(blocks: Configuration, chosen: Sequence[SchemaBlock]) -> RunMode:
    if blocks.mode is RunMode.SINGLE and len(chosen) != 1:
        names = ", ".join(schema.name for schema in chosen)
        raise ConfigError(
            f"mode single runs one schema, found {len(chosen)} ({names}); "
            "name one by --schema, or use --mode multi",
            place="mode",
        )
    if blocks.mode is not None:
        return blocks.mode
    return RunMode.SINGLE if len(chosen) == 1 else RunMode.MULTI


# The blocks, resolved


def _take_options(tree: Tree, end: str) -> dict[str, Any]:
    """The keys of a block that belong to its connector, removed from the tree's block."""
    block = tree.values[end]
    tree.values[end] = {k: v for k, v in block.items() if k in _OWN_KEYS[end]}
    return {k: v for k, v in block.items() if k not in _OWN_KEYS[end]}


def _found(find: Callable[[str], Connector], type_name: str, tree: Tree, end: str) -> Connector:
    """The connector's class; an error about it says also where its type is written."""
    try:
        return find(type_name)
    except ConfigError as error:
        origin = tree.origin((end, "type"))
        raise ConfigError(f"{error.message} ({origin})", place=error.place) from error


def _validate_options(
    connector: Any, options: dict[str, Any], common: Mapping[str, Any], tree: Tree, end: str
) -> BaseModel:
    model: type[BaseModel] = connector.Options
    known = known_keys(model)
    for key in options:
        if key not in known:
            candidates = set(known) | _OWN_KEYS[end] | {"connection_string_file"}
            message = f"unknown key; {plugins.nearest(key, candidates)}"
            raise ConfigError(f"{message} ({tree.origin((end, key))})", place=f"{end}.{key}")
    offered = {k: v for k, v in common.items() if k in known and v is not None}
    tree.values[end] |= options
    try:
        return model.model_validate(offered | options)
    except ValidationError as error:
        raise complain(error, tree, (end,)) from None


def _located(url: Any) -> str:
    """Where a connection string leads, for people: no password, no query."""
    return redact(str(url)).partition("?")[0]


def _source(blocks: Configuration, options: dict[str, Any], tree: Tree) -> SourceSettings:
    connector = _found(plugins.source, blocks.source.type, tree, "source")
    database = options.get("database")
    validated = _validate_options(connector, options, {}, tree, "source")
    return SourceSettings(
        type=blocks.source.type,
        location=_located(options.get("connection_string", "")),
        database=str(database) if database is not None else None,
        options=validated,
    )


def _destination(blocks: Configuration, options: dict[str, Any], tree: Tree) -> DestinationSettings:
    block = blocks.destination
    connector = _found(plugins.destination, block.type, tree, "destination")
    common = {"schema": block.schema_, "metadata_schema": block.metadata_schema}
    return DestinationSettings(
        type=block.type,
        location=_located(options.get("connection_string", "")),
        schema=block.schema_,
        metadata_schema=block.metadata_schema,
        options=_validate_options(connector, options, common, tree, "destination"),
    )


def _schema(blocks: Configuration, schema: SchemaBlock) -> SchemaSettings:
    mode = schema.mode
    level: dict[str, Any] = {
        "capture": Capture.TIMESTAMP if mode is Mode.BATCH else Capture.LOG,
        "dead_letter_queue": blocks.error_handling.dead_letter_queue,
    }
    destination = blocks.destination
    if _sizes_batches(destination.type):
        level |= dict.fromkeys(SIZES, AUTO)
    for key in ("deletion_strategy", "soft_delete_column"):
        if key in destination.model_fields_set:
            level[key] = getattr(destination, key)
    level |= said_of_changes(blocks.source.change_detection, mode)
    level |= said(blocks, mode) | said(schema, mode)
    rules: list[Rule] = []
    for tables in (blocks.tables, schema.tables):
        named = [Rule(pattern, block) for pattern, block in tables.items() if pattern[0] != "!"]
        # An exact name says more than a pattern, wherever it stands.
        rules += sorted(named, key=lambda rule: not is_pattern(rule.pattern))
    return SchemaSettings(
        name=schema.name,
        mode=mode,
        schedule=schema.schedule,
        destination_schema=schema.destination_schema or destination.schema_,
        include=tuple(t for t in schema.tables if t[0] != "!"),
        exclude=tuple(t[1:] for t in schema.tables if t[0] == "!"),
        said=level,
        rules=tuple(rules),
        catch_up=schema.catch_up,
        privacy=(blocks.privacy, schema.privacy),
        privacy_key=blocks.privacy.key.get_secret_value().encode() if blocks.privacy.key else b"",
    )


def _sizes_batches(destination: str) -> bool:
    return plugins.destination(destination).traits.sizes_batches


def _private(schema: SchemaSettings, source: SourceSettings) -> SchemaSettings:
    """The schema, whose privacy rules have what they need."""
    if not schema.paths():
        return schema
    key_field = source.connector.traits.key_in_positions
    for pattern, columns in schema.privacy_written():
        for path, cover in columns.items():
            place = f"{f'tables.{pattern}.' if pattern else ''}privacy.columns.{path}"
            if cover in (Cover.HASH, Cover.TOKENISE) and not schema.privacy_key:
                raise ConfigError(
                    f"expected a key for {cover.value!r}, found none; set `privacy.key` at the top "
                    "of the file: `key: ${PRIVACY_KEY}`, or `key_file`",
                    place=place,
                )
            of_key = bool(key_field) and (path + ".").startswith(key_field + ".")
            if of_key and cover in (Cover.DROP, Cover.MASK):
                raise ConfigError(
                    f"expected hash or tokenise for a key, found {cover.value!r}, which would make "
                    "different rows one",
                    place=place,
                )
    return schema


def _coordination(blocks: Configuration) -> CoordinationSettings:
    block = blocks.coordination
    return CoordinationSettings(
        redis_url=block.redis_url.get_secret_value() if block.redis_url else None,
        namespace=block.namespace,
        lease_ttl=block.lease_ttl,
        claim_every=block.claim_every,
        quantum=block.quantum,
        stall_after=block.stall_after,
        reconcile_every=block.reconcile_every,
        drain_target=block.drain_target,
        processes=block.processes,
        slots=block.slots,
    )


def _environment(file: Path | str | None, flags: Mapping[str, Any]) -> dict[str, str]:
    """The rest of the environment a child inherits anyway."""
    result = {PREFIX + "CONFIG": str(Path(file).resolve())} if file else {}
    if flags:
        result[layers.INHERITED] = json.dumps(dict(flags))
    return result


# What is in force, for people


def _effective(
    blocks: Configuration,
    chosen: Sequence[SchemaBlock],
    mode: RunMode,
    source: SourceSettings,
    destination: DestinationSettings,
    tree: Tree,
) -> list[Effective]:
    plain = blocks.model_dump(
        mode="json", by_alias=True, exclude={"schemas", "source", "destination"}
    )
    plain["mode"] = mode.value
    if blocks.coordination.redis_url:
        plain["coordination"]["redis_url"] = blocks.coordination.redis_url.get_secret_value()
    if _sizes_batches(destination.type):
        plain |= {key: AUTO for key in SIZES if key not in blocks.model_fields_set}
    if blocks.batch_size:
        plain["stream_batch_size"] = None  # the short form stands for it
    shown_blocks: dict[str, Any] = {}
    for end, block, options in (
        ("source", blocks.source, source.options),
        ("destination", blocks.destination, destination.options),
    ):
        # The deletion keys of a destination only repeat what may stand globally.
        unsaid = {"deletion_strategy", "soft_delete_column"} - block.model_fields_set
        own = block.model_dump(mode="json", by_alias=True, exclude=unsaid)
        shown_blocks[end] = own | _masked(options)
    ordered = {"mode": plain.pop("mode"), **shown_blocks}
    settings = [(place, value) for place, value in leaves(ordered | _without_tables(plain))]
    # Of schemas and tables only what was written: what they inherit stands above.
    for index, schema in enumerate(blocks.schemas):
        if schema in chosen:
            written_keys = schema.model_dump(mode="json", by_alias=True, exclude_unset=True)
            settings += leaves(written_keys, ("schemas", index))
    for index, schema in enumerate(chosen if not blocks.schemas else ()):
        settings.append((("schemas", index, "name"), schema.name))
    tables = {n: t.model_dump(mode="json", exclude_unset=True) for n, t in blocks.tables.items()}
    settings += leaves(tables, ("tables",)) if tables else []
    return [
        Effective(written(place), _unmasked_for_people(place, value), str(_origin(tree, place)))
        for place, value in settings
        if value is not None
    ]


def _without_tables(plain: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in plain.items() if k != "tables"}


def _origin(tree: Tree, place: Place) -> Origin:
    """Who said this very value; a block that was written does not vouch for its defaults."""
    return (
        tree.origins.get(place, layers.DEFAULT) if tree.get(place) is not None else (layers.DEFAULT)
    )


def _masked(options: BaseModel) -> dict[str, Any]:
    """A connector's options by key, secrets as they may be shown."""
    result: dict[str, Any] = {}
    for key, name in known_keys(type(options)).items():
        value = getattr(options, name)
        if isinstance(value, SecretStr):
            secret = value.get_secret_value()
            result[key] = redact(secret) if "://" in secret else MASK
        else:
            dumped = options.model_dump(mode="json", include={name}, by_alias=True)
            result[key] = dumped.get(key)
    return result


def _unmasked_for_people(place: Place, value: Any) -> Any:
    if not isinstance(value, str):
        return value
    return MASK if is_secret(place) and "://" not in value else redact(value)


def _secrets(blocks: Configuration, *options: BaseModel) -> list[str]:
    """Every secret value, and the passwords inside URLs, for the logs to mask."""
    found: set[str] = set()
    values = [getattr(o, name) for o in options for name in type(o).model_fields]
    for value in (*values, blocks.coordination.redis_url, blocks.privacy.key):
        if isinstance(value, SecretStr):
            found |= secrets_in(value.get_secret_value())
        elif isinstance(value, str) and "://" in value:
            found |= secrets_in(value) - {value}
    return sorted(found, key=len, reverse=True)
