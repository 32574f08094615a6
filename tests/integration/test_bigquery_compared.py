"""A BigQuery compared with its source: what differs is found and mended, and nothing else."""

from __future__ import annotations

import datetime as dt
import secrets
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any, ClassVar, cast

import click
import pytest
from fix_bigquery import Warehouse
from fix_servers import BigQueryServer
from in_process import Live, live, of_postgresql, settings_of
from postgresql_shop import Shop
from test_bigquery_schema import Writer
from test_verify_command import Terminal, proves
from verified_copy import FAULTS, ORDERS, SCHEMA, OneCopy, VerifiedCopy, plant, sixty_orders

from commands.cli import Flags
from warp import hash_capture, startup
from warp.assembly import Assembly
from warp.comparison import Comparison
from warp.destinations.bigquery import BigQueryDestination, merge, verifications
from warp.destinations.bigquery.comparing import BigQueryComparing
from warp.digest import canonical
from warp.digest.comparing import NO_VERSION
from warp.digest.ranges import compared_of
from warp.digest.seams import EVERYTHING, KeyRange
from warp.digest.sums import Sums, leaves_of, total
from warp.leases.memory import MemoryLeaseStore
from warp.model import (
    Column,
    Kind,
    Operation,
    Position,
    TableId,
    TableSettings,
    UnitKind,
)
from warp.sources.postgresql import PostgresSource
from workers.errands import Desk, recover

pytestmark = [pytest.mark.xdist_group("bigquery"), pytest.mark.timeout(900)]

MICROSECONDS = 1_700_000_000_123_456
# Each as a source sends it, and as another source, or a person, would have written the same value.
VALUES: list[tuple[Kind, list[Any]]] = [
    (Kind.BOOL, [True, False]),
    (Kind.INT32, [-(2**31), 0]),
    (Kind.INT64, [2**63 - 1, -(2**63)]),
    (Kind.FLOAT32, [0.10000000149011612, -0.0]),
    (
        Kind.FLOAT64,
        [0.1, float("inf"), float("-inf"), float("nan"), 5e-324, 1.7976931348623157e308],
    ),
    (Kind.DECIMAL, [Decimal("1.10"), Decimal("-1e3"), Decimal("0.000000000000000001")]),
    (Kind.TEXT, ["", 'é 😀 "\\\n\t\x7f', " ends "]),
    (Kind.BYTES, [b"", b"\x00\xff"]),
    (Kind.UUID, [bytes(range(16)), bytes(16)]),
    (Kind.DATE, [dt.date(1, 1, 1), dt.date(9999, 12, 31)]),
    (Kind.TIME, [0, 86_399_999_999]),
    (Kind.DATETIME, [MICROSECONDS, -62_135_596_800_000_000]),
    (Kind.TIMESTAMP, [MICROSECONDS, 253_402_300_799_999_999]),
    (
        Kind.JSON,
        [
            b'{"bb": [1, "x", null, {}], "a": 1.50, "": "\\u00e9\\n"}',
            b'{"two": 2.0, "e": 1e-7, "max": 18446744073709551615}',
            b"null",
            b"[]",
            b'"text"',
        ],
    ),
    (Kind.JSON_TEXT, [b'{"b":1.50, "a":2}', b" 1 "]),
    (Kind.OBJECTID, ["0123456789abcdef01234567"]),
    (Kind.TAGGED, ['{"$oid":"1"}', "1"]),
]
ROWS = max(len(values) for _, values in VALUES) + 1  # the last is NULL everywhere


@pytest.fixture(scope="module")
def warehouse(bigquery_server: BigQueryServer) -> Iterator[Warehouse]:
    with Warehouse(bigquery_server, secrets.token_hex(4)) as warehouse:
        yield warehouse


@pytest.fixture
def remembering(bigquery_server: BigQueryServer) -> Iterator[Warehouse]:
    """One that can be asked as of a time."""
    with Warehouse(bigquery_server, secrets.token_hex(4), history=True) as warehouse:
        yield warehouse


def cell(values: Sequence[Any], row: int) -> Any:
    return values[row % len(values)] if row < ROWS - 1 else None


