"""A source with a known history, and a destination whose triggers log every change of a row or of
a marker together with the transaction that made it.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import programs
import psycopg
import pymongo
from one_unit import TABLE, Order
from psycopg import sql

from warp import faults
from warp.model import Change, Chunk, Phase, Position, SchemaChange, TableId, UnitKind, WorkUnit
from warp.own_process import Running

POISON = frozenset({5, 17, 33})  # keys whose row the destination refuses
DELETED = range(20, 30)


@dataclass(frozen=True, slots=True)
class History:
    """What happened at the source, from `start` to `end`."""

    mongo: str
    namespace: str
    start: Position
    end: Position
    rows: dict[int, int]  # key -> v, as they are in the end


def write_history(mongo: str, namespace: str) -> History:
    """Changes of each key lie further apart than a batch is long, so none is compacted away."""
    table = TableId(namespace, TABLE)
    order = Order(mongo, "postgresql://", namespace, namespace, "stream", 0, "")
    with (
        pymongo.MongoClient[dict[str, Any]](mongo) as client,
        closing(order.source()) as source,
    ):
        collection = client[namespace][TABLE]
        collection.insert_one({"_id": -1, "v": -1})
        collection.delete_one({"_id": -1})
        start = source.position()
        for key in range(40):
            collection.insert_one({"_id": key, "v": 13 if key in POISON else 1000 + key})
        for key in range(8, 20):
            if key not in POISON:
                collection.update_one({"_id": key}, {"$set": {"v": 2000 + key}})
        for key in DELETED:
            collection.delete_one({"_id": key})
        for key in range(40, 52):
            collection.insert_one({"_id": key, "v": 1000 + key})
        rows = {d["_id"]: d["v"] for d in collection.find() if d["_id"] not in POISON}
        if source.tables() != [table]:
            raise AssertionError("the collection is there")
        return History(mongo, namespace, start, source.position(), rows)


LOG = """
create schema {log};
create table {log}.rows (
    n bigint generated always as identity, operation text, key bigint, version bigint, txid bigint
);
create table {log}.markers (
    n bigint generated always as identity, unit text, fence_before bigint, fence bigint,
    batch_before bigint, batch bigint, txid bigint
);
create function {log}.row_changed() returns trigger language plpgsql as $$ begin
    insert into {log}.rows (operation, key, version, txid) values
        (tg_op, coalesce(new._id, old._id), coalesce(new._cw_version, old._cw_version),
         txid_current());
    return null;
end $$;
create function {log}.marker_changed() returns trigger language plpgsql as $$ begin
    insert into {log}.markers (unit, fence_before, fence, batch_before, batch, txid) values
        (new.unit, old.fence, new.fence, old.batch, new.batch, txid_current());
    return null;
end $$;
create trigger logged after insert or update or delete on {table}
    for each row execute function {log}.row_changed();
create trigger logged after update on {markers}
    for each row execute function {log}.marker_changed();
