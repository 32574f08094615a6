"""The configuration: the plan's own examples, who wins over whom, and what never shows."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from config_fakes import (
    DestinationOptions,
    SourceOptions,
    fake_connectors,  # noqa: F401  a fixture
)

from warp.config import LogLevel, Mode, RunMode, Settings, load
from warp.config.layers import INHERITED
from warp.errors import ConfigError
from warp.model import Capture, DocumentColumn, Kind, Shape, SnapshotMode, TableId, TableSettings

EXAMPLES = Path(__file__).parents[2] / "examples"
CONFIG = EXAMPLES / "config.yaml"
MULTI = EXAMPLES / "multi-schema-config.json"
PASSWORD = "hunter2-geheim"

pytestmark = pytest.mark.usefixtures("fake_connectors")

ENDS: dict[str, Any] = {
    "source": {"connection_string": "mongodb://localhost:27017", "database": "ecommerce"},
    "destination": {"connection_string": "postgresql://localhost:5432/warehouse"},
}


@pytest.fixture
def write(tmp_path: Path) -> Any:
    def write(tree: dict[str, Any] | str, name: str = "config.yaml") -> Path:
        path = tmp_path / name
        path.write_text(tree if isinstance(tree, str) else yaml.safe_dump(tree, sort_keys=False))
        return path

    return write


def settings_of(settings: Settings, schema: str, table: str, database: str = "ecommerce") -> Any:
    selection = settings.resolve(schema, [])
    return selection(TableId(database, table))


def origins(settings: Settings) -> dict[str, str]:
    return {e.path: e.origin for e in settings.effective}


def values(settings: Settings) -> dict[str, Any]:
    return {e.path: e.value for e in settings.effective}


# The plan's examples


def test_the_plan_s_file_loads_as_it_is_written() -> None:
    settings = load(CONFIG)

    assert settings.mode is RunMode.MULTI
    assert settings.source.type == "mongodb"
    assert settings.source.database == "ecommerce"
    assert settings.destination.type == "postgresql"
    assert settings.destination.metadata_schema == "cartridge_warp_metadata"
    assert [(s.name, s.mode, s.schedule) for s in settings.schemas] == [
        ("products", Mode.STREAM, None),
        ("orders", Mode.BATCH, "*/15 * * * *"),
    ]
    assert (settings.prometheus.enabled, settings.prometheus.port) == (True, 8080)
    assert (settings.errors.max_retries, settings.errors.backoff_factor) == (3, 2)


def test_its_batch_sizes_mean_what_the_mode_makes_of_them() -> None:
    settings = load(CONFIG)

    products = settings_of(settings, "products", "products")
    assert products.stream_batch_size == 1000
    assert (products.full_load_batch_size, products.write_batch_size) == (10_000, 500)
    orders = settings_of(settings, "orders", "orders")
    assert (orders.full_load_batch_size, orders.write_batch_size) == (5000, 5000)


def test_a_batch_schema_looks_at_updated_at_and_a_stream_follows_the_log() -> None:
    settings = load(CONFIG)

    orders = settings_of(settings, "orders", "orders")
    assert (orders.capture, orders.timestamp_column) == (Capture.TIMESTAMP, "updated_at")
    assert settings_of(settings, "products", "products").capture is Capture.LOG


def test_the_plan_s_command_line_of_single_mode_runs_one_schema_at_the_flags_addresses() -> None:
    settings = load(
        CONFIG,
        flags={
            "mode": "single",
            "source": "mongodb://localhost:27017/ecommerce",
            "destination": "postgresql://localhost:5432/warehouse",
            "schema": ("products",),
        },
    )

    assert settings.mode is RunMode.SINGLE
    assert [s.name for s in settings.schemas] == ["products"]
    assert settings.source.database == "ecommerce"
    assert settings.source.location == "mongodb://localhost:27017/ecommerce"


def test_single_mode_needs_no_file() -> None:
    settings = load(
        flags={
            "mode": "single",
            "source": "mongodb://localhost:27017/ecommerce",
            "destination": "postgresql://localhost:5432/warehouse",
            "schema": ("products",),
        }
    )

    assert settings_of(settings, "products", "products").stream_batch_size == 1000


def test_single_mode_works_by_environment_alone() -> None:
    settings = load(
        environment={
            "CARTRIDGE_WARP_MODE": "single",
            "CARTRIDGE_WARP_SOURCE": "mongodb://localhost:27017/ecommerce",
            "CARTRIDGE_WARP_DESTINATION": "postgresql://localhost:5432/warehouse",
            "CARTRIDGE_WARP_SCHEMA": "products",
            "CARTRIDGE_WARP_REDIS_URL": "redis://cache:6379/0",
            "CARTRIDGE_WARP_LOG_LEVEL": "debug",
        }
    )

    assert settings.mode is RunMode.SINGLE
    assert settings.coordination.redis_url == "redis://cache:6379/0"
    assert settings.logging.level is LogLevel.DEBUG


def test_the_json_file_of_multi_mode_says_the_same_as_the_yaml_file() -> None:
    from_json, from_yaml = load(MULTI, flags={"mode": "multi"}), load(CONFIG)

    assert from_json.mode is RunMode.MULTI
    assert from_json.schemas == from_yaml.schemas
    assert from_json.digest == load(CONFIG, flags={"mode": "multi"}).digest


def test_the_plan_s_table_settings_load_as_they_are_written(write: Any) -> None:
    tables = """