def test_every_value_comes_back_in_the_form_that_it_has_at_its_source(
    remembering: Warehouse,
) -> None:
    """By us, by whole and by part, and by the witness; as now and as of a time."""
    writer = Writer(remembering)
    columns = [Column(f"v `{kind}`", kind) for kind, _ in VALUES]
    writer.make(Column("id", Kind.INT64), *columns)
    rows = [[id, *(cell(values, id) for _, values in VALUES)] for id in range(ROWS)]
    writer.write(*rows)
    schema = writer.destination.get_schema(writer.id)
    assert schema is not None
    compared = compared_of(schema, None)
    by_name = dict(zip(schema.names(), map(list, zip(*rows, strict=True)), strict=True))
    comparing = writer.destination.comparing()
    cells = comparing.kept(compared, [by_name[column.name] for column in compared.columns])
    forms = canonical.forms_of(compared.columns, cells)
    looked = comparing.look(compared, [[*range(ROWS), 99]])
    for id, (wanted, found) in enumerate(zip(forms, looked, strict=False)):
        assert found is not None
        for column, ours, theirs in zip(compared.columns, wanted, found.forms, strict=True):
            assert ours == theirs, (id, column.kind, by_name[column.name][id])
    assert looked[ROWS] is None

    hashes = canonical.row_hashes(compared.columns, cells)
    spent = writer.destination.spent.requests
    assert comparing.total(compared, EVERYTHING) == Sums.of(hashes)
    asked = writer.destination.spent.requests - spent
    leaves = comparing.leaves(compared, EVERYTHING)
    assert total(leaves.values()) == Sums.of(hashes)
    assert set(leaves) == set(leaves_of(compared.key, [list(range(ROWS))]))
    listed = comparing.rows(compared, EVERYTHING, list(leaves))
    assert dict(listed) == {(str(id),): hash_ for id, hash_ in enumerate(hashes)}
    # A range is read, and billed, once.
    assert writer.destination.spent.requests - spent == asked
    assert comparing.total(compared, KeyRange((2,), (4,))) == Sums.of(hashes[2:4])
    [summed], streams = comparing.together([compared])
    assert summed == Sums.of(hashes)
    assert [marker.unit.kind for marker in streams] == [UnitKind.STREAM]
    place = remembering.place(writer.id)
    names = [(column.name, column.kind.value) for column in compared.columns]
    recounted = comparing.recount((place.namespace, place.name), names, None)
    assert recounted == (ROWS, str(Sums.of(hashes)))


@pytest.mark.soak
def test_what_somebody_else_has_written_has_a_form_and_differs(warehouse: Warehouse) -> None:
    """Values that are none of their column's kind, keys twice or none, rows without a version."""
    writer = Writer(warehouse, soft_delete_column="is deleted")
    kinds = [Column("u", Kind.UUID), Column("f", Kind.FLOAT32)]
    writer.make(Column("id", Kind.INT64), *kinds)
    token = bytes(range(16))
    writer.write(*([id, token, 0.5] for id in range(6)))
    writer.write([5, None, None], operation=Operation.DELETE, version=2)
    schema = writer.destination.get_schema(writer.id)
    assert schema is not None
    compared = compared_of(schema, None)
    comparing = writer.destination.comparing()
    before = comparing.total(compared, EVERYTHING)
    assert before.rows == 5  # one is deleted
    place = warehouse.place(writer.id)
    name = f"{place.namespace}.{place.name}"
    warehouse.query(f"UPDATE {name} SET u = UPPER(u), f = 0.1 WHERE id = 0")
    warehouse.query(f"UPDATE {name} SET u = 'no, uuid' WHERE id = 1")
    warehouse.query(f"UPDATE {name} SET _cw_version = NULL, _cw_deleted = NULL WHERE id = 2")
    warehouse.query(f"INSERT INTO {name} SELECT * FROM {name} WHERE id = 3")
    warehouse.query(f"INSERT INTO {name} (u) VALUES ('nobody')")
    found = comparing.look(compared, [[0, 1, 2, 3, 5, None]])
    # In the order of the columns: f, id, u.
    forms = [one.forms if one is not None else () for one in found]
    assert [str(form)[0] for form in (forms[0][0], forms[0][2], forms[1][2])] == ["?"] * 3
    assert [one and (one.version, one.gone, one.copies) for one in found] == [
        *((1, False, 1), (1, False, 1), (NO_VERSION, False, 1), (1, False, 2)),
        *((2, True, 1), (NO_VERSION, False, 1)),
    ]
    assert comparing.total(compared, EVERYTHING).rows == 7
    listed = comparing.rows(compared, EVERYTHING, list(comparing.leaves(compared, EVERYTHING)))
    assert [key for key, _ in listed].count(("3",)) == 2
    assert dict(listed)["2",] == b""  # no hash: it differs, whatever it holds

    comparing.single_out(compared, [[2, 3]])
    told = comparing.look(compared, [[2, 3]])
    assert [one and (one.version, one.gone, one.copies) for one in told] == [
        (0, False, 1),
        (1, False, 1),
    ]
    [audited, *_] = warehouse.metadata("deletion_audit")[-2:]
    assert (audited["reason"], audited["version"]) == ("duplicate", -1)
    comparing.hold_places(compared, [[3, 70]], 7)  # of 3 there is a row
    assert [one and (one.version, one.gone) for one in comparing.look(compared, [[3, 70]])] == [
        (1, False),
        (7, True),
    ]


