"""The rows of a table of MySQL summed up: by the server, where its functions give the forms of all
the columns, else by us, who read them page by page.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import pymysql

from warp.destinations.mysql import formless, merge, reading, witness
from warp.destinations.mysql.errors import DUPLICATE, NotAsSent, code_of, is_of_a_value
from warp.destinations.mysql.loading import Into, Loader, into, rows_of
from warp.destinations.mysql.merge import Landing
from warp.destinations.mysql.names import fitting, quoted
from warp.destinations.mysql.session import Session
from warp.destinations.mysql.tables import as_registered
from warp.destinations.sql import markers
from warp.destinations.sql.landing import selected
from warp.digest import canonical, servers
from warp.digest.canonical import HASH_BYTES
from warp.digest.comparing import Key, Stored
from warp.digest.seams import EVERYTHING, Bound, Compared, KeyRange
from warp.digest.sums import LEAVES, Sums, leaves_of, total
from warp.model import (
    Cells,
    Column,
    Kind,
    Marker,
    TableSchema,
    TableSelection,
    UnitKind,
)

_LOOKS: Final = 3  # another writer of the table may put a row in a place at the same time


class MysqlComparing:
    """As `warp.digest.seams.Comparing`."""

    def __init__(self, session: Session, selection: TableSelection, loader: Loader) -> None:
        self._session = session
        self._selection = selection
        self._loader = loader
        self._audited: int | None = None  # the last line of the audit before the first look
        self._landings: dict[TableSchema, Landing] = {}

    def total(self, compared: Compared, where: KeyRange) -> Sums:
        with self._asking(compared):
            return self._total(compared, where)

    def leaves(self, compared: Compared, where: KeyRange) -> dict[int, Sums]:
        leaf = _leaf(compared)
        with self._asking(compared):
            if leaf is not None and (text := _text(compared.columns)) is not None:
                found = self._session.run(
                    f"select {leaf}, {servers.mysql_sums(text)} {self._from(compared, where)}"
                    " group by 1"
                ).fetchall()
                if all(rows == hashed for _, rows, hashed, *_ in found):
                    return {int(of): Sums.told(rows, high, low) for of, rows, _, high, low in found}
            leaves: dict[int, list[bytes]] = {}
            for key, hashes in self._hashed(compared, where):
                for of, hash_ in zip(leaves_of(compared.key, key), hashes, strict=True):
                    leaves.setdefault(of, []).append(hash_)
            return {of: Sums.of(hashes) for of, hashes in leaves.items()}

    def rows(
        self, compared: Compared, where: KeyRange, leaves: Sequence[int]
    ) -> list[tuple[Key, bytes]]:
        wanted = frozenset(leaves)
        with self._asking(compared):
            found = self._listed(compared, where, wanted)
            if found is not None:
                return found
            return [
                (key, hash_)
                for cells, hashes in self._hashed(compared, where)
                for key, hash_, of in zip(
                    canonical.forms_of(compared.key, cells),
                    hashes,
                    leaves_of(compared.key, cells),
                    strict=True,
                )
                if of in wanted
            ]

    def look(self, compared: Compared, keys: Sequence[Cells]) -> list[Stored | None]:
        with self._asking(compared):
            if self._audited is None:
                self._audited = self._last_audited()
            stored: list[Stored | None] = [None] * len(keys[0])
            columns = compared.columns

            def look(landing: Landing) -> None:
                [statement] = merge.whole(landing, cells=reading.selected(columns))
                found = self._session.run(statement).fetchall()
                if found:
                    cells = reading.carriers(columns, [row[3:] for row in found])
                    forms = canonical.forms_of(columns, cells)
                    for (place, version, gone, *_), of in zip(found, forms, strict=True):
                        stored[place] = Stored(version, bool(gone), of)
                [statement] = merge.deleted(landing, since="id > %(after)s")
                for place, version in self._session.run(
                    statement, {"after": self._audited}
                ).fetchall():
                    # A row that comes and goes may be absent at each look and there at the source
                    # each time; that it has gone in between tells it from one that is missing.
                    if stored[place] is None:
                        stored[place] = Stored(version, True, ())

            self._with_keys(compared, keys, look)
            return stored

    def together(self, tables: Sequence[Compared]) -> tuple[list[Sums], list[Marker]]:
        with self._session.meaning("summing up tables"), self._session.patience():
            self._session.run("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            self._session.run("START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY")
            try:
                found = []
                for compared in tables:
                    with as_registered(compared.schema.table):
                        found.append(self._total(compared, EVERYTHING))
                streams = self._session.named(
                    "read_markers", any_kind=False, kinds=[UnitKind.STREAM.value]
                ).fetchall()
            finally:
                self._session.rollback()
            return found, [markers.from_row(self._session, row) for row in streams]

    def recount(
        self,
        place: tuple[str, str],
        columns: Sequence[tuple[str, str]],
        soft_delete_column: str | None,
    ) -> tuple[int, str]:
        return witness.recount(self._session, place, columns, soft_delete_column)

    def single_out(self, compared: Compared, keys: Sequence[Cells]) -> None:
        """Nothing to do: the table's key lets no two rows be, and each has a version."""

    def hold_places(self, compared: Compared, keys: Sequence[Cells], version: int) -> None:
        def hold(landing: Landing) -> None:
            [statement] = merge.hold_places(landing)
            for look in range(1, _LOOKS + 1):
                try:
                    self._session.run(statement, {"version": version})
                    return
                except pymysql.err.IntegrityError as error:
                    if code_of(error) != DUPLICATE or look == _LOOKS:
                        raise

        with self._session.meaning(f"holding places in {compared.schema.table}"):
            self._with_keys(compared, keys, hold)

    def keeps_forms(self, compared: Compared) -> bool:
        return True

    def kept(self, compared: Compared, cells: Sequence[Cells]) -> Sequence[Cells]:
        return formless.nulled(compared.columns, cells, compared.schema.key)

    # -- rows, by the server or by us

    def _total(self, compared: Compared, where: KeyRange) -> Sums:
        if (text := _text(compared.columns)) is not None:
            [(rows, hashed, high, low)] = self._session.run(
                f"select {servers.mysql_sums(text)} {self._from(compared, where)}"
            ).fetchall()
            # The server has no hash of a row beyond max_allowed_packet.
            if rows == hashed:
                return Sums.told(rows, high, low)
        return total(Sums.of(hashes) for _, hashes in self._hashed(compared, where))

    def _listed(
        self, compared: Compared, where: KeyRange, leaves: frozenset[int]
    ) -> list[tuple[Key, bytes]] | None:
        text, leaf = _text(compared.columns), _leaf(compared)
        if text is None or leaf is None:
            return None
        among = "true" if len(leaves) == LEAVES else f"{leaf} in %(leaves)s"
        found = self._session.run(
            f"select left(sha2({text}, 256), {2 * HASH_BYTES}), {reading.selected(compared.key)}"
            f" {self._from(compared, where)} and {among}",
            {"leaves": sorted(leaves)},
        ).fetchall()
        if not found:
            return []
        if any(hash_ is None for hash_, *_ in found):
            return None
        keys = reading.carriers(compared.key, [key for _, *key in found])
        hashes = (bytes.fromhex(hash_) for hash_, *_ in found)
        return list(zip(canonical.forms_of(compared.key, keys), hashes, strict=True))

    def _hashed(
        self, compared: Compared, where: KeyRange
    ) -> Iterator[tuple[list[list[Any]], list[bytes]]]:
        """The keys' columns and the hashes of the rows, some at a time."""
        columns = compared.columns
        at = {column.name: place for place, column in enumerate(columns)}
        places = [at[column.name] for column in compared.key]
        for page in self._session.pages(
            f"select {reading.selected(columns)} {self._from(compared, where)}"
        ):
            cells = reading.carriers(columns, page)
            yield [cells[place] for place in places], canonical.row_hashes(columns, cells)

    # -- keys, by a temporary table of them

    def _with_keys(
        self, compared: Compared, keys: Sequence[Cells], work: Callable[[Landing], None]
    ) -> None:
        """With all keys staged; each alone where one of them has no form here, and is of no row."""
        numbers = list(range(len(keys[0])))
        if not self._takes(compared, keys, numbers, work):
            for number in numbers:
                one = [column[number : number + 1] for column in keys]
                self._takes(compared, one, [number], work)

    def _takes(
        self,
        compared: Compared,
        keys: Sequence[Cells],
        numbers: list[int],
        work: Callable[[Landing], None],
    ) -> bool:
        try:
            self._staged(compared, keys, numbers, work)
        except (pymysql.err.Error, NotAsSent, UnicodeError, OverflowError) as error:
            if self._session.lost or not is_of_a_value(error):
                raise
            return False
        return True

    def _staged(
        self,
        compared: Compared,
        keys: Sequence[Cells],
        numbers: list[int],
        work: Callable[[Landing], None],
    ) -> None:
        landing = self._landing(compared)
        self._session.run(merge.drop_staging(landing))
        self._session.run(merge.staging_table(landing))
        places = [Into(f"c{n}", column) for n, column in enumerate(compared.key)]
        self._loader.load(
            landing.staged,
            [*places, into("v", Kind.INT64)],
            [*map(list, keys), numbers],
            rows=len(numbers),
        )
        work(landing)
        self._session.run(merge.drop_staging(landing))

    def _landing(self, compared: Compared) -> Landing:
        """The table by its key alone."""
        schema = compared.schema
        found = self._landings.get(schema)
        if found is None:
            settings = selected(self._selection, schema.table, place=self._session.place)
            soft = settings.soft_delete_column
            found = self._landings[schema] = Landing(
                TableSchema(schema.table, compared.key, schema.key),
                settings.destination,
                f"cw_keys_{len(self._landings)}",
                None if soft is None else fitting(soft),
                self._session.meta,
                collation=self._session.collation,
            )
        return found

    def _last_audited(self) -> int:
        audit = quoted(self._session.meta, "deletion_audit")
        row = self._session.run(f"select coalesce(max(id), 0) from {audit}").fetchone()
        return int(row[0]) if row is not None else 0

    # -- the statements' parts

    @contextmanager
    def _asking(self, compared: Compared) -> Iterator[None]:
        """Without a limit for the statement, and without a transaction.  A table that moved
        meanwhile says SchemaMoved, as for whoever writes to it."""
        table = compared.schema.table
        with (
            self._session.meaning(f"summing up rows of {table}"),
            self._session.patience(),
            as_registered(table),
        ):
            yield

    def _from(self, compared: Compared, where: KeyRange) -> str:
        """The live rows of a key range."""
        landing = self._landing(compared)
        conditions = [f"not {merge.gone(landing)}"]
        for bound, strict, inclusive in ((where.lower, ">", True), (where.upper, "<", False)):
            if bound is not None:
                names = [f"d.{quoted(column.name)}" for column in compared.key]
                conditions.append(
                    merge.beyond(names, _literals(compared.key, bound), strict, inclusive=inclusive)
                )
        return f"from {landing.table} as d where {' and '.join(conditions)}"


def _literals(key: Sequence[Column], bound: Bound) -> list[str]:
    return [
        next(iter(rows_of([Into("", column)], [[cell]], 1))).replace("%", "%%")
        for column, cell in zip(key, bound, strict=True)
    ]


def _text(columns: Sequence[Column]) -> str | None:
    """The text of a row in the server's SQL; None where it has no form of a kind among them."""
    return servers.mysql_text([(column.kind, _expression(column)) for column in columns])


def _leaf(compared: Compared) -> str | None:
    text = _text(compared.key)
    return None if text is None else servers.mysql_leaf(text)


def _expression(column: Column) -> str:
    cell = f"d.{quoted(column.name)}"
    return f"hex({cell})" if column.kind is Kind.UUID else cell