tables:
  users:
    stream_batch_size: 500
    write_batch_size: 250
    polling_interval: 2s
  orders:
    stream_batch_size: 2000
    write_batch_size: 1000
    polling_interval: 10s
"""
    settings = load(write(CONFIG.read_text() + tables))

    orders = settings_of(settings, "orders", "orders")
    assert (orders.stream_batch_size, orders.write_batch_size) == (2000, 1000)
    assert orders.polling_interval == 10
    assert orders.full_load_batch_size == 5000  # of the schema: the table says nothing


def test_the_plan_s_change_detection_and_deletion_load_as_they_are_written(write: Any) -> None:
    config = CONFIG.read_text().replace(
        "source:\n",
        """source:
  change_detection:
    column: "last_modified"  # Override default updated_at
    strategy: "timestamp"    # timestamp, log, trigger
    timezone: "UTC"
""",
        1,
    )
    deletion = """
deletion_strategy: "soft"  # hard, soft
soft_delete_column: "is_deleted"
"""
    settings = load(write(config + deletion))

    for name in ("products", "orders"):
        table = settings_of(settings, name, name)
        assert (table.capture, table.timestamp_column) == (Capture.TIMESTAMP, "last_modified")
        assert table.soft_delete_column == "is_deleted"


def test_the_defaults_are_the_plan_s() -> None:
    settings = load(
        flags={"source": "mongodb://h/shop", "destination": "postgresql://h/w", "schema": ("t",)}
    )

    table = settings_of(settings, "t", "t", "shop")
    assert table == TableSettings(TableId("shop", "t"), TableId("shop", "t"), "t")
    assert (table.stream_batch_size, table.full_load_batch_size) == (1000, 10_000)
    assert (table.write_batch_size, table.polling_interval) == (500, 5)
    assert table.soft_delete_column is None
    assert settings.coordination.lease_ttl == 10
    assert not settings.prometheus.enabled


def test_every_example_loads() -> None:
    secret = EXAMPLES / "every-table-differs.yaml"
    environment = {"CARTRIDGE_WARP_DESTINATION": "postgresql://h/w"}

    for path in EXAMPLES.glob("*.*"):
        if path.suffix in (".yaml", ".json"):
            load(path, environment if path == secret else {})


# Who wins


LAYERS = ("file", "environment", "flag")


@pytest.mark.parametrize(
    "present", [c for n in range(4) for c in itertools.combinations(LAYERS, n)], ids="+".join
)
def test_defaults_yield_to_the_file_the_file_to_the_environment_and_all_to_flags(
    present: tuple[str, ...], write: Any
) -> None:
    tree = {**ENDS, "schemas": [{"name": "a"}]}
    if "file" in present:
        tree["coordination"] = {"slots": 11}
    environment = {"CARTRIDGE_WARP_COORDINATION__SLOTS": "22"} if "environment" in present else {}
    flags = {"slots": 33} if "flag" in present else {}

    settings = load(write(tree), environment, flags)

    winner = present[-1] if present else "default"
    expected = {"default": (8, "default"), "file": (11, "config.yaml:9")}
    expected |= {"environment": (22, "CARTRIDGE_WARP_COORDINATION__SLOTS"), "flag": (33, "--slots")}
    assert settings.coordination.slots == expected[winner][0]
    assert origins(settings)["coordination.slots"] == expected[winner][1]


TABLE_VALUES: dict[str, list[Any]] = {
    "stream_batch_size": [1, 2, 3, 4],
    "full_load_batch_size": [1, 2, 3, 4],
    "write_batch_size": [1, 2, 3, 4],
    "polling_interval": [1.0, 2.0, 3.0, 4.0],
    "chunk_rows": [1, 2, 3, 4],
    "max_columns": [1, 2, 3, 4],
    "promote_after": [1.0, 2.0, 3.0, 4.0],
    "deferred_max_age": [1.0, 2.0, 3.0, 4.0],
    "deferred_max_tries": [1, 2, 3, 4],
    "soft_delete_column": ["a", "b", "c", "d"],
    "snapshot": list(SnapshotMode)[:2] * 2,
    "shape": [Shape.DOCUMENT, Shape.BOTH] * 2,
    "document_column": [DocumentColumn.JSON, DocumentColumn.JSONB] * 2,
}
LEVELS = ("global", "schema", "tables", "schema's tables")


@pytest.mark.parametrize("key", TABLE_VALUES)
@pytest.mark.parametrize(
    "present", [c for n in range(5) for c in itertools.combinations(range(4), n)], ids=str
)
def test_the_nearest_level_wins_for_every_setting(
    key: str, present: tuple[int, ...], write: Any
) -> None:
    said = [{key: str(TABLE_VALUES[key][n])} if n in present else {} for n in range(4)]
    schema = {"name": "shop", **said[1], "tables": {"users": said[3]}}
    tree = {**ENDS, **said[0], "deletion_strategy": "soft", "tables": {"users": said[2]}}
    tree["schemas"] = [schema]

    users = settings_of(load(write(tree)), "shop", "users")

    default = TableSettings(TableId("", ""), TableId("", ""), "", soft_delete_column="is_deleted")
    expected = TABLE_VALUES[key][present[-1]] if present else getattr(default, key)
    assert getattr(users, key) == expected


def test_an_exact_name_wins_over_a_pattern_and_a_later_pattern_over_an_earlier(
    write: Any,
) -> None:
    tables = {
        "users": {"write_batch_size": 1},
        "*": {"write_batch_size": 2, "chunk_rows": 2},
        "us*": {"chunk_rows": 3},
        "ecommerce.users": {"max_columns": 4},
    }
    settings = load(write({**ENDS, "schemas": [{"name": "ecommerce"}], "tables": tables}))

    users = settings.resolve("ecommerce", ["ecommerce"])(TableId("ecommerce", "users"))
    assert users is not None
    assert (users.write_batch_size, users.chunk_rows, users.max_columns) == (1, 3, 4)


def test_a_long_key_wins_over_the_short_one_at_its_level_and_loses_to_it_from_a_nearer_one(
    write: Any,
) -> None:
    schema = {"name": "orders", "mode": "batch", "batch_size": 10, "write_batch_size": 20}
    tree = {**ENDS, "schemas": [schema]}
    assert settings_of(load(write(tree)), "orders", "orders").write_batch_size == 20

    tree["tables"] = {"orders": {"batch_size": 30}}
    assert settings_of(load(write(tree)), "orders", "orders").write_batch_size == 30


@pytest.mark.parametrize(
    ("mode", "at_source", "at_schema", "capture"),
    [
        ("stream", None, None, Capture.LOG),
        ("stream", "trigger", None, Capture.TRIGGER),
        ("stream", "timestamp", "log", Capture.LOG),
        ("batch", None, None, Capture.TIMESTAMP),
        ("batch", "log", None, Capture.TIMESTAMP),
        ("batch", "trigger", None, Capture.TRIGGER),
        ("batch", "trigger", "hash", Capture.HASH),
    ],
)
def test_mode_and_strategy_agree_on_a_capture(
    mode: str, at_source: str | None, at_schema: str | None, capture: Capture, write: Any
) -> None:
    tree = {
        "source": {**ENDS["source"], "change_detection": {"strategy": at_source}},
        "destination": ENDS["destination"],
        "schemas": [{"name": "t", "mode": mode, "change_detection": {"strategy": at_schema}}],
    }

    assert settings_of(load(write(tree)), "t", "t").capture is capture


def test_flags_replace_an_address_together_with_what_belonged_to_it(write: Any) -> None:
    tree = {
        "source": {"type": "mysql", "connection_string_file": "/nowhere", "database": "old"},
        "destination": ENDS["destination"],
        "schemas": [{"name": "a"}],
    }

    settings = load(write(tree), flags={"source": "mongodb://other:27017/new"})

    assert (settings.source.type, settings.source.database) == ("mongodb", "new")


def test_a_database_beside_an_address_wins_over_the_address_s_own_path(write: Any) -> None:
    tree = {
        "source": {"connection_string": "mongodb://u:p@h/admin", "database": "shop"},
        "destination": ENDS["destination"],
        "schemas": [{"name": "a"}],
    }

    assert load(write(tree)).source.database == "shop"


def test_environment_names_reach_into_lists_and_keep_the_file_s_spelling(write: Any) -> None:
    tree = {**ENDS, "schemas": [{"name": "shop", "tables": {"Users": {}}}]}
    environment = {
        "CARTRIDGE_WARP_SCHEMAS__0__TABLES__USERS__WRITE_BATCH_SIZE": "7",
        "CARTRIDGE_WARP_SOURCE__READ_AHEAD": "9",
    }

    settings = load(write(tree), environment)

    assert settings_of(settings, "shop", "Users").write_batch_size == 7
    assert isinstance(settings.source.options, SourceOptions)
    assert settings.source.options.read_ahead == 9


def test_whole_blocks_may_come_from_the_environment_as_json() -> None:
    settings = load(
        environment={
            "CARTRIDGE_WARP_SOURCE": "mongodb://h/shop",
            "CARTRIDGE_WARP_DESTINATION": "postgresql://h/w",
            "CARTRIDGE_WARP_SCHEMA": "users",
            "CARTRIDGE_WARP_TABLES__USERS": '{"write_batch_size": 5}',
        }
    )

    assert settings_of(settings, "users", "users", "shop").write_batch_size == 5


def test_sizes_that_nobody_said_follow_the_load_where_each_transaction_is_dear(
    write: Any,
) -> None:
    sizes = ("stream_batch_size", "full_load_batch_size", "write_batch_size")
    tree = {
        **ENDS,
        "schemas": [{"name": "ecommerce"}],
        "tables": {"users": {"write_batch_size": 7}},
    }
    settings = load(write(tree), flags={"destination": "bigquery://warehouse"})
    users, others = (settings_of(settings, "ecommerce", name) for name in ("users", "orders"))
    assert (users.write_batch_size, users.auto_sizes) == (7, sizes[:2])
    assert others.auto_sizes == sizes
    assert [values(settings)[size] for size in sizes] == ["auto"] * 3
    assert settings_of(load(write(tree)), "ecommerce", "orders").auto_sizes == ()


def test_variables_that_kubernetes_sets_for_a_service_are_none_of_ours(write: Any) -> None:
    environment = {
        "CARTRIDGE_WARP_PORT": "tcp://10.0.0.1:8080",
        "CARTRIDGE_WARP_SERVICE_HOST": "10.0.0.1",
        "CARTRIDGE_WARP_PORT_8080_TCP_ADDR": "10.0.0.1",
    }

    assert load(CONFIG, environment).prometheus.port == 8080


def test_a_child_process_loads_the_very_settings_of_its_parent() -> None:
    flags = {"source": "mongodb://other/new", "schema": ("products",), "slots": 3, "redis": None}
    environment = {"CARTRIDGE_WARP_SOURCE__DATABASE": "from-environment"}
    parent = load(CONFIG, environment, flags)

    child = load(environment={**environment, **parent.environment})

    assert child == parent
    assert child.source.database == "new"
    assert load(environment={**environment, **parent.environment}, flags={"slots": 5}) != parent


def test_a_parent_s_flags_that_are_no_json_are_refused() -> None:
    with pytest.raises(ConfigError, match="unset it"):
        load(CONFIG, {INHERITED: "{"})


# What a schema means


def table_ids(settings: Settings, schema: str, namespaces: list[str]) -> set[str]:
    selection = settings.resolve(schema, namespaces)
    candidates = [
        TableId(n, t) for n in ("shop", "crm") for t in ("users", "orders", "audit_1", "shop")
    ]
    return {str(t) for t in candidates if selection(t) is not None}


@pytest.mark.parametrize(
    ("name", "tables", "namespaces", "expected"),
    [
        ("crm", None, ["shop", "crm"], {"crm.users", "crm.orders", "crm.audit_1", "crm.shop"}),
        ("users", None, ["shop", "crm"], {"shop.users"}),
        ("shop", None, ["shop"], {"shop.users", "shop.orders", "shop.audit_1", "shop.shop"}),
        ("shop", None, [], {"shop.users", "shop.orders", "shop.audit_1", "shop.shop"}),
        ("crm", ["users", "aud*"], ["crm"], {"crm.users", "crm.audit_1"}),
        ("crm", ["*", "!audit_*"], ["crm"], {"crm.users", "crm.orders", "crm.shop"}),
        ("crm", ["!audit_*"], ["crm"], {"crm.users", "crm.orders", "crm.shop"}),
        ("web", ["users", "orders"], ["shop"], {"shop.users", "shop.orders"}),
        ("web", {"users": {"write_batch_size": 5}}, ["shop"], {"shop.users"}),
        ("web", {"users": None}, ["shop"], {"shop.users"}),
        ("web", [{"name": "users", "batch_size": 5}], ["shop"], {"shop.users"}),
        ("web", "users", ["shop"], {"shop.users"}),
        ("web", ["shop.u*"], ["shop"], {"shop.users"}),
    ],
)
def test_a_schema_is_the_namespace_of_its_name_else_tables_of_the_database(
    name: str, tables: Any, namespaces: list[str], expected: set[str], write: Any
) -> None:
    tree = {**ENDS, "schemas": [{"name": name, "tables": tables}]}
    tree["source"] = {**ENDS["source"], "database": "shop"}

    assert table_ids(load(write(tree)), name, namespaces) == expected


def test_a_name_that_is_no_namespace_needs_a_database(write: Any) -> None:
    tree = {**ENDS, "schemas": [{"name": "users"}]}
    tree["source"] = {"connection_string": "mongodb://h"}
    settings = load(write(tree))

    assert settings.resolve("users", ["users"]).namespace == "users"
    with pytest.raises(ConfigError, match=r"source\.database"):
        settings.resolve("users", ["shop"])


def test_a_schema_that_is_not_configured_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(ConfigError, match="did you mean 'products'"):
        load(CONFIG, flags={"schema": ("product",)})
    with pytest.raises(ConfigError, match="did you mean 'orders'"):
        load(CONFIG).schema("ordres")


def test_destination_names_come_from_the_table_the_schema_the_destination_or_the_source(
    write: Any,
) -> None:
    tree = {
        **ENDS,
        "schemas": [
            {"name": "users"},
            {"name": "orders", "destination_schema": "finance"},
        ],
        "tables": {"orders": {"destination_table": "bookings"}},
    }
    settings = load(write(tree))
    assert settings_of(settings, "users", "users").destination == TableId("ecommerce", "users")
    assert settings_of(settings, "orders", "orders").destination == TableId("finance", "bookings")

    tree["destination"] = {**ENDS["destination"], "schema": "warehouse"}
    settings = load(write(tree))
    assert settings_of(settings, "users", "users").destination == TableId("warehouse", "users")


def test_settings_of_a_table_are_made_once(write: Any) -> None:
    selection = load(CONFIG).resolve("products", [])
    table = TableId("ecommerce", "products")

    assert selection(table) is selection(TableId("ecommerce", "products"))


def test_kinds_fixed_by_hand_add_up_over_the_levels(write: Any) -> None:
    tree = {
        **ENDS,
        "schemas": [{"name": "users", "tables": {"users": {"columns": {"age": "int64"}}}}],
        "tables": {"*": {"columns": {"age": "text", "price": "Decimal"}}},
    }

    users = settings_of(load(write(tree)), "users", "users")

    assert dict(users.columns) == {"age": Kind.INT64, "price": Kind.DECIMAL}


# Values


@pytest.mark.parametrize(
    ("written", "seconds"),
    [("500ms", 0.5), ("2s", 2), (2, 2), ("2", 2), (0.25, 0.25), ("1h30m", 5400), ("1d", 86_400)],
)
def test_durations_read_as_people_write_them(written: Any, seconds: float, write: Any) -> None:
    tree = {**ENDS, "schemas": [{"name": "t"}], "polling_interval": written}

    assert settings_of(load(write(tree)), "t", "t").polling_interval == seconds


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("${NAME}", "shop"),
        ("${MISSING:-spare}", "spare"),
        ("${EMPTY:-spare}", "spare"),
        ("${EMPTY}x", "x"),
        ("a-${NAME}-${NAME}", "a-shop-shop"),
        ("$${NAME}", "${NAME}"),
        ("$NAME", "$NAME"),
    ],
)
def test_variables_are_expanded_as_a_shell_would(written: str, read: str, write: Any) -> None:
    tree = {**ENDS, "schemas": [{"name": "t"}]}
    tree["source"] = {**ENDS["source"], "database": written}

    settings = load(write(tree), {"NAME": "shop", "EMPTY": ""})

    assert settings.source.database == read
    if read == "shop":
        assert origins(settings)["source.database"] == "config.yaml:3 (${NAME})"


def test_an_expanded_value_is_not_expanded_again(write: Any) -> None:
    tree = {**ENDS, "schemas": [{"name": "t"}]}
    tree["source"] = {**ENDS["source"], "database": "${A}"}

    assert load(write(tree), {"A": "${B}", "B": "x"}).source.database == "${B}"


def test_keys_left_empty_say_nothing(write: Any) -> None:
    empty = "monitoring:\ncoordination:\n  slots:\nschemas:\n  - name: t\n    schedule:\n"
    settings = load(write(yaml.safe_dump(ENDS) + empty))

    assert settings.coordination.slots == 8


def test_anchors_and_merge_keys_work(write: Any) -> None:
    text = yaml.safe_dump(ENDS) + (
        "tables:\n  users: &small\n    write_batch_size: 5\n    chunk_rows: 6\n"
        "  orders:\n    <<: *small\n    chunk_rows: 7\n"
        "schemas:\n  - name: orders\n"
    )

    orders = settings_of(load(write(text)), "orders", "orders")

    assert (orders.write_batch_size, orders.chunk_rows) == (5, 7)


# Secrets


@pytest.fixture
def secretive(write: Any, tmp_path: Path) -> Settings:
    (tmp_path / "warehouse").write_text(f"postgresql://writer:{PASSWORD}@db/warehouse\n")
    tree = {
        "source": {"connection_string": "mongodb://reader:${MONGO_PASSWORD}@db/shop?a=b"},
        "destination": {
            "type": "postgresql",
            "connection_string_file": str(tmp_path / "warehouse"),
        },
        "schemas": [{"name": "t"}],
        "coordination": {"redis_url": f"redis://:{PASSWORD}@cache:6379/0"},
    }
    return load(write(tree), {"MONGO_PASSWORD": PASSWORD})


@pytest.mark.holds(guarantee=10, source="none", destination="pretended", fault="planted passwords")
def test_no_text_made_of_settings_holds_a_secret(secretive: Settings) -> None:
    shown = [
        repr(secretive),
        str(secretive.source.options),
        repr(secretive.destination.options),
        secretive.source.options.model_dump_json(),
        json.dumps([[e.path, e.value, e.origin] for e in secretive.effective]),
    ]

    assert not [text for text in shown if PASSWORD in text]
    assert values(secretive)["coordination.redis_url"] == "redis://:***@cache:6379/0"
    assert values(secretive)["source.connection_string"].startswith("mongodb://reader:***@db/")
    assert secretive.source.location == "mongodb://reader:***@db/shop"


def test_whoever_needs_the_secret_has_it(secretive: Settings) -> None:
    assert isinstance(secretive.destination.options, DestinationOptions)
    assert secretive.destination.options.url == f"postgresql://writer:{PASSWORD}@db/warehouse"
    assert secretive.coordination.redis_url == f"redis://:{PASSWORD}@cache:6379/0"
    assert PASSWORD in secretive.secrets
    assert "warehouse)" in origins(secretive)["destination.connection_string"]


@pytest.mark.holds(guarantee=10, source="none", destination="pretended", fault="planted passwords")
def test_the_digest_holds_no_secret_and_not_what_differs_between_processes(write: Any) -> None:
    tree = {**ENDS, "schemas": [{"name": "t"}]}
    digest = load(write(tree), flags={"source": "mongodb://u:one@h/d"}).digest

    same = {"source": "mongodb://u:two@h/d", "slots": 5, "port": 9, "redis": "redis://other"}
    assert load(write(tree), flags=same).digest == digest
    assert load(write(tree), flags={"source": "mongodb://u:one@h/other"}).digest != digest
    tree["schemas"] = [{"name": "t", "write_batch_size": 5}]
    assert load(write(tree), flags={"source": "mongodb://u:one@h/d"}).digest != digest


def test_a_port_on_the_command_line_turns_the_metrics_on() -> None:
    settings = load(
        flags={"source": "mongodb://h/d", "destination": "postgresql://h", "schema": ("t",)}
        | {"port": 0}
    )

    assert (settings.prometheus.enabled, settings.prometheus.port) == (True, 0)