# ---------------------------------------------------------------- a copy kept equal by a stream


@dataclass
class CopyInBigQuery(VerifiedCopy):
    Destination: ClassVar[Any] = BigQueryDestination
    idle: ClassVar[float] = 1.0  # each move of an idle marker is a transaction

    warehouse: Warehouse = field(kw_only=True)
    rows: int = 100

    def connect(self) -> Any:
        return self.warehouse.client

    def destination(self) -> BigQueryDestination:
        return self.warehouse.destination(self.select)

    def run(self, statement: str, parameters: Any = None) -> list[Any]:
        mine = statement.replace("shop.", f"shop_{self.warehouse.mark}.")
        return [tuple(row.values()) for row in self.warehouse.query(mine)]

    def states(self, code: str = "REPAIR") -> dict[str, str]:
        meta = f"meta_{self.warehouse.mark}"
        rows = self.warehouse.query(
            f"SELECT q.key, d.state FROM {meta}.quarantine AS q JOIN {meta}.quarantine_decisions"
            f" AS d ON d.id = q.id WHERE q.code = '{code}' ORDER BY d.noted_at"
        )
        return {row["key"]: row["state"] for row in rows}

    def close(self) -> None: ...


def everything(table: TableId) -> TableSettings | None:
    if table.namespace != "shop":
        return None
    return TableSettings(table, table, SCHEMA, full_load_batch_size=100, write_batch_size=100)


@pytest.fixture
def shop(capture_shop: Shop) -> Shop:
    return capture_shop


@pytest.fixture
def copy(shop: Shop, bigquery_server: BigQueryServer) -> Iterator[CopyInBigQuery]:
    sixty_orders(shop)
    with Warehouse(bigquery_server, secrets.token_hex(4)) as warehouse:
        yield CopyInBigQuery(
            lambda: PostgresSource(shop.options(), everything),
            everything,
            bigquery_server.url,
            warehouse=warehouse,
        )


MORE_FAULTS = FAULTS | {
    '{"id": 41}': "duplicate",
    '{"id": 42}': "duplicate",
    '{"id": 50}': "differs",
    '{"id": 1001}': "extra",
    '{"id": null}': "extra",
}


def plant_more(copy: CopyInBigQuery) -> None:
    """And what only BigQuery lets be: a key twice, rows without a version."""
    plant(copy)
    copy.run("insert into shop.orders select * from shop.orders where id in (41, 42)")
    copy.run("update shop.orders set name = 'another', _cw_version = 3 where id = 42")
    copy.run("insert into shop.orders (id, name) values (1001, 'by hand')")
    copy.run("insert into shop.orders (name, _cw_version, _cw_deleted) values ('?', 5, false)")
    copy.run("update shop.orders set _cw_version = null, _cw_deleted = null where id = 50")