alter table {table} add check (v is distinct from 13);
"""


@dataclass(frozen=True, slots=True)
class Owner:
    """A process that runs an order, and where it answers how it ended."""

    process: Running
    answer: Path


@dataclass(slots=True)
class Watched:
    """One case: its own schema, metadata and logs in a shared database."""

    history: History
    postgres: str
    place: str
    kind: str
    _fence: int = 0
    owners: list[Owner] = field(default_factory=list)
    answers: TemporaryDirectory[str] = field(default_factory=TemporaryDirectory)

    def order(self, **changes: Any) -> Order:
        """The next owner of the unit."""
        self._fence += 1
        made = Order(
            self.history.mongo,
            self.postgres,
            self.history.namespace,
            self.place,
            self.kind,
            self._fence,
            self.history.end.token,
        )
        return replace(made, **changes)

    def prepare(self) -> None:
        """The table, empty and with its triggers; the unit, where its work begins."""
        order = self.order()
        with closing(order.source()) as source, closing(order.destination()) as destination:
            metadata = destination.metadata()
            metadata.prepare()
            proposal = source.get_schema([order.table])[order.table]
            destination.apply_schema_changes(
                [SchemaChange(order.table, Change.CREATE_TABLE, schema=proposal)]
            )
            namespace = order.namespace
            if self.kind == "stream":
                metadata.register(order.unit, position=self.history.start, phase=Phase.STREAMING)
                metadata.mark(WorkUnit.of_table(namespace, order.table).id, Phase.STREAMING)
            else:
                metadata.plan_snapshot(
                    namespace, order.table, [Chunk(order.table, 0)], version=source.version()
                )
        self._run(
            sql.SQL(LOG).format(
                log=sql.Identifier(f"{self.place}_log"),
                table=sql.Identifier(self.place, TABLE),
                markers=sql.Identifier(f"cw_{self.place}", "sync_markers"),
            )
        )

    def start(self, order: Order, fault: str = "") -> Owner:
        """The order in a process of its own, which strikes at a fault point."""
        answer = Path(self.answers.name, str(len(self.owners)))
        environment = os.environ | {faults.VARIABLE: fault}
        process = programs.start(
            "one_unit", json.dumps(asdict(order)), env=environment, stdout=answer
        )
        self.owners.append(Owner(process, answer))
        return self.owners[-1]

    def close(self) -> None:
        for owner in self.owners:
            owner.process.kill()
            owner.process.wait()
        self.answers.cleanup()
        with psycopg.connect(self.postgres, autocommit=True) as connection:
            connection.execute("set client_min_messages = warning")
            for schema in (self.place, f"cw_{self.place}", f"{self.place}_log"):
                drop = sql.SQL("drop schema if exists {} cascade").format(sql.Identifier(schema))
                connection.execute(drop)

    # -- what was seen

    def ask(self, query: str) -> list[tuple[Any, ...]]:
        """Rows of a query, in which {meta}, {data} and {log} are this case's schemas."""
        return self._run(
            sql.SQL(query).format(
                meta=sql.Identifier(f"cw_{self.place}"),
                data=sql.Identifier(self.place),
                log=sql.Identifier(f"{self.place}_log"),
            )
        )

    def _run(self, query: sql.Composed) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.postgres, autocommit=True) as connection:
            cursor = connection.execute(query)
            return cursor.fetchall() if cursor.description else []

    def wrongs(self) -> list[str]:
        """Everything that is not as it must be, once the last owner is done."""
        return [
            *self._rows_wrong(),
            *self._markers_wrong(),
            *self._applied_twice(),
            *self._set_aside_wrong(),
        ]

    def _rows_wrong(self) -> list[str]:
        found = dict(self.ask("select _id, v from {data}.orders where not _cw_deleted"))
        expected = self.history.rows
        wrong = [f"lost: {key}" for key in expected.keys() - found.keys()]
        wrong += [f"too much: {key}" for key in found.keys() - expected.keys()]
        both = found.keys() & expected.keys()
        return wrong + [f"differs: {key}" for key in both if found[key] != expected[key]]

    def _markers_wrong(self) -> list[str]:
        wrong = []
        batches: dict[str, int] = {}
        fences: dict[str, int] = {}
        for unit, fence_before, fence, batch_before, batch in self.ask(
            "select unit, fence_before, fence, batch_before, batch from {log}.markers order by n"
        ):
            if fence < fence_before or fence < fences.get(unit, 0):
                wrong.append(f"the fence of {unit} fell to {fence}")
            if batch_before != batches.get(unit, 0) or batch - batch_before not in (0, 1):
                wrong.append(f"{unit} went from batch {batch_before} to {batch}")
            fences[unit], batches[unit] = fence, batch
        return wrong

    def _applied_twice(self) -> list[str]:
        """A change applied by two transactions, or by one that moved no marker."""
        twice = self.ask(
            "select operation = 'DELETE', key, version, count(distinct txid) from {log}.rows"
            " group by 1, 2, 3 having count(distinct txid) > 1"
        )
        alone = self.ask(
            "select key, version from {log}.rows r where not exists"
            " (select from {log}.markers m where m.txid = r.txid and m.batch > m.batch_before)"
        )
        wrong = [f"row {key} at {version} in {n} transactions" for _, key, version, n in twice]
        return wrong + [f"row {key} at {version} without its marker" for key, version in alone]

    def _set_aside_wrong(self) -> list[str]:
        aside = Counter(key for (key,) in self.ask("select key from {meta}.quarantine"))
        audit = Counter(
            key for (key,) in self.ask("select (key ->> '_id')::int from {meta}.deletion_audit")
        )
        gone = DELETED if self.kind == "stream" else ()
        wrong = []
        if aside != Counter(f'{{"_id": {key}}}' for key in POISON):
            wrong.append(f"quarantine: {dict(aside)}")
        if audit != Counter(gone):
            wrong.append(f"deletion audit: {dict(audit)}")
        return wrong

    def settle(self) -> None:
        """As the coordinator does when the last chunk is done."""
        order = self.order()
        with closing(order.destination()) as destination:
            if self.kind == "chunk" and not destination.metadata().settle(
                order.namespace, order.table
            ):
                raise AssertionError("the chunk is done")

    def marker(self) -> Any:
        order = self.order()
        with closing(order.destination()) as destination:
            kind = UnitKind(self.kind)
            return next(m for m in destination.metadata().markers([kind]))
