"""The `source:` block of type `postgresql`."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from warp.capture import names
from warp.options import ConnectorOptions, Count, Duration, PositiveDuration, Size, Text
from warp.options import expected as _expected
from warp.postgresql_url import PostgresUrl


def _slot_name(value: Any) -> Any:
    if not re.fullmatch(r"[a-z0-9_]{1,63}", value):
        raise _expected("a slot's name: up to 63 lower-case letters, digits and underscores")
    return value


class PostgresSourceOptions(ConnectorOptions):
    """The `source:` block of type `postgresql`."""

    connection_string: PostgresUrl = Field(
        description="postgresql://user:password@host:5432/database; libpq keywords work too"
    )
    slot: Annotated[Text, AfterValidator(_slot_name)] = Field(
        default="cartridge_warp",
        description="replication slot, made where it is not there; one for each deployment",
    )
    publication: Text = Field(
        default="cartridge_warp",
        description="publication of the selected tables, made where it is not there",
    )
    capture_schema: Text = Field(
        default=names.SCHEMA,
        description="schema for the queues of tables with `strategy: trigger`, made where it is "
        "not there",
    )
    slot_timeout: PositiveDuration = Field(
        default=20.0,
        description="how long making the slot may wait for transactions that are open",
    )
    snapshot_wait: PositiveDuration = Field(
        default=20.0,
        description="how long a chunk may wait for transactions that wrote to its table",
    )
    spill_after: Size = Field(
        default=16 << 20,
        description="bytes of unfinished large transactions kept in memory; more goes to a "
        "temporary file",
    )
    connect_timeout: PositiveDuration = Field(
        default=5.0, description="how long to wait for the server to accept a connection"
    )
    statement_timeout: Duration = Field(
        default=60.0, description="longest single look into the catalog; 0 for none"
    )
    application_name: Text = Field(
        default="cartridge-warp", description="what pg_stat_activity shows"
    )
    keepalive_idle: Count = Field(
        default=5, description="seconds of silence before the connection is probed"
    )