@pytest.mark.soak
@pytest.mark.parametrize("twin", [False, True])
def test_planted_faults_are_found_and_mended_and_no_other_row_is_written(
    copy: CopyInBigQuery, shop: Shop, twin: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without leaving one row of each key, a key that is there twice stays so."""
    monkeypatch.setattr(Comparison, "_passed", lambda self: Position("nothing is on its way"))
    if twin:
        monkeypatch.setattr(BigQueryComparing, "single_out", lambda *_: None)
    mine = "select id, name, share from shop.orders where not _cw_deleted order by id"
    ids = ", ".join(key.split()[1].rstrip("}") for key in MORE_FAULTS if "null" not in key)
    others = f"select id, _cw_version from shop.orders where id not in ({ids}) order by 1"
    copy.bring(ORDERS)
    first = copy.verify(ORDERS)
    assert (first.rows, first.units, first.differences, first.unsettled) == (60, 1, 0, 0)
    before, untouched = copy.run(mine), copy.run(others)
    plant_more(copy)
    second = copy.verify(ORDERS)
    assert copy.differences(ORDERS) == MORE_FAULTS
    assert second.differences == len(MORE_FAULTS)
    assert second.digest == first.digest  # of what should be there
    copy.mend(ORDERS)
    assert copy.run(others) == untouched
    left = copy.verify(ORDERS)
    if twin:
        unmended = {"duplicate", "differs", "extra"}
        assert set(copy.differences(ORDERS).values()) == unmended
        return
    mended = {key for key in MORE_FAULTS if "null" not in key}  # that one goes at once
    assert copy.states() == dict.fromkeys(mended, "replayed")
    assert copy.run(mine) == before
    assert (left.differences, copy.differences(ORDERS)) == (0, {})


@pytest.mark.soak
@pytest.mark.parametrize("twin", ["", "no place is held", "no trace is left"])
def test_a_row_that_is_deleted_before_its_correction_is_stored_does_not_come_back(
    copy: CopyInBigQuery, shop: Shop, twin: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tombstone in its place is what the delete leaves its trace by."""
    if twin == "no place is held":
        monkeypatch.setattr(BigQueryComparing, "hold_places", lambda *_: None)
    if twin == "no trace is left":
        real = merge.audit_deleted
        monkeypatch.setattr(
            merge, "audit_deleted", lambda *given, settled: real(*given, settled=False)
        )
    monkeypatch.setattr(Comparison, "_passed", lambda self: Position("nothing is on its way"))
    copy.bring(ORDERS)
    copy.run("delete from shop.orders where id = 20")
    copy.verify(ORDERS)
    corrections = copy.look(ORDERS)
    shop.run("delete from shop.orders where id = 20")
    with copy.streaming():
        copy.arrived()
    copy.hand_on(ORDERS, corrections)
    copy.replay(ORDERS)
    back = copy.run("select id from shop.orders where id = 20 and not _cw_deleted")
    assert back == ([(20,)] if twin else [])


@pytest.mark.holds(guarantee=6, source="postgresql", destination="bigquery", fault="lost position")
@pytest.mark.soak
@pytest.mark.parametrize("twin", [False, True])
def test_a_lost_place_is_recovered_by_writing_what_differs(
    copy: CopyInBigQuery, shop: Shop, twin: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pass that has forgotten that it is to mend finds what was missed, and leaves it."""
    if twin:
        planned = verifications._planned
        monkeypatch.setattr(
            verifications, "_planned", lambda unit, number, repairs: planned(unit, number, False)
        )
    copy.bring(ORDERS)
    before = copy.run("select id, _cw_version from shop.orders where id not in (3, 4) order by id")
    shop.drop_slot()
    shop.admin.execute("reset role")
    shop.run("update shop.orders set name = 'in the gap' where id = 3")
    shop.run("delete from shop.orders where id = 4")
    ledger = MemoryLeaseStore()
    with closing(copy.destination()) as destination:
        desk = Desk(destination.metadata(), ledger, cast("Assembly", OneCopy(copy)))
        assert "compare what it has missed" in recover(desk, schema=SCHEMA)
    with copy.streaming():
        with closing(copy.make_source()) as source, closing(copy.destination()) as destination:
            for entry in ledger.units():
                if entry.unit.kind is UnitKind.VERIFY:
                    copy.work(source, destination, entry.unit)
        if twin:
            missed = {'{"id": 3}': "differs", '{"id": 4}': "extra"}
            assert (copy.differences(ORDERS), copy.states()) == (missed, {})
            return
        copy.replay(ORDERS)
        found = copy.run("select id, name from shop.orders where id < 5 and not _cw_deleted")
        assert sorted(found) == [(1, "n1"), (2, "n2"), (3, "in the gap")]
        assert copy.states() == {'{"id": 3}': "replayed", '{"id": 4}': "replayed"}
        after = copy.run(
            "select id, _cw_version from shop.orders where id not in (3, 4) order by id"
        )
        assert after == before


@pytest.mark.soak
def test_a_certificate_is_written_and_checked_by_the_commands(
    shop: Shop,
    bigquery_server: BigQueryServer,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    """All of a certificate is of one time, so the tables must be able to show it."""
    sixty_orders(shop)
    with Warehouse(bigquery_server, secrets.token_hex(4), history=True) as warehouse:
        copy = CopyInBigQuery(
            lambda: PostgresSource(shop.options(), everything),
            everything,
            bigquery_server.url,
            warehouse=warehouse,
        )
        settings = settings_of(
            tmp_path,
            {
                "source": {
                    "type": "postgresql",
                    "connection_string": shop.reading_url,
                    "slot": shop.slot,
                    "publication": shop.publication,
                },
                "destination": {"type": "bigquery", **warehouse.options},
                "schemas": [{"name": SCHEMA, "destination_schema": f"{SCHEMA}_{warehouse.mark}"}],
            },
        )
        terminal = Terminal(settings, copy, capsys)
        file = tmp_path / "proof.json"
        with click.Context(click.Command("verify"), obj=Flags()):
            with copy.following(ORDERS):
                code, told = terminal.verify(write=file)
                assert (code, told["equal"]) == (startup.DONE, True)
                assert told["tables"][0]["rows"] == 60
            proves(terminal, file)


# ---------------------------------------------------------------- a fleet


@pytest.fixture
def fleet(
    shop: Shop, bigquery_server: BigQueryServer, tmp_path: Any
) -> Iterator[tuple[Live, Any, Warehouse]]:
    side = of_postgresql(shop.fresh())
    with Warehouse(bigquery_server, secrets.token_hex(4)) as warehouse:
        tree = {
            "source": side.tree,
            "destination": {"type": "bigquery", **warehouse.options},
            "schemas": [
                {
                    "name": "shop",
                    "destination_schema": f"shop_{warehouse.mark}",
                    "mode": "batch",
                    "polling_interval": "1s",
                    "change_detection": {"strategy": "hash"},
                }
            ],
        }
        for id in range(60):
            side.put(id, f"v{id}")
        with live(settings_of(tmp_path, tree)) as fleet:
            fleet.until_complete("orders")
            yield fleet, side, warehouse
    shop.tidy()


@pytest.mark.soak
@pytest.mark.parametrize("twin", [False, True])
def test_hash_capture_writes_only_rows_that_differ(
    fleet: tuple[Live, Any, Warehouse], twin: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where its sums were not believed, each run would write every row."""
    if twin:
        monkeypatch.setattr(BigQueryComparing, "keeps_forms", lambda *_: False)
    read_whole: list[str] = []
    monkeypatch.setattr(hash_capture, "_say_once", lambda table, why: read_whole.append(why))
    live_, side, warehouse = fleet

    def rows(columns: str) -> dict[int, Any]:
        found = warehouse.query(
            f"SELECT {side.key} AS id, {columns} AS v FROM shop_{warehouse.mark}.orders"
            " WHERE NOT _cw_deleted"
        )
        return {row["id"]: row["v"] for row in found}

    live_.until(lambda: rows("v") == side.rows(), "the first rows")
    before = rows("_cw_version")
    side.put(3, "changed")
    side.put(200, "new")
    side.delete(4)
    live_.until(lambda: rows("v") == side.rows(), "the changes")
    after = rows("_cw_version")
    changed = {id for id in after if after[id] != before.get(id)}
    if twin:
        assert changed == set(after)
        return
    assert changed == {3, 200}
    assert read_whole == []
