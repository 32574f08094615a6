"""Every BSON type from a real MongoDB into a real PostgreSQL, by snapshot and by stream.

docs/types/mongodb.md says what becomes of each; this holds it, cell by cell.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import bson
import psycopg
import pytest
from any_bson import Cell, document, meaning, text_of
from bson import Binary, Code, DBRef, Decimal128, Int64, MaxKey, MinKey, ObjectId, Regex, Timestamp
from bson.datetime_ms import DatetimeMS
from bson.raw_bson import RawBSONDocument
from psycopg import sql
from pymongo.database import Database

from warp import pipeline
from warp.destinations.postgresql import PostgresDestination, PostgresOptions, room
from warp.errors import DestinationRefused
from warp.model import (
    Chunk,
    DocumentColumn,
    Lease,
    Phase,
    Position,
    Shape,
    TableId,
    TableSettings,
    WorkUnit,
)
from warp.pipeline import NoMeter
from warp.sources.lossless import rebuild
from warp.sources.mongodb import MongoOptions, MongoSource

LIMIT = 60.0  # seconds a stream may take for what takes one

OID = ObjectId("65f0c0ffee00000000000001")
DAY = dt.datetime(2026, 1, 2, 3, 4, 5, 678_000, tzinfo=dt.UTC)
UUID = Binary(bytes.fromhex("00112233445566778899aabbccddeeff"), 4)
DIGITS = "1.234567890123456789012345678901234"  # as many as a decimal128 has


def value(of: Any) -> Cell:
    """A value as the driver writes it."""
    raw = bson.encode({"v": of})
    return raw[4], raw[7:-1]


def binary(content: str, subtype: str) -> dict[str, Any]:
    return {"$binary": {"base64": content, "subType": subtype}}


@dataclass(frozen=True)
class Trap:
    field: str
    sent: Cell
    column: Any  # the text of the column's cell, or the JSON of a jsonb column
    extra: Any = None  # what is in `_extra` for the field
    doc: Any = ...  # the field in `doc`; as in `column` where not given


def trap(field: str, of: Any, column: Any, extra: Any = None, doc: Any = ...) -> Trap:
    return Trap(field, value(of), column, extra, doc)


def number(text: str, kind: str = "Double") -> dict[str, str]:
    return {f"$number{kind}": text}


def date(milliseconds: int) -> dict[str, Any]:
    return {"$date": number(str(milliseconds), "Long")}


TRAPS = [
    trap("oid", OID, str(OID), doc={"$oid": str(OID)}),
    trap("int", 5, "5", doc=5),
    trap("int", Int64(5), "5", doc=number("5", "Long")),
    trap("int", Int64(2**40), "1099511627776", doc=2**40),
    trap("double", 0.5, "0.5", doc=0.5),
    trap("double", 5.0, "5", doc=5.0),
    trap("double", 1e17, "1e+17", doc=1e17),
    trap("double", 5e-324, "5e-324", doc=5e-324),
    trap("double", 1.7976931348623157e308, "1.7976931348623157e+308", doc=1.7976931348623157e308),
    trap("double", float("nan"), "NaN", doc=number("NaN")),
    trap("double", float("-inf"), "-Infinity", doc=number("-Infinity")),
    trap("double", -0.0, "-0", doc=number("-0.0")),
    trap("decimal", Decimal128("1.10"), "1.10", doc=number("1.10", "Decimal")),
    trap("decimal", Decimal128(DIGITS), DIGITS, doc=number(DIGITS, "Decimal")),
    trap("decimal", Decimal128("NaN"), "NaN", doc=number("NaN", "Decimal")),
    trap("decimal", Decimal128("Infinity"), "Infinity", doc=number("Infinity", "Decimal")),
    trap("decimal", Decimal128("-0"), "0", doc=number("-0", "Decimal")),
    *(
        trap("decimal", big, None, number(str(big), "Decimal"), number(str(big), "Decimal"))
        for big in (Decimal128("1E+6144"), Decimal128("1E-6176"))
    ),
    trap("string", "å \U0001f600", "å \U0001f600"),
    trap("string", "a\0b", "a\u2400b", binary("YQBi", "00"), "a\0b"),
    Trap(
        "string",
        (0x02, text_of(b"caf\xe9")),
        "caf\ufffd",
        binary("Y2Fm6Q==", "00"),
        {"$bson": {"type": "02", "base64": "BQAAAGNhZukA"}},
    ),
    trap("date", DAY, "2026-01-02 03:04:05.678+00", doc=date(1_767_323_045_678)),
    trap("date", DatetimeMS(253402300800000), "10000-01-01 00:00:00+00", doc=date(253402300800000)),
    trap("date", DatetimeMS(-62135596800001), "0001-12-31 23:59:59.999+00 BC",
         doc=date(-62135596800001)),
    trap("date", DatetimeMS(2**62), None, date(2**62), date(2**62)),
    trap("bool", True, "true", doc=True),
    trap("null", 7, "7", doc=7),
    trap("null", None, None, doc=None),
    trap("object", {"b": 1, "a": {"deep": [None, 0.5]}}, {"b": 1, "a": {"deep": [None, 0.5]}}),
    trap("object", {"$oid": "x"}, {"$oid": "x"}, doc={"$document": {"$oid": "x"}}),
    Trap("object", (0x03, document([("a", value(1)), ("a", value(2))])), {"a": 2}),
    trap("object", {"s": "x\0"}, {"s": "x\u2400"}, doc={"s": "x\0"}),
    trap("array", [1, "1", [True], {}, -0.0], [1, "1", [True], {}, number("-0.0")]),
    trap("bytes", b"\0\1", "\\x0001", doc=binary("AAE=", "00")),
    trap("bytes", Binary(b"\0", 128), "\\x00", doc=binary("AA==", "80")),
    trap("bytes", Binary(bytes(16), 3), "\\x" + "00" * 16, doc=binary("A" * 22 + "==", "03")),
    trap("uuid", UUID, "00112233-4455-6677-8899-aabbccddeeff",
         doc=binary("ABEiM0RVZneImaq7zN3u/w==", "04")),
    trap("uuid", UUID, "00112233-4455-6677-8899-aabbccddeeff",
         doc=binary("ABEiM0RVZneImaq7zN3u/w==", "04")),
    trap("regex", Regex("^a", "im"), {"$regularExpression": {"pattern": "^a", "options": "im"}}),
    trap("code", Code("f()"), {"$code": "f()"}),
    trap("code", Code("f()", {"x": 1}), {"$code": "f()", "$scope": {"x": 1}}),
    Trap("symbol", (0x0E, text_of(b"s")), "s", doc={"$symbol": "s"}),
    trap("dbref", DBRef("c", OID, "d"), {"$ref": "c", "$id": {"$oid": str(OID)}, "$db": "d"}),
    Trap(
        "dbpointer",
        (0x0C, text_of(b"c") + OID.binary),
        {"$ref": "c", "$id": {"$oid": str(OID)}},
        doc={"$dbPointer": {"$ref": "c", "$id": {"$oid": str(OID)}}},
    ),
    trap("timestamp", Timestamp(7, 9), {"$timestamp": {"t": 7, "i": 9}}),
    trap("minkey", MinKey(), {"$minKey": 1}),
    trap("maxkey", MaxKey(), {"$maxKey": 1}),
    # A field that is never anything but undefined asks for no column, as one of nulls.
    Trap("undefined", (0x06, b""), ..., None, {"$undefined": True}),
]  # fmt: skip

COLUMNS = {
    "oid": "text",
    "int": "bigint",
    "double": "double precision",
    "decimal": "numeric",
    "string": "text",
    "date": "timestamp with time zone",
    "bool": "boolean",
    "null": "bigint",
    **dict.fromkeys(("object", "array", "regex", "code", "dbref", "dbpointer"), "jsonb"),
    **dict.fromkeys(("timestamp", "minkey", "maxkey"), "jsonb"),
    "bytes": "bytea",
    "uuid": "uuid",
    "symbol": "text",
}


@dataclass
class Selection:
    namespace: str
    settings: dict[str, Any]

    def __call__(self, table: TableId) -> TableSettings | None:
        if table.namespace != self.namespace:
            return None
        return TableSettings(table, table, self.namespace, **self.settings)


class Follower(MongoSource):
    """Says when everything up to a place is durable."""

    goal: Position | None = None
    arrived = False

    def acknowledge(self, position: Position) -> None:
        super().acknowledge(position)
        self.arrived = self.goal is not None and self.reached(position, self.goal)


@dataclass
class Watch:
    lease: Lease
    source: Follower
    deadline: float = field(default_factory=lambda: time.monotonic() + LIMIT)

    def check(self) -> None:
        assert time.monotonic() < self.deadline, "the stream has not arrived"

    def stopping(self) -> bool:
        return self.source.arrived

    def wait(self, seconds: float) -> None:
        raise AssertionError("nothing waits here")


class Way:
    """One collection on its way into its table."""

    def __init__(self, mongo_url: str, database: Database[Any], pg_url: str, **settings: Any):
        self.database = database
        self.table = TableId(database.name, "things")
        self.selection = Selection(database.name, settings)
        self.mongo_url, self.pg_url = mongo_url, pg_url
        self.looking = psycopg.connect(pg_url, autocommit=True)
        self.looking.execute("set timezone = 'UTC'")
        self.fence = 0

    def insert(self, *raw: bytes) -> None:
        """As they are: the driver would refuse some of them."""
        documents = [RawBSONDocument(document) for document in raw]
        self.database.command("insert", self.table.name, documents=documents)

    def snapshot(self) -> None:
        chunk = Chunk(self.table, 0)
        with self._ends() as (source, destination):
            table = WorkUnit.of_table(self.table.namespace, self.table)
            destination.metadata().register(table, position=None, phase=Phase.STREAMING)
            lease = self._lease(WorkUnit.of_chunk(self.table.namespace, chunk, 0))
            marker = destination.open(lease)
            watch = Watch(lease, source)
            assert pipeline.snapshot(
                source, destination, marker, watch, selection=self.selection, meter=NoMeter()
            )

    def stream(self, change: Callable[[], None]) -> None:
        with self._ends() as (source, destination):
            unit = WorkUnit.stream(self.table.namespace)
            start = source.position()
            destination.metadata().register(unit, position=start, phase=Phase.STREAMING)
            change()
            source.goal = source.position()
            lease = self._lease(unit)
            pipeline.stream(
                source,
                destination,
                destination.open(lease),
                Watch(lease, source),
                selection=self.selection,
                meter=NoMeter(),
                idle=0.05,
            )

    def ask(self, what: str, *names: str) -> list[Any]:
        query = sql.SQL(what + " from {}").format(
            *map(sql.Identifier, names), sql.Identifier(self.table.namespace, self.table.name)
        )
        return self.looking.execute(query).fetchall()

    def types(self) -> dict[str, str]:
        found = self.looking.execute(
            "select column_name, data_type from information_schema.columns"
            " where table_schema = %s and column_name not like '\\_%%'",
            [self.table.namespace],
        )
        return dict(found.fetchall())

    def _lease(self, unit: WorkUnit) -> Lease:
        self.fence += 1
        return Lease(unit, f"worker {self.fence}", self.fence)

    def _ends(self) -> Ends:
        return Ends(self)

    def close(self) -> None:
        self.looking.close()


class Ends:
    """A source and a destination, closed when done."""

    def __init__(self, way: Way) -> None:
        options = MongoOptions.model_validate({"connection_string": way.mongo_url})
        self.source = Follower(options, way.selection)
        given = PostgresOptions.model_validate({"connection_string": way.pg_url})
        self.destination = PostgresDestination(given, way.selection)

    def __enter__(self) -> tuple[Follower, PostgresDestination]:
        self.destination.metadata().prepare()
        return self.source, self.destination

    def __exit__(self, *_: object) -> None:
        self.source.close()
        self.destination.close()


Make = Callable[..., Way]


@pytest.fixture
def way(mongo: Any, mongo_database: Database[Any], pg_database: str) -> Iterator[Make]:
    made: list[Way] = []

    def make(**settings: Any) -> Way:
        made.append(Way(mongo.url, mongo_database, pg_database, **settings))
        return made[-1]

    yield make
    for each in made:
        each.close()


def in_order(said: Any) -> str:
    return json.dumps(said, sort_keys=True)


def rows_of(traps: list[Trap]) -> dict[str, bytes]:
    ids = [f"{n} {trap.field}" for n, trap in enumerate(traps)]
    return {
        id: document([("_id", value(id)), (trap.field, trap.sent)])
        for id, trap in zip(ids, traps, strict=True)
    }


def carried(way: Way, rows: dict[str, bytes], check: Callable[[], None]) -> None:
    """By the snapshot, and once more by the stream: every row deleted and inserted anew."""
    way.insert(*rows.values())
    way.snapshot()
    check()
    before = way.ask("select max(_cw_version)")[0][0]

    def change() -> None:
        way.database[way.table.name].delete_many({})
        way.insert(*rows.values())

    way.stream(change)
    check()
    assert way.ask("select min(_cw_version)")[0][0] > before


@pytest.mark.holds(guarantee=4, source="mongodb", destination="postgresql", fault="no fault")
def test_every_type_is_in_its_column_or_in_extra(way: Make) -> None:
    to = way(max_columns=100)
    rows = rows_of(TRAPS)

    def check() -> None:
        assert to.types() == COLUMNS
        extras = dict(to.ask("select _id, _extra"))
        assert set(extras) == set(rows)
        for id, trap in zip(rows, TRAPS, strict=True):
            if trap.column is ...:
                assert extras[id] == {trap.field: trap.extra}, id
                continue
            found = dict(to.ask("select _id, {}::text", trap.field))[id]
            if COLUMNS[trap.field] == "jsonb":
                found = json.loads(found)
            assert found == trap.column, id
            assert extras[id] == (None if trap.extra is None else {trap.field: trap.extra}), id

    carried(to, rows, check)


@pytest.mark.parametrize("kept_as", DocumentColumn)
def test_every_type_can_be_read_back_from_its_document(way: Make, kept_as: DocumentColumn) -> None:
    to = way(shape=Shape.DOCUMENT, document_column=kept_as)
    rows = rows_of(TRAPS)
    verbatim = kept_as is DocumentColumn.JSON

    def check() -> None:
        assert to.types() == {"doc": kept_as.value}
        texts = dict(to.ask("select _id, doc::text"))
        assert set(texts) == set(rows)
        for (id, raw), trap in zip(rows.items(), TRAPS, strict=True):
            expected = trap.column if trap.doc is ... else trap.doc
            if not verbatim:
                expected = json.loads(json.dumps(expected).replace("\\u0000", "\\u2400"))
            # As text: 5 and 5.0 are two types.
            assert in_order(json.loads(texts[id])[trap.field]) == in_order(expected), id
            if verbatim:
                assert rebuild(texts[id]) == raw, id
            else:
                assert meaning(rebuild(texts[id])) == meaning(raw), id

    carried(to, rows, check)


HOSTILE = document(
    [
        ("_id", value(1)),
        ("twice", value(1)),
        ("Name", value("upper")),
        ("name", value("lower")),
        ("", value("empty")),
        ("n" * 300, value(300)),
        ("n" * 299 + "m", value(299)),
        ("a.b", value(True)),
        ("$x", value(None)),
        ("doc", value(4)),
        ("_extra", value(5)),
        ("twice", value(2)),
        ('quo"te', value("q")),
    ]
)


def test_names_that_a_table_cannot_have_are_changed_and_their_values_kept(way: Make) -> None:
    to = way()

    def check() -> None:
        [[row]] = to.ask("select to_jsonb(things)")
        long = [name for name in row if name.startswith("nnn")]
        assert sorted(row.pop(name) for name in long) == [299, 300]
        del row["_cw_version"], row["_cw_deleted"]
        assert row == {
            "_id": 1,
            "twice": 2,  # as MongoDB's own drivers read it: the last
            "Name": "upper",
            "name": "lower",
            "_empty": "empty",
            "a.b": True,
            "doc_field": 4,
            "_extra_field": 5,
            'quo"te': "q",
            "_extra": {"$x": None},
        }

    carried(to, {"1": HOSTILE}, check)


@pytest.mark.parametrize("kept_as", DocumentColumn)
def test_any_name_is_kept_in_a_document(way: Make, kept_as: DocumentColumn) -> None:
    to = way(shape=Shape.DOCUMENT, document_column=kept_as)

    def check() -> None:
        [[text]] = to.ask("select doc::text")
        if kept_as is DocumentColumn.JSON:
            assert rebuild(text) == HOSTILE
        else:
            assert meaning(rebuild(text)) == meaning(HOSTILE)

    carried(to, {"1": HOSTILE}, check)


def wide(fields: int) -> bytes:
    return document(
        [("_id", value(1)), *((f"f{n}", value(Int64(2**40 + n))) for n in range(fields))]
    )


@pytest.mark.parametrize(
    ("fields", "most", "columns"),
    [(1_100, 1_500, 979), (1_700, 1_700, 979), (1_700, 300, 300)],
)
def test_a_document_wider_than_a_page_lands(
    way: Make, fields: int, most: int, columns: int
) -> None:
    to = way(max_columns=most, promote_after=0.0)

    def check() -> None:
        [[row, extra]] = to.ask("select to_jsonb(things) - '_extra', _extra")
        there = {name: cell for name, cell in row.items() if name.startswith("f")}
        assert len(there) == columns
        assert there | extra == {f"f{n}": 2**40 + n for n in range(fields)}

    carried(to, {"1": wide(fields)}, check)


def test_without_a_look_at_the_width_such_a_document_would_not_land(
    way: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The broken twin: a table is given every column that was asked for."""
    monkeypatch.setattr(room, "fitted", lambda schema: schema)
    to = way(max_columns=1_500)
    to.insert(wide(1_100))
    with contextlib.suppress(DestinationRefused):
        to.snapshot()
    assert to.ask("select count(*)") == [(0,)]


