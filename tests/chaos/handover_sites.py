"""Where the trials of the hand-over write to."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import psycopg
from fix_servers import mysql_client
from psycopg import sql
from psycopg.rows import dict_row
from pymysql.cursors import DictCursor

from warp.destinations.mysql import MysqlDestination, MysqlWriterOptions
from warp.destinations.postgresql import PostgresDestination, PostgresOptions
from warp.interfaces import DestinationConnector
from warp.model import Column, Kind, TableId, TableSelection


@dataclass(frozen=True, slots=True)
class Site(ABC):
    """A shared server, on which each trial has schemas of its own."""

    url: str

    @abstractmethod
    def destination(self, metadata: str, selection: TableSelection) -> DestinationConnector: ...

    @abstractmethod
    def rows(self, table: TableId) -> Sequence[dict[str, Any]]:
        """All of a table, tombstones too."""

    @abstractmethod
    def drop(self, schema: str) -> None: ...

    def plain(self, _column: Column, cell: Any) -> Any:
        """A cell as the driver of PostgreSQL hands it out."""
        return cell


class AtPostgres(Site):
    def destination(self, metadata: str, selection: TableSelection) -> DestinationConnector:
        options = {"connection_string": self.url, "metadata_schema": metadata}
        return PostgresDestination(PostgresOptions.model_validate(options), selection)

    def rows(self, table: TableId) -> Sequence[dict[str, Any]]:
        with psycopg.connect(self.url, row_factory=dict_row) as connection:
            return connection.execute(
                sql.SQL("select * from {}").format(sql.Identifier(table.namespace, table.name))
            ).fetchall()

    def drop(self, schema: str) -> None:
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute("set client_min_messages = warning")
            drop = sql.SQL("drop schema if exists {} cascade").format(sql.Identifier(schema))
            connection.execute(drop)


class AtMariaDb(Site):
    def destination(self, metadata: str, selection: TableSelection) -> DestinationConnector:
        options = {"connection_string": self.url, "metadata_schema": metadata}
        return MysqlDestination(MysqlWriterOptions.model_validate(options), selection)

    def rows(self, table: TableId) -> Sequence[dict[str, Any]]:
        with mysql_client(self.url) as connection, connection.cursor(DictCursor) as cursor:
            cursor.execute(f"select * from `{table.namespace}`.`{table.name}`")
            return list(cursor.fetchall())

    def drop(self, schema: str) -> None:
        with mysql_client(self.url) as connection, connection.cursor() as cursor:
            cursor.execute(f"drop database if exists `{schema}`")

    def plain(self, column: Column, cell: Any) -> Any:
        if isinstance(cell, str) and column.kind in (Kind.JSON, Kind.JSON_TEXT):
            return json.loads(cell)
        if isinstance(cell, datetime) and column.kind is Kind.TIMESTAMP:
            return cell.replace(tzinfo=UTC)
        return cell
