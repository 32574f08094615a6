"""The random trial of the hand-over, with MariaDB (or MySQL) as its source.

The duties, owners, crashes and the comparison's rules are those of `handover_trial`; here are the
writer, whose transactions commit while views are taken, and how rows are read at both sides.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import pymysql
from fix_servers import mysql_client
from handover_trial import IDLE, LIMIT, MAIN, SIDE, STAGED, Setting, Trial, crashing

from warp.model import ChangeBatch, Position, TableId, TableSelection
from warp.sources.mysql import MysqlOptions, MysqlSource

PACE = 0.03  # seconds
_TABLE = (
    "(k varchar(12) COLLATE utf8mb4_general_ci, n int, v bigint, name text, "
    "amount decimal(20,4), at datetime(3), PRIMARY KEY (k, n))"
)


class ReplayingMysql(MysqlSource):
    """Starts earlier than it was asked to, as a source may that cannot resume exactly."""

    earlier: Position | None = None

    def get_changes(
        self, position: Position, *, selection: TableSelection, idle: float
    ) -> Iterator[ChangeBatch]:
        return super().get_changes(self.earlier or position, selection=selection, idle=IDLE)


class MysqlTrial(Trial):
    """One trial, in a database, a schema and a metadata schema of its own."""

    def source(self) -> Any:
        return ReplayingMysql(
            MysqlOptions.model_validate({"connection_string": self._url}), self.selection
        )

    def run(self) -> Any:
        started = time.monotonic()
        writer = MysqlWriter(self._url, self.name, self.setting, self._written)
        with (
            crashing(),
            closing(self.source()) as source,
            closing(self.destination()) as destination,
        ):
            destination.metadata().prepare()
            writer.fill()
            changing = threading.Thread(target=self._guarded, args=(writer.run,))
            try:
                changing.start()
                self._coordinate(source, destination, started + LIMIT)
                self._compare_tables(writer)
            finally:
                self._over.set()
                self._join(changing)
                writer.drop()
                self._tidy()
            self.outcome.counts.update(writer.counts)
        self.outcome.seconds = time.monotonic() - started
        return self.outcome

    def _compare_tables(self, writer: MysqlWriter) -> None:
        for name, key in ((MAIN, ("k", "n")), (SIDE, ("id",))):
            expected = {tuple(row[k] for k in key): row for row in writer.rows(name)}
            found = self._landed(TableId(self.name, name), key)
            self.outcome.counts["rows"] += len(expected)
            for at in sorted(expected.keys() | found.keys()):
                if expected.get(at) != found.get(at):
                    self.outcome.wrong.append(
                        f"{name} {at}: expected {expected.get(at)}, found {found.get(at)}"
                    )

    def _landed(self, table: TableId, key: tuple[str, ...]) -> dict[Any, dict[str, Any]]:
        rows = self.site.rows(TableId(self.selection.place, table.name))
        found = {}
        gone = self.selection.soft_delete_column
        for row in rows:
            at = tuple(row[name] for name in key)
            if row["_cw_deleted"]:
                self.outcome.wrong.append(f"{table.name} {at}: a tombstone is left")
            elif not (gone and row[gone]):
                found[at] = {
                    name: value
                    for name, value in row.items()
                    if not name.startswith("_cw_") and name != gone
                }
        return found


class MysqlWriter:
    """Changes the source: single statements, transactions, and now and then a whole table."""

    def __init__(self, url: str, database: str, setting: Setting, done: threading.Event) -> None:
        self._connection = mysql_client(url)
        self._database = database
        self._setting = setting
        self._done = done
        self._luck = random.Random(f"{setting.seed} writer")
        self._number = 0
        self._keys = [self._key(n) for n in range(setting.documents)]
        self.counts: dict[str, int] = {}

    def _key(self, number: int) -> tuple[str, int]:
        letters = "".join(self._luck.choices("aBcD Éß", k=self._luck.randint(1, 3)))
        return letters.strip() + "x", number

    def _sql(self, statement: str, arguments: Any = None) -> None:
        with self._connection.cursor() as cursor:
            cursor.execute(statement, arguments)

    def rows(self, table: str) -> list[dict[str, Any]]:
        with self._connection.cursor(pymysql.cursors.DictCursor) as cursor:
            cursor.execute(f"SELECT * FROM {table}")
            return list(cursor.fetchall())

    def drop(self) -> None:
        self._sql(f"DROP DATABASE {self._database}")
        self._connection.close()

    def fill(self) -> None:
        self._sql(f"CREATE DATABASE {self._database} CHARACTER SET utf8mb4")
        self._connection.select_db(self._database)
        self._sql(f"CREATE TABLE {MAIN} {_TABLE}")
        self._sql(f"CREATE TABLE {SIDE} (id int PRIMARY KEY, v bigint)")
        self._connection.begin()
        for key in self._keys:
            if self._luck.random() < 0.8:
                self._put(key)
        for id in range(20):
            self._sql(f"INSERT INTO {SIDE} VALUES ({id}, {id})")
        self._connection.commit()

    def run(self) -> None:
        for _ in range(self._setting.changes):
            kind = self._choose()
            self.counts[kind] = self.counts.get(kind, 0) + 1
            getattr(self, f"_{kind}")()
            time.sleep(self._luck.choice([0, 0, PACE]))  # so that views are taken in between
        self._done.set()

    def _choose(self) -> str:
        drawn = self._luck.random()
        if drawn < self._setting.structural:
            return self._luck.choice(["truncate", "rename_over", "default"])
        if drawn < self._setting.structural + self._setting.transactions:
            return "transaction"
        return self._luck.choice(["replace", "update", "update", "delete", "move", "side"])

    def _body(self) -> list[Any]:
        self._number += 1
        number, luck = self._number, self._luck
        at = datetime(2020, 1, 1, tzinfo=UTC) + timedelta(milliseconds=number * 7_919)
        return [
            number,
            f"n{number} é",
            luck.choice([None, number, f"{number}.25"]),
            at.replace(tzinfo=None),
        ]

    def _put(self, key: tuple[str, int], table: str = MAIN) -> None:
        # REPLACE would be logged as a change of key; this is an update.
        self._sql(
            f"INSERT INTO {table} VALUES (%s, %s, %s, %s, %s, %s) ON DUPLICATE KEY UPDATE "
            "v = VALUES(v), name = VALUES(name), amount = VALUES(amount), at = VALUES(at)",
            [*key, *self._body()],
        )

    def _replace(self) -> None:
        self._put(self._luck.choice(self._keys))

    def _update(self) -> None:
        n, v = self._luck.choice(self._keys)[1], self._body()[0]
        self._sql(f"UPDATE {MAIN} SET v = %s WHERE n BETWEEN %s AND %s", [v, n, n + 2])

    def _delete(self) -> None:
        self._sql(f"DELETE FROM {MAIN} WHERE n = %s", [self._luck.choice(self._keys)[1]])

    def _move(self) -> None:
        """Another key for a row; or only another case, which is the same key to the source."""
        n = self._luck.choice(self._keys)[1]
        change = self._luck.choice(["k = UPPER(k)", "k = LOWER(k)", f"n = {n + 1}"])
        with suppress(pymysql.err.IntegrityError):
            self._sql(f"UPDATE {MAIN} SET {change} WHERE n = %s", [n])

    def _side(self) -> None:
        id = self._luck.randrange(25)
        if self._luck.random() < 0.3:
            self._sql(f"DELETE FROM {SIDE} WHERE id = %s", [id])
        else:
            self._sql(f"REPLACE INTO {SIDE} VALUES (%s, %s)", [id, self._body()[0]])

    def _transaction(self) -> None:
        """Several changes of one key, and some of other keys."""
        key = self._luck.choice(self._keys)
        self._connection.begin()
        self._sql(f"DELETE FROM {MAIN} WHERE k = %s AND n = %s", key)
        self._put(key)
        self._update()
        if self._luck.random() < 0.4:
            self._sql(f"DELETE FROM {MAIN} WHERE k = %s AND n = %s", key)
        for other in self._luck.sample(self._keys, self._luck.randint(0, 4)):
            self._put(other)
        if self._luck.random() < 0.1:
            self._connection.rollback()
        else:
            self._connection.commit()

    def _truncate(self) -> None:
        self._sql(f"TRUNCATE TABLE {MAIN}")

    def _rename_over(self) -> None:
        self._sql(f"CREATE TABLE {STAGED} LIKE {MAIN}")
        self._connection.begin()
        for key in self._luck.sample(self._keys, len(self._keys) // 2):
            self._put(key, STAGED)
        self._connection.commit()
        self._sql(f"RENAME TABLE {MAIN} TO away, {STAGED} TO {MAIN}")
        self._sql("DROP TABLE away")

    def _default(self) -> None:
        """Rows get another value without an event."""
        self._sql(f"ALTER TABLE {MAIN} MODIFY amount decimal(20,{self._luck.randint(1, 4)})")