@pytest.mark.parametrize("shape", [Shape.TYPED, Shape.DOCUMENT])
def test_a_document_of_15_megabytes_lands(way: Make, shape: Shape) -> None:
    to = way(shape=shape)
    large = {"_id": 1, "texts": [f"{n:06}" + "x" * 994 for n in range(15_000)], "n": 1e17}
    raw = bson.encode(large)
    assert len(raw) > 15_000_000

    def check() -> None:
        if shape is Shape.TYPED:
            [[n, texts]] = to.ask("select n, texts")
            assert {"_id": 1, "texts": texts, "n": n} == large
        else:
            [[text]] = to.ask("select doc::text")
            assert meaning(rebuild(text)) == meaning(raw)

    carried(to, {"1": raw}, check)


def test_a_deleted_document_with_nul_is_in_the_audit_as_its_text(way: Make) -> None:
    to = way(shape=Shape.DOCUMENT, document_column=DocumentColumn.JSON)
    raw = bson.encode({"_id": 1, "r": "x\0", "d": 1})
    to.insert(raw)
    to.snapshot()

    def change() -> None:
        to.database[to.table.name].delete_many({})

    to.stream(change)
    assert to.ask("select count(*)") == [(0,)]
    [[kept]] = to.looking.execute(
        "select row from cartridge_warp_metadata.deletion_audit"
    ).fetchall()
    assert rebuild(kept["doc"]) == raw


def test_a_deleted_row_is_in_the_audit_whole_whatever_its_columns_are_called(way: Make) -> None:
    to = way()
    to.insert(bson.encode({"_id": 1, "d": 2, "s": 3, "r": 4}))
    to.snapshot()

    def change() -> None:
        to.database[to.table.name].delete_many({})

    to.stream(change)
    [[kept]] = to.looking.execute(
        "select row from cartridge_warp_metadata.deletion_audit"
    ).fetchall()
    assert (kept["d"], kept["s"], kept["r"]) == (2, 3, 4)


def test_fields_keep_landing_when_dropped_columns_have_used_up_the_table(way: Make) -> None:
    """PostgreSQL counts them: after 1,600 it refuses another column with 54011."""
    to = way(promote_after=0.0)
    to.insert(bson.encode({"_id": 1, "a": 1}))
    to.snapshot()
    place = sql.Identifier(to.table.namespace, to.table.name)
    for start in range(0, 1_600, 100):
        names = [sql.Identifier(f"gone{n}") for n in range(start, min(start + 100, 1_595))]
        for verb in ("add column {} int", "drop column {}"):
            parts = sql.SQL(", ").join(sql.SQL(verb).format(name) for name in names)
            to.looking.execute(sql.SQL("alter table {} ").format(place) + parts)
    more = sql.SQL("alter table {} add one int, add two int").format(place)
    with pytest.raises(psycopg.errors.TooManyColumns):
        to.looking.execute(more)

    to.stream(lambda: to.insert(*(bson.encode({"_id": n, "later": n}) for n in range(2, 9))))

    assert sorted(to.ask("select _id, _extra")) == [
        (1, None),
        *((n, {"later": n}) for n in range(2, 9)),
    ]
